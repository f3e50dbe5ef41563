"""The environment of a cell's track, as nox makes it, or one line where there can be none."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nox
from nox.virtualenv import UV

from harness.machine.hardware import devices_of, driver_here, of_amd, require
from harness.matrix import GPU_PYTHON, Cell
from harness.repository import DISTRIBUTION, Repository, installed_as, repository
from harness.verdict.sweep import PYTHON_FILE

#: The pins have wheels for Pythons up to 3.13.
PYTHON = None if sys.version_info < (3, 14) else "3.13"
#: Where packages come from: who has set one of these is not overruled.
_SAID = {f"UV_{name}" for name in ("TORCH_BACKEND", "FIND_LINKS", "OFFLINE", "NO_INDEX", "INDEX")}
_SAID |= {f"UV_{name}" for name in ("DEFAULT_INDEX", "INDEX_URL", "EXTRA_INDEX_URL")}
#: Options of nox by which sessions are chosen, or a program is told of them: then all of them are there.
_CHOOSES = ("-s", "--session", "-e", "-t", "--tags", "-k", "--keywords", "-p", "--python", "--json", "-f")


def settings() -> None:
    """Of nox, where the noxfile has not said otherwise before."""
    options = nox.options
    if options.default_venv_backend in (None, "virtualenv"):
        options.default_venv_backend = "uv|virtualenv"
    if options.reuse_venv in (None, "no"):
        options.reuse_venv = "yes"  # installing the same pins again costs nothing, and old ones give way
    if not (options.sessions or options.tags or options.keywords):
        options.tags = ["default"]  # what runs when nothing is selected
    if "PIP_FIND_LINKS" in os.environ:  # wheels on this machine, which uv does not look for by itself
        os.environ.setdefault("UV_FIND_LINKS", ",".join(os.environ["PIP_FIND_LINKS"].split()))


def session_for(here: Repository, hardware: str, **how: Any) -> Callable[[Callable[..., None]], object]:
    """A session of nox on a kind of hardware; ``how``: as of ``nox.session``."""
    # Without the hardware nothing can run, and no environment need be made in order to say so.
    made = is_here(hardware) and any(track.group is not None for track in here.tracks.values())
    compiled = hardware != "cpu" and any(track.gpu_group for track in here.tracks.values())
    python, backend = GPU_PYTHON if compiled and made else PYTHON, None if made else "none"
    return nox.session(python=python, venv_backend=backend, **how)


def cross(here: Repository, hardware: str, cases: str) -> None:
    """``cross(<hardware>)``, where that is here: what follows ``--`` goes to the command."""

    def run(session: nox.Session) -> None:
        """Save under one track or layout, resume under another."""
        own = "dev" if "dev" in here.tracks else next(iter(here.tracks))
        place, pythons = getattr(session.virtualenv, "location", ""), {}  # none with --no-venv
        for name in sorted(here.tracks, key=lambda name: name != own):
            at = f"{place}-{name}" if place and name != own and here.tracks[name].group is not None else ""
            if at and not Path(at, "bin", "python").exists():
                session.run("python", "-m", "venv", "--without-pip", at)
            pytest = make(session, here, Cell(hardware, name, "any"), at)
            made = str(Path(at or place, "bin", "python").absolute()) if place else "python"
            pythons[name] = pytest[0] if len(pytest) > 1 else made
        words = [f"--python={name}={python}" for name, python in pythons.items()]
        by = "track,layout" if len(pythons) > 1 else "layout"
        words += [f"--hardware={hardware}", f"--by={by}", f"--track={own}", f"--cases={cases}"]
        session.run(pythons[own], "-m", "harness", "cross", *words, *session.posargs, external=True)

    if is_here(hardware):
        session_for(here, hardware, name=f"cross({hardware})", tags=["cross"])(run)


def make(session: nox.Session, here: Repository, cell: Cell, at: str = "") -> tuple[str, ...]:
    """Make the environment of a cell's track; the command that is pytest there.

    Args:
        at: the folder of an environment that is there already; empty: the session's own.
    """
    track, to = here.tracks[cell.track], ("--python", at) if at else ()
    if track.group is None:
        return (_python_here(session, cell.track), "-m", "pytest")
    if of_amd(cell.hardware):
        # PyTorch's own index has a torch for ROCm, which uv picks by the driver; the GPU groups are CUDA's.
        with_rocm = {} if _SAID & set(os.environ) else {"UV_TORCH_BACKEND": "auto"}
        session.install(*to, *repository().words(), *pins(session, track.group), env=with_rocm)
        return ("pytest",)
    install(session, group=track.group, at=at, gpu=cell.hardware != "cpu")
    if cell.hardware != "cpu" and track.gpu_group:
        if track.build_group:
            session.install(*to, *pins(session, track.build_group))  # first: the others are compiled with it
        session.install(*to, "--no-build-isolation", *pins(session, track.gpu_group))
    return ("pytest",)


def tell_python(session: nox.Session, pytest: tuple[str, ...]) -> None:
    """Say which Python is that of an environment which has been made, to whoever asks by a file.

    Args:
        pytest: the command that is pytest there, as of make.
    """
    if wanted := os.environ.get(PYTHON_FILE):
        made = getattr(session.virtualenv, "location", "")
        python = pytest[0] if len(pytest) > 1 else str(Path(made, "bin", "python").absolute())
        Path(wanted).write_text(f"{python}\n", encoding="utf-8")


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


def install(session: nox.Session, *words: str, group: str, at: str = "", gpu: bool = False) -> None:
    """Install ``words`` and a dependency group; where no GPU can be, torch without CUDA. ``at``: as of make.

    PyPI's torch for Linux brings CUDA, some GB of it. PyTorch's own index has one without: uv knows it, and
    falls back on no other where it gives nothing. So it is asked first, and what is installed then is kept.
    """
    pinned = pins(session, group)
    torch = [pin for pin in pinned if pin.startswith("torch==")]
    to = ("--python", at) if at else ()
    free = sys.platform == "linux" and not (gpu or driver_here()) and _SAID.isdisjoint(os.environ)
    if torch and free and session.venv_backend == "uv":
        env = {"UV_TORCH_BACKEND": "cpu"}
        plan = [UV, "pip", "install", "--dry-run", "--python", at or session.virtualenv.location, *torch]
        asking = {**os.environ, **env, "UV_HTTP_RETRIES": "1"}
        if subprocess.run(plan, env=asking, capture_output=True, check=False).returncode:
            session.warn(
                f"PyTorch's index gives no {torch[0]} without CUDA (UV_TORCH_BACKEND=cpu: uv says why); it "
                "comes from the usual one, and PyPI's is some GB; PIP_FIND_LINKS names a folder of wheels"
            )
        else:
            session.install(*to, *torch, env=env)
    held = any(pin.startswith(DISTRIBUTION) for pin in pinned)  # the group has a version of its own
    session.install(*to, *(words or repository().words()[: -1 if held else None]), *pinned)


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


def _listed(words: list[str]) -> bool:
    """Whether nox lists everything, for a person."""
    listing = {"-l", "--list", "--list-sessions"}.intersection(words)
    return bool(listing) and not any(word.startswith(_CHOOSES) for word in words)


def only_made() -> bool:
    """Whether an environment is made for other machines: on a login node, which has none of the hardware."""
    return bool(os.environ.get(PYTHON_FILE))


def require_here(hardware: str) -> None:
    """Raise HardwareMissing where this machine has none, and is not only to make the environment."""
    if not only_made():
        require(hardware, 1)


def is_here(hardware: str) -> bool:
    """Whether this machine has it."""
    return hardware == "cpu" or only_made() or (driver_here(hardware) and bool(devices_of(hardware)))


def one_line(here: Repository, hardware: str, names: list[str]) -> bool:
    """Whether nox lists everything, for a person: then hardware that is not on this machine is one line."""
    if not _listed(sys.argv[1:]) or is_here(hardware):
        return False
    some = " or ".join(here.hardware[hardware].device_names)

    def not_here(session: nox.Session) -> None:
        session.error("nox lists, and runs nothing")

    not_here.__doc__ = (
        f"{len(names)} cases × {', '.join(here.tracks)}: no {some} is here; -t {hardware} -l lists them."
    )
    nox.session(name=f"case({hardware})", tags=[hardware], venv_backend="none", default=False)(not_here)
    return True
