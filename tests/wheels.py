"""The wheel, and an environment that has it and nothing of the tests' own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import program

ROOT = Path(__file__).parents[1]
#: Where packages come from, which a newcomer's machine knows as well.
SOURCES = ("UV_", "PIP_")


def uv(*words: str) -> None:
    """Run uv; skips where no registry answers."""
    command = [program("uv"), *words]
    done = subprocess.run(command, env=sources(dict(os.environ)), capture_output=True, text=True, check=False)
    if done.returncode and re.search(r"Failed to fetch|error sending request|dns error", done.stderr):
        pytest.skip("no registry answers")
    assert done.returncode == 0, done.stderr


def sources(env: dict[str, str]) -> dict[str, str]:
    """With the wheels of ``PIP_FIND_LINKS`` for uv, which does not look where pip is told to look."""
    if "PIP_FIND_LINKS" in env:
        env.setdefault("UV_FIND_LINKS", ",".join(env["PIP_FIND_LINKS"].split()))
    return env


def build(folder: Path) -> Path:
    """Made from the source distribution, so that both are looked at; ``HARNESS_WHEEL`` names one that is."""
    if "HARNESS_WHEEL" in os.environ:
        return Path(os.environ["HARNESS_WHEEL"]).absolute()
    uv("build", "--quiet", "--out-dir", str(folder), str(ROOT))
    (found,) = folder.glob("*.whl")
    return found


def install(folder: Path, wheel: Path, *more: str) -> None:
    """An environment with the wheel and what it asks for."""
    uv("venv", "--quiet", "--python", sys.executable, str(folder))
    uv("pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), str(wheel), *more)


def newcomer(home: Path) -> dict[str, str]:
    """The variables of somebody who has the environment ``home/venv`` on PATH, and no GPU."""
    kept = ("HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "XDG_CACHE_HOME")
    env = {name: value for name, value in os.environ.items() if name in kept or name.startswith(SOURCES)}
    path = f"{home / 'venv' / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    return sources(env) | {"PATH": path, "HARNESS_LEASES": str(home / "leases"), "NO_COLOR": "1"}
