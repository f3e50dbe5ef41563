"""Steps of CI, run as it runs them: bash with GitHub's flags, a folder of programs before all others."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from tests.webserver import Tracker

ROOT = Path(__file__).parents[1]


def script(path: Path, text: str) -> None:
    """A program."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def machine(checkout: Path) -> None:
    """Make what a checkout has beside it: the programs of the tests, and a folder for files."""
    (checkout.parent / "bin").mkdir()
    for name, words in (("nox", "-m nox"), ("harness", "-m harness"), ("python", "")):
        script(checkout.parent / "bin" / name, f'exec {sys.executable} {words} "$@"')
    (checkout.parent / "temp").mkdir()


def bash(folder: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As GitHub runs a script with `shell: bash`."""
    base = {
        "PATH": f"{folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder.parent),
        "RUNNER_TEMP": str(folder.parent / "temp"),
        "GITHUB_REPOSITORY": Tracker.REPOSITORY,
    }
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
        cwd=folder, env={**base, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
