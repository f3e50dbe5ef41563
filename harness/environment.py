"""The environment of a cell's track, as nox makes it, or one line where there can be none."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox
from nox.virtualenv import UV

from harness.machine.hardware import devices_of, driver_here, of_amd
from harness.matrix import Cell
from harness.repository import DISTRIBUTION, Repository, installed_as, repository

#: Where packages come from: who has set one of these is not overruled.
_SAID = {f"UV_{name}" for name in ("TORCH_BACKEND", "FIND_LINKS", "OFFLINE", "NO_INDEX", "INDEX")}
_SAID |= {f"UV_{name}" for name in ("DEFAULT_INDEX", "INDEX_URL", "EXTRA_INDEX_URL")}
#: Options of nox by which sessions are chosen, or a program is told of them: then all of them are there.
_CHOOSES = ("-s", "--session", "-e", "-t", "--tags", "-k", "--keywords", "-p", "--python", "--json", "-f")


def make(session: nox.Session, here: Repository, cell: Cell) -> tuple[str, ...]:
    """Make the environment of a cell's track; the command that is pytest there."""
    track = here.tracks[cell.track]
    if track.group is None:
        return (_python_here(session, cell.track), "-m", "pytest")
    if of_amd(cell.hardware):
        # PyTorch's own index has a torch for ROCm, which uv picks by the driver; the GPU groups are CUDA's.
        with_rocm = {} if _SAID & set(os.environ) else {"UV_TORCH_BACKEND": "auto"}
        session.install(*repository().words(), *pins(session, track.group), env=with_rocm)
        return ("pytest",)
    install(session, group=track.group)
    if cell.hardware != "cpu" and track.gpu_group:
        if track.build_group:
            session.install(*pins(session, track.build_group))  # first: the others are compiled with it
        session.install("--no-build-isolation", *pins(session, track.gpu_group))
    return ("pytest",)


def _python_here(session: nox.Session, track: str) -> str:
    """The first Python on PATH, nox's own left out, that has the harness; ends the session without one."""
    folders = [
        one for one in os.environ.get("PATH", "").split(os.pathsep) if one != str(Path(sys.prefix, "bin"))
    ]
    for folder, name in itertools.product(folders, ("python", "python3")):
        python = shutil.which(name, path=folder)
        asked = [python or "", "-c", "import harness.plugin, pytest"]
        if python and not subprocess.run(asked, capture_output=True, check=False).returncode:
            return python
    return session.error(
        f"track {track} makes no environment (group = false), and no Python on PATH has the harness: "
        f"pip install {installed_as()!r} where the trainer is installed"
    )


def install(session: nox.Session, *words: str, group: str) -> None:
    """Install ``words`` and a dependency group; where no GPU can be, torch without CUDA.

    PyPI's torch for Linux brings CUDA, some GB of it. PyTorch's own index has one without: uv knows it, and
    falls back on no other where it gives nothing. So it is asked first, and what is installed then is kept.
    """
    pinned = pins(session, group)
    torch = [pin for pin in pinned if pin.startswith("torch==")]
    free = sys.platform == "linux" and not driver_here() and _SAID.isdisjoint(os.environ)
    if torch and free and session.venv_backend == "uv":
        env = {"UV_TORCH_BACKEND": "cpu"}
        plan = [UV, "pip", "install", "--dry-run", "--python", session.virtualenv.location, *torch]
        asking = {**os.environ, **env, "UV_HTTP_RETRIES": "1"}
        if subprocess.run(plan, env=asking, capture_output=True, check=False).returncode:
            session.warn(
                f"PyTorch's index gives no {torch[0]} without CUDA (UV_TORCH_BACKEND=cpu: uv says why); it "
                "comes from the usual one, and PyPI's is some GB; PIP_FIND_LINKS names a folder of wheels"
            )
        else:
            session.install(*torch, env=env)
    held = any(pin.startswith(DISTRIBUTION) for pin in pinned)  # the group has a version of its own
    session.install(*(words or repository().words()[: -1 if held else None]), *pinned)


def pins(session: nox.Session, group: str) -> list[str]:
    """The requirements of a dependency group; an undefined one ends the session with a sentence."""
    try:
        return list(nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), group))
    except (FileNotFoundError, LookupError, ValueError, TypeError) as error:
        said = "there is no such table" if str(error) == "'dependency-groups'" else error
        defined = ", ".join(repository().groups) or "none"
        return session.error(
            f"pyproject.toml: [dependency-groups]: {group}: {said}; defined here: {defined}. Define "
            "it, or name another in [tool.harness.tracks], or none (group = false) where all is installed"
        )


def listed(words: list[str]) -> bool:
    """Whether nox lists everything, for a person: then a kind of GPU that is not here is one line."""
    listing = {"-l", "--list", "--list-sessions"}.intersection(words)
    return bool(listing) and not any(word.startswith(_CHOOSES) for word in words)


def is_here(hardware: str) -> bool:
    """Whether this machine has it."""
    return hardware == "cpu" or (driver_here(hardware) and bool(devices_of(hardware)))


def one_line(here: Repository, hardware: str, names: list[str]) -> None:
    """Of hardware that is not on this machine: what there is, in one line."""
    some = " or ".join(here.hardware[hardware].device_names)

    def not_here(session: nox.Session) -> None:
        session.error("nox lists, and runs nothing")

    not_here.__doc__ = (
        f"{len(names)} cases × {', '.join(here.tracks)}: no {some} is here; -t {hardware} -l lists them."
    )
    nox.session(name=f"case({hardware})", tags=[hardware], venv_backend="none", default=False)(not_here)
