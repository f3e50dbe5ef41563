"""Every cell (case × track × hardware) in an environment of its own, and the project's own checks.

    nox                                    dev on cpu: every case
    nox -s "case(h100)"                    everything for h100
    nox -s "case(cpu)(dev,<case>)"         one cell
    nox -t h100 | -t dev | -t <case>       by one of the three; also -k, and -l --json for CI
    nox -s "cross(cpu)"                    saved under one track or layout, resumed under another
    nox -s tests | minimums | frameworks | faults | alarms | circumstances | bench | pages | docs
    nox -s slurm                           a real Slurm of three nodes; as root, with Debian's packages
    nox -s megatron | museum               other people's software, which is fetched or named

What stands after ``--`` goes to pytest, or to the command behind the session. Cells are ``harness/nox.py``'s.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent))  # nothing is installed yet

from harness.matrix import TRACKS
from harness.nox import PYTHON, install, pins, sessions

nox.needs_version = ">=2026.10.20"

sessions()


@nox.session(python=PYTHON)
def tests(session: nox.Session) -> None:
    """Run ruff, mypy, import-linter, and the harness's own tests."""
    install(session, group="tests")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports", "--no-logo")
    session.run("pytest", "-n", "auto", "--dist", "worksteal", *session.posargs)


@nox.session(python="3.10", reuse_venv=False)  # pyproject.toml's requires-python
def minimums(session: nox.Session) -> None:
    """Run the tests that need no torch, with the lowest versions that pyproject.toml admits."""
    if session.venv_backend != "uv":
        session.error('minimums needs uv, for its --resolution=lowest-direct: pip install "nox[uv]"')
    session.install("--editable=.", *pins(session, "minimums"), "--resolution=lowest-direct")
    session.run("pytest", "-nauto", "--dist", "worksteal", "-m", "not torch and not tools", *session.posargs)


@nox.session(python=PYTHON)
@nox.parametrize("track", [nox.param(track, id=track) for track in TRACKS])
def alarms(session: nox.Session, track: str) -> None:
    """Run clean verdicts, and count false alarms."""
    install(session, group=track)
    session.run("python", "-m", "tests.alarms", *session.posargs)


@nox.session(python=PYTHON)
def megatron(session: nox.Session) -> None:
    """Run a checkout of Megatron-LM on CPUs: small cases are recorded, then green; or ``--faults``."""
    if not os.environ.get("MEGATRON_LM_PATH"):
        session.skip("MEGATRON_LM_PATH names no checkout of NVIDIA/Megatron-LM")
    install(session, group="megatron-cpu")
    module = "tests.megatron_faults" if "--faults" in session.posargs else "tests.megatron"
    session.run("python", "-m", module, *(word for word in session.posargs if word != "--faults"))


def _session(name: str, group: str, command: str, about: str) -> None:
    def run(session: nox.Session) -> None:
        install(session, group=group)
        session.run(*command.split(), *session.posargs)

    run.__doc__ = about
    nox.session(run, name=name, python=PYTHON)


for row in (
    ("faults", "dev", "python -m tests.faults", "Plant every known resume bug, and see it caught and named."),
    ("circumstances", "dev", "python -m tests.circumstances",
     "Run sound scripts that save the time, the host, the job: none may fail; ``--faults``: each must."),
    ("slurm", "slurm", "pytest -n 3 --dist worksteal tests/slurm", "Run what needs a cluster on a Slurm."),
    ("frameworks", "frameworks", "python -m tests.frameworks", "Run the newest releases of five frameworks."),
    ("museum", "museum", "python -m tests.museum", "Run real releases with real bugs, and sound ones."),
    ("bench", "bench", "python -m benchmarks", "Measure every speed claim against its rival."),
    ("pages", "pages", "python -m tests.pages", "Make screenshots of the reports in a real browser."),
    ("docs", "docs", "mkdocs build --strict", "Build the site; warnings are errors."),
):  # fmt: skip
    _session(*row)
