"""An environment for each set of pins, made by uv and kept."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from tests.museum.exhibits import Release

ROOT = Path(__file__).parents[2]
_READY = "ready"


def torch_of_dev() -> str:
    """The requirement of the track ``dev``."""
    from nox import project

    pins = project.dependency_groups(project.load_toml(ROOT / "pyproject.toml"), "dev")
    return next(pin for pin in pins if pin.startswith("torch=="))


def _interpreter(python: str) -> str:
    """What uv is asked for: pyenv may keep a version from PATH."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return next((str(one / "bin" / "python") for one in sorted(kept.glob(f"{python}.*"))), python)


def python_of(release: Release, python: str, folder: Path, torch: str) -> Path:
    """The Python of an environment of a release and this checkout; raises subprocess.CalledProcessError.

    Args:
        folder: where environments are kept. One that was made to its end is taken as it is.
        torch: the requirement of those that name none.
    """
    pins = list(release.pins)
    if not any(pin.startswith("torch==") for pin in pins):
        pins.append(torch)
    name = hashlib.sha256(" ".join([python, *sorted(pins)]).encode()).hexdigest()[:16]
    made = folder / name
    if not (made / _READY).exists():
        env = {**os.environ, "DS_BUILD_OPS": "0", "UV_HTTP_TIMEOUT": "300"}
        env.pop("VIRTUAL_ENV", None)
        run = ["uv", "venv", "--quiet", "--clear", "--python", _interpreter(python), str(made)]
        subprocess.run(run, check=True, env=env)
        install = ["uv", "pip", "install", "--quiet", "--python", str(made / "bin" / "python")]
        subprocess.run([*install, "--editable", f"{ROOT}[tensorstore]", *pins], check=True, env=env)
        (made / _READY).write_text(" ".join(pins) + "\n")
    return made / "bin" / "python"
