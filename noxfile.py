"""Every cell (case × track × hardware) in an environment of its own, and the project's own checks.

    nox                                    dev on cpu: every case
    nox -s "case(h100)"                    everything for h100
    nox -s "case(cpu)(dev,<case>)"         one cell
    nox -t h100 | -t dev | -t <case>       by one of the three; also -k, and -l --json for CI
    nox -s tests | minimums | faults | alarms | circumstances | bench | pages | docs

What stands after ``--`` goes to pytest, or to the command behind the session. Cells whose hardware is not
here are skipped (with ``CI`` set: failed); where no cell was run at all, the exit status is 3.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nox
from nox.command import CommandFailed
from nox.virtualenv import UV

sys.path.insert(0, str(Path(__file__).parent))  # nothing is installed yet

from harness.errors import EXIT_NOTHING, HardwareMissing
from harness.machine.hardware import driver_here, require
from harness.matrix import HARDWARE, TRACKS, Cell, cases_by_name
from harness.verdict.sweep import Sweep, leave, was_skipped

nox.needs_version = ">=2026.10.20"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"  # installing the same pins again costs nothing, and old ones give way
nox.options.tags = ["default"]  # what runs when nothing is selected

CASES = sorted(cases_by_name(Path("test_cases")))
DEFAULT = ("cpu", "dev")
PYTHON = None if sys.version_info < (3, 14) else "3.13"  # the newest that the pins have wheels for
SWEEP = Sweep.of_this_nox()
LOWEST_PYTHON = "3.10"  # pyproject.toml's requires-python

if "PIP_FIND_LINKS" in os.environ:  # wheels on this machine, which uv does not look for by itself
    os.environ.setdefault("UV_FIND_LINKS", ",".join(os.environ["PIP_FIND_LINKS"].split()))

# Where packages come from: who has set one of these is not overruled.
SAID = {f"UV_{name}" for name in ("TORCH_BACKEND", "FIND_LINKS", "OFFLINE", "NO_INDEX", "INDEX")}
SAID |= {f"UV_{name}" for name in ("DEFAULT_INDEX", "INDEX_URL", "EXTRA_INDEX_URL")}


def every_cell(hardware: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The parameters of ``case(<hardware>)``: every track, every case; without a case none."""
    some = [
        nox.param(
            track,
            case,
            id=f"{track},{case}",
            tags=[track, case, *(["default"] if (hardware, track) == DEFAULT else [])],
        )
        for track in TRACKS
        for case in CASES
    ]
    return nox.parametrize("track,case", some) if some else lambda same: same


def pins(group: str) -> list[str]:
    """The requirements of a dependency group."""
    return list(nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), group))


def install(session: nox.Session, group: str) -> None:
    """Install the harness and a dependency group; where no GPU can be, torch without CUDA.

    PyPI's torch for Linux brings CUDA, some GB of it. PyTorch's own index has one without: uv knows it, and
    falls back on no other where it gives nothing. So it is asked first, and what is installed then is kept.
    """
    torch = [pin for pin in pins(group) if pin.startswith("torch==")]
    free = sys.platform == "linux" and not driver_here() and SAID.isdisjoint(os.environ)
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
    session.install("--editable=.", *pins(group))


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
    @every_cell(hardware)
    def run_cell(session: nox.Session, track: str = "", case: str = "", hardware: str = hardware) -> None:
        """Train, save, stop, resume, compare; say what was lost."""
        if not case:
            session.error("test_cases holds no case, expected <family>/<case>/model_config.yaml")
        SWEEP.tried()
        cell, began = Cell(hardware, track, case), time.time()
        try:
            require(hardware, 1)
        except HardwareMissing as missing:
            leave(cell, "refused" if os.environ.get("CI") else "skipped", str(missing))
            if os.environ.get("CI"):
                session.error(str(missing))
            SWEEP.skipped()
            session.skip(str(missing))
        try:
            install(session, track)
            if hardware != "cpu":
                session.install(*pins("megatron"))  # first: Transformer Engine is compiled with it
                session.install("--no-build-isolation", *pins(f"{track}-gpu"))
            # A cell judges the trainer, not the warnings of its libraries.
            session.run("pytest", "test_cases", f"--cell={cell.id}", "-W", "default", *session.posargs)
        except CommandFailed as failed:
            if failed.return_code == EXIT_NOTHING and was_skipped(cell, began):
                SWEEP.skipped()
                session.skip(f"{cell.id} needs what is not here")
            raise


@nox.session(python=PYTHON)
def tests(session: nox.Session) -> None:
    """Run ruff, mypy, import-linter, and the harness's own tests."""
    install(session, "tests")
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
    install(session, "dev")
    session.run("python", "-m", "tests.faults", *session.posargs)


@nox.session(python=PYTHON)
@nox.parametrize("track", [nox.param(track, id=track) for track in TRACKS])
def alarms(session: nox.Session, track: str) -> None:
    """Run clean verdicts, and count false alarms."""
    install(session, track)
    session.run("python", "-m", "tests.alarms", *session.posargs)


@nox.session(python=PYTHON)
def circumstances(session: nox.Session) -> None:
    """Run sound scripts that save the time, the host, the job: none may fail; ``--faults``: each must."""
    install(session, "dev")
    session.run("python", "-m", "tests.circumstances", *session.posargs)


@nox.session(python=PYTHON)
def bench(session: nox.Session) -> None:
    """Measure every speed claim against its rival."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=PYTHON)
def pages(session: nox.Session) -> None:
    """Make screenshots of the reports in a real browser."""
    install(session, "pages")
    session.run("python", "-m", "tests.pages", *session.posargs)


@nox.session(python=PYTHON)
def docs(session: nox.Session) -> None:
    """Build the site; warnings are errors."""
    install(session, "docs")
    session.run("mkdocs", "build", "--strict", *session.posargs)
