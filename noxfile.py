"""Every cell (case × track × hardware) in an environment of its own, and the project's own checks.

    nox                                    dev on cpu: every case
    nox -s "case(h100)"                    everything for h100
    nox -s "case(cpu)(dev,<case>)"         one cell
    nox -t h100 | -t dev | -t <case>       by one of the three; also -k, and -l --json for CI
    nox -s tests | faults | alarms | bench | pages | docs

What stands after ``--`` goes to pytest, or to the command behind the session.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent))  # nothing is installed yet

from harness.errors import HardwareMissing
from harness.machine.hardware import driver_here, require
from harness.matrix import HARDWARE, TRACKS, cases_by_name

nox.needs_version = ">=2026.10.20"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"  # installing the same pins again costs nothing, and old ones give way
nox.options.tags = ["default"]  # what runs when nothing is selected

CASES = sorted(cases_by_name(Path("test_cases")))
DEFAULT = ("cpu", "dev")
PYTHON = None if sys.version_info < (3, 14) else "3.13"  # the newest that the pins have wheels for
#: session: (its text in the list, its dependency groups, its commands; what follows -- goes to the last).
#: With several groups it is run in each, as ``alarms(lts)``.
OTHERS = {
    "tests": (
        "ruff, mypy, and the harness's own tests",
        ["tests"],
        ["ruff check", "ruff format --check", "mypy", "pytest -n auto --dist worksteal"],
    ),
    "faults": (
        "plant every known resume bug, and see it caught and named",
        ["dev"],
        ["python -m tests.faults"],
    ),
    "alarms": ("run clean verdicts, and count false alarms", list(TRACKS), ["python -m tests.alarms"]),
    "bench": ("measure every speed claim against its rival", ["bench"], ["python -m benchmarks"]),
    "pages": ("make screenshots of the reports in a real browser", ["pages"], ["python -m tests.pages"]),
    "docs": ("build the site; warnings are errors", ["docs"], ["mkdocs build --strict"]),
}

if "PIP_FIND_LINKS" in os.environ:  # wheels on this machine, which uv does not look for by itself
    os.environ.setdefault("UV_FIND_LINKS", ",".join(os.environ["PIP_FIND_LINKS"].split()))


def cells(hardware: str) -> list[object]:
    """The parameters of ``case(<hardware>)``: every track, every case."""
    return [
        nox.param(
            track,
            case,
            id=f"{track},{case}",
            tags=[track, case, *(["default"] if (hardware, track) == DEFAULT else [])],
        )
        for track in TRACKS
        for case in CASES
    ]


def pins(group: str) -> list[str]:
    """The requirements of a dependency group."""
    return list(nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), group))


for hardware in HARDWARE:
    # Without a driver nothing can run, and no environment need be made in order to say so.
    possible = hardware == "cpu" or driver_here()

    @nox.session(
        name=f"case({hardware})",
        tags=[hardware],
        python=PYTHON,
        allow_parallel=True,
        venv_backend=None if possible else "none",
    )
    @nox.parametrize("track,case", cells(hardware))
    def run_cell(session: nox.Session, track: str, case: str, hardware: str = hardware) -> None:
        """Train, save, stop, resume, compare; say what was lost."""
        try:
            require(hardware, 1)
        except HardwareMissing as missing:
            (session.error if os.environ.get("CI") else session.skip)(str(missing))
        session.install("--editable=.", *pins(track))
        if hardware != "cpu":
            session.install(*pins("megatron"))  # first: Transformer Engine is compiled with it
            session.install("--no-build-isolation", *pins(f"{track}-gpu"))
        # A cell judges the trainer, not the warnings of its libraries.
        cell = f"--cell={hardware}/{track}/{case}"
        session.run("pytest", "test_cases", cell, "-W", "default", *session.posargs)


for name, (text, groups, commands) in OTHERS.items():

    def run(session: nox.Session, group: str = groups[0], commands: list[str] = commands) -> None:
        """Install the group and run the commands; the list of sessions shows the table's text instead."""
        session.install("--editable=.", *pins(group))
        for command in commands:
            last = session.posargs if command is commands[-1] else []
            session.run(*command.split(), *last)

    run.__doc__ = text
    several = nox.parametrize("group", [nox.param(group, id=group) for group in groups])
    nox.session(name=name, python=PYTHON)(several(run) if len(groups) > 1 else run)
