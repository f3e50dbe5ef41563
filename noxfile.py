"""Every cell (case × track × hardware) in an environment of its own, and the project's own checks.

    nox                                    dev on cpu: every case
    nox -s "case(h100)"                    everything for h100
    nox -s "case(cpu)(dev,<case>)"         one cell
    nox -t h100 | -t dev | -t <case>       by one of the three; also -k, and -l --json for CI
    nox -s tests | minimums | faults | alarms | circumstances | bench | pages | docs

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
LOWEST_PYTHON = "3.10"  # pyproject.toml's requires-python

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


@nox.session(python=PYTHON)
def tests(session: nox.Session) -> None:
    """Run ruff, mypy, import-linter, and the harness's own tests."""
    session.install("--editable=.", *pins("tests"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports", "--no-logo")
    # Coverage has a floor, which some of the tests do not reach.
    coverage = [] if session.posargs else ["--cov=harness"]
    session.run("pytest", "-n", "auto", "--dist", "worksteal", *coverage, *session.posargs)


@nox.session(python=LOWEST_PYTHON, reuse_venv=False)
def minimums(session: nox.Session) -> None:
    """Run the tests that need no torch, with the lowest versions that pyproject.toml admits."""
    if session.venv_backend != "uv":
        session.error('minimums needs uv, for its --resolution=lowest-direct: pip install "nox[uv]"')
    session.install("--editable=.", *pins("minimums"), "--resolution=lowest-direct")
    chosen = ["-m", "not torch and not tools"]
    session.run("pytest", "-n", "auto", "--dist", "worksteal", *chosen, *session.posargs)


@nox.session(python=PYTHON)
def faults(session: nox.Session) -> None:
    """Plant every known resume bug, and see it caught and named."""
    session.install("--editable=.", *pins("dev"))
    session.run("python", "-m", "tests.faults", *session.posargs)


@nox.session(python=PYTHON)
@nox.parametrize("track", [nox.param(track, id=track) for track in TRACKS])
def alarms(session: nox.Session, track: str) -> None:
    """Run clean verdicts, and count false alarms."""
    session.install("--editable=.", *pins(track))
    session.run("python", "-m", "tests.alarms", *session.posargs)


@nox.session(python=PYTHON)
def circumstances(session: nox.Session) -> None:
    """Run sound scripts that save the time, the host, the job: none may fail; ``--faults``: each must."""
    session.install("--editable=.", *pins("dev"))
    session.run("python", "-m", "tests.circumstances", *session.posargs)


@nox.session(python=PYTHON)
def bench(session: nox.Session) -> None:
    """Measure every speed claim against its rival."""
    session.install("--editable=.", *pins("bench"))
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=PYTHON)
def pages(session: nox.Session) -> None:
    """Make screenshots of the reports in a real browser."""
    session.install("--editable=.", *pins("pages"))
    session.run("python", "-m", "tests.pages", *session.posargs)


@nox.session(python=PYTHON)
def docs(session: nox.Session) -> None:
    """Build the site; warnings are errors."""
    session.install("--editable=.", *pins("docs"))
    session.run("mkdocs", "build", "--strict", *session.posargs)
