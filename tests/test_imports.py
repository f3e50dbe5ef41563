"""Which way imports may point: what pyproject.toml has import-linter check, and that it would be noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import program

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """``lint-imports`` in a checkout."""
    words = [program("lint-imports"), "--no-logo", "--no-cache"]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout whose imports may be spoilt."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "harness", tmp_path / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_every_import_points_the_way_it_may() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "planted", "said"),
    [
        (
            "checks/bounds.py",
            "import harness.verdict",
            "harness.checks is not allowed to import harness.verdict",
        ),
        (
            "errors.py",
            "def late() -> None:\n    from harness.cases import find_case\n",
            "harness.errors is not allowed to import harness.cases",
        ),
        (
            "cases/arguments.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from harness.metrics import Series\n",
            "harness.cases is not allowed to import harness.metrics",
        ),
        (
            "trainers/native/adapter.py",
            "import harness.trainers.megatron.recipes",
            "harness.trainers.native is not allowed to import harness.trainers.megatron",
        ),
        (
            "metrics/series.py",
            "import harness.metrics.events",
            "No cycles are allowed in harness.metrics",
        ),
        ("cellar/__init__.py", "", "cellar"),
    ],
)
def test_an_import_that_points_the_wrong_way_fails(copy: Path, module: str, planted: str, said: str) -> None:
    path = copy / "harness" / module
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(f"\n{planted}\n")
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout


def test_an_excuse_that_nothing_needs_fails(copy: Path) -> None:
    project = copy / "pyproject.toml"
    text = project.read_text()
    contract = 'type = "independence"\n'
    assert contract in text
    excuse = 'ignore_imports = ["harness.errors -> harness.matrix"]\n'
    project.write_text(text.replace(contract, contract + excuse, 1))
    done = lint(copy)
    assert done.returncode == 1
    assert "harness.errors -> harness.matrix" in done.stdout


@pytest.mark.parametrize("module", ["harness.matrix", "harness.errors", "harness.machine.hardware"])
def test_what_the_noxfile_imports_needs_the_standard_library_alone(module: str) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    ours = {name.partition(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names)
    assert {name for name in ours if not name.startswith("_")} == {"harness"}
