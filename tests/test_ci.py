""".ci/run: it installs what the tests need, or says why it cannot."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import PACKAGES
from tests.tools import program

pytestmark = pytest.mark.tools

SCRIPT = Path(__file__).parents[1] / ".ci" / "run"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder for PATH, with what the script's first lines need and no browser."""
    for name in ("bash", "dirname"):
        found = shutil.which(name)
        assert found
        (tmp_path / name).symlink_to(found)
    add(tmp_path, "python3", f'exec {sys.executable} "$@"')
    add(tmp_path, "id", "echo 0")
    return tmp_path


def add(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!{shutil.which('bash')}\n{text}\n")
    (folder / name).chmod(0o755)


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    words = [str(folder / "bash"), str(SCRIPT)]
    return subprocess.run(words, env={"PATH": str(folder)}, capture_output=True, text=True, check=False)


def test_shellcheck_finds_nothing_in_it() -> None:
    words = [program("shellcheck"), str(SCRIPT)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_without_a_browser_and_without_apt_get_it_says_what_to_install(bare: Path) -> None:
    done = run(bare)
    assert done.returncode == 1
    assert done.stderr == (
        ".ci/run: no Chromium and no Chrome on PATH, and no apt-get: install one of them\n"
    )


def test_it_installs_debians_browser_and_says_when_that_fails(bare: Path) -> None:
    add(bare, "apt-get", 'echo "$@"; exit 100')
    done = run(bare)
    assert done.returncode == 1
    waits = "-o DPkg::Lock::Timeout=300"
    assert done.stdout == f"{waits} update\n{waits} install -y --no-install-recommends chromium\n"
    assert done.stderr.endswith(".ci/run: apt-get could not install chromium\n")


def test_who_is_not_root_asks_sudo(bare: Path) -> None:
    add(bare, "id", "echo 1000")
    add(bare, "apt-get", "exit 100")
    done = run(bare)
    assert done.returncode == 1
    assert done.stderr == (".ci/run: no Chromium and no Chrome on PATH: install one, or run this as root\n")
    add(bare, "sudo", 'echo sudo "$@"; exit 100')
    done = run(bare)
    apt = "sudo apt-get -o DPkg::Lock::Timeout=300"
    assert done.stdout == f"{apt} update\n{apt} install -y --no-install-recommends chromium\n"


def test_what_it_installs_for_slurm_is_what_the_session_says_is_missing() -> None:
    assert f"slurm=({' '.join(PACKAGES)})\n" in SCRIPT.read_text()


def test_a_browser_that_is_there_is_taken(bare: Path) -> None:
    add(bare, "google-chrome", "exit 1")
    add(bare, "python3", f'[ "$1" = -c ] && exec {sys.executable} "$@"; echo python3 "$@"; exit 7')
    done = run(bare)
    assert (done.returncode, done.stdout) == (7, "python3 -m venv build/ci\n")
