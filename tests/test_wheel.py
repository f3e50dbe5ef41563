"""The wheel: what is in it, and that it works where nothing else is.

HARNESS_WHEEL names one that is built already, as release.yml does: what is published is what was tested.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from harness import __version__
from tests.plain_case import write_case
from tests.tools import program
from tests.wheels import build, install

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[1]
INFO = f"resume_harness-{__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))


class Installed:
    """An environment with the wheel and what it asks for."""

    def __init__(self, folder: Path, wheel: Path, *more: str) -> None:
        self.folder = folder
        install(folder, wheel, *more)

    def run(self, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of its programs with nothing of the tests' own environment."""
        env = {"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", "HARNESS_LEASES": str(self.folder / "leases")}
        command = [str(self.folder / "bin" / words[0]), *words[1:]]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("bare") / "venv", wheel)


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "harness").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "harness/py.typed" in files
    assert any(name.startswith("harness/report/assets/") for name in files)
    assert any(name.startswith("harness/report/vendor/") for name in files)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name for name in names if not name.startswith(f"{INFO}/")} == files


def test_the_wheel_has_the_command_the_plugin_the_readme_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        points = archive.read(f"{INFO}/entry_points.txt").decode()
        about = archive.read(f"{INFO}/METADATA").decode()
        licence = archive.read(f"{INFO}/licenses/LICENSE").decode()
    assert "harness = harness.commands.cli:main" in points.partition("[console_scripts]")[2]
    assert "harness = harness.plugin" in points.partition("[pytest11]")[2]
    assert about.endswith((ROOT / "README.md").read_text(encoding="utf-8"))
    assert licence == (ROOT / "LICENSE").read_text()


def test_it_is_used_without_torch_and_without_the_checkout(bare: Installed, tmp_path: Path) -> None:
    assert bare.run(tmp_path, "python", "-c", "import torch").returncode == 1
    where = bare.run(tmp_path, "python", "-c", "import harness; print(harness.__file__)").stdout
    assert where.startswith(str(bare.folder))
    done = bare.run(tmp_path, "harness", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: harness")
    assert "--cell=HARDWARE/TRACK/CASE" in bare.run(tmp_path, "pytest", "--help").stdout


def test_a_script_without_torch_is_recorded_passes_and_has_its_report(
    bare: Installed, tmp_path: Path
) -> None:
    case = tmp_path / "cases" / "mine" / "plain"
    write_case(case)
    done = bare.run(tmp_path, "harness", "run", "cases/mine/plain", "--golden-update")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "golden: recorded" in done.stdout
    done = bare.run(tmp_path, "harness", "run", "cases/mine/plain")
    assert done.returncode == 0, done.stdout + done.stderr
    page = tmp_path / "results" / "cpu" / "dev" / "plain" / "report.html"
    assert "uPlot" in page.read_text(encoding="utf-8")


def test_the_tutorials_first_command_runs_from_it(wheel: Path, tmp_path: Path) -> None:
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    installed = Installed(tmp_path / "venv", wheel, *pins)
    tutorial = (ROOT / "docs" / "tutorial.md").read_text()
    found = re.search(r"^(harness .*?) +# exit status (\d+)$", tutorial, re.MULTILINE)
    assert found
    folder = tmp_path / "tutorial"
    shutil.copytree(ROOT / "docs" / "examples" / "plain" / "tiny_lm", folder / "cases" / "mine" / "tiny_lm")
    done = installed.run(folder, *found[1].split())
    assert done.returncode == int(found[2]), done.stdout + done.stderr
    recorded = re.search(r"^golden: recorded: .*$", tutorial, re.MULTILINE)
    assert recorded
    assert recorded[0] in done.stdout


def test_its_types_are_those_of_who_uses_it(bare: Installed, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "from harness.matrix import Cell\n\nname: str = Cell.parse('cpu/dev/x').case\nname.no_such_method()\n"
    )
    python = bare.folder / "bin" / "python"
    words = [program("mypy"), "--strict", "--python-executable", str(python), "user.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (
        done.stdout.splitlines()[0]
        == 'user.py:4: error: "str" has no attribute "no_such_method"  [attr-defined]'
    )
    assert "Found 1 error in 1 file" in done.stdout
