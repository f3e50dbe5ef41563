"""``case(<hardware>)`` for a noxfile: every cell of a repository in an environment of its own.

    # /// script
    # dependencies = ["nox[uv]>=2026.10.20", "resume-harness"]
    # ///
    from harness.nox import sessions
    sessions()

is a whole noxfile. ``cross(<hardware>)`` resumes under one track or layout what another has saved. Standard
library and nox only: in a checkout nothing else is installed yet. Tracks and hardware are the repository's
(:mod:`harness.repository`).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nox
from nox.command import CommandFailed

from harness.environment import (
    PYTHON,
    cross,
    install,
    make,
    one_line,
    pins,
    require_here,
    session_for,
    settings,
    tell_python,
)  # fmt: skip
from harness.errors import EXIT_NOTHING, EXIT_USAGE, HardwareMissing, HarnessError
from harness.matrix import Cell, cases_by_name
from harness.repository import Repository, repository
from harness.verdict.sweep import Sweep, leave, was_skipped

__all__ = ["PYTHON", "install", "pins", "sessions"]

#: The repository's own settings of pytest, and its conftest.py, are for its tests: a cell's environment has
#: nothing of what they may ask for. A cell judges the trainer, not the warnings of its libraries.
_APART = ("-o", "addopts=", "-W", "default")


def sessions(cases: str = "test_cases") -> None:
    """Register a session ``case(<hardware>)`` for each kind of hardware; what follows ``--`` goes to pytest.

    Bare ``nox`` runs the first track on cpu (``dev`` where there is one), unless the noxfile selects
    something before (``nox.options.sessions``, ``tags`` or ``keywords``). Hardware that is not here is
    skipped, with ``CI`` set it fails; where no cell was run at all, nox ends with exit status 3.

    Args:
        cases: the folder of cases.
    """
    settings()
    try:
        here, names = repository(), sorted(cases_by_name(Path(cases)))
    except HarnessError as error:  # while nox reads the noxfile, an exception would be a traceback
        print(f"harness: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    sweep = Sweep.of_this_nox()
    for hardware in here.hardware:
        if not one_line(here, hardware, names):
            _session(here, hardware, cases, names, sweep)
        cross(here, hardware, cases)


def _session(here: Repository, hardware: str, cases: str, names: list[str], sweep: Sweep) -> None:
    by_default = "dev" if "dev" in here.tracks else next(iter(here.tracks))

    def run_cell(session: nox.Session, track: str = "", case: str = "") -> None:
        """Train, save, stop, resume, compare; say what was lost."""
        if not case:
            session.error(f"{cases} holds no case, expected <family>/<case>/model_config.yaml")
        sweep.tried()
        cell, began = Cell(hardware, track, case), time.time()
        try:
            require_here(hardware)
        except HardwareMissing as missing:
            leave(cell, "refused" if os.environ.get("CI") else "skipped", str(missing))
            if os.environ.get("CI"):
                session.error(str(missing))
            sweep.skipped()
            session.skip(str(missing))
        pytest = make(session, here, cell)
        tell_python(session, pytest)
        words = (cases, f"--cell={cell.id}", f"--confcutdir={cases}", *_APART, *session.posargs)
        try:
            session.run(*pytest, *words, external=len(pytest) > 1)
        except CommandFailed as failed:
            if failed.return_code == EXIT_NOTHING and was_skipped(cell, began):
                sweep.skipped()
                session.skip(f"{cell.id} needs what is not here")
            raise

    some = [
        nox.param(track, case, id=f"{track},{case}", tags=[track, case, *(["default"] if default else [])])
        for track in here.tracks
        for default in [(hardware, track) == ("cpu", by_default)]
        for case in names
    ]
    name, tags = f"case({hardware})", [hardware]
    session = session_for(here, hardware, name=name, tags=tags, allow_parallel=True)
    session(nox.parametrize("track,case", some)(run_cell) if some else run_cell)
