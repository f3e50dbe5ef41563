"""What everything around a cell costs: listing, re-entering a warm environment, asking for help.

python -m benchmarks.bench_listing [--repeats 7]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import row, show
from harness.matrix import CASE_FILE, HARDWARE, TRACKS, cases_by_name

ROOT = Path(__file__).parents[1]
CELLS = 2000
WARM_LIMIT = 1.5  # s
HELP_LIMIT = 0.15  # s
_PLAIN = f"""
import nox

for number in range({CELLS}):
    @nox.session(name=f"session_with_a_name_of_the_usual_length_{{number}}", tags=["a", "b", "c"])
    def run(session):
        "One of many."
"""


def seconds(words: Sequence[str | Path], folder: Path) -> float:
    """How long a command takes, from start to exit.

    Raises:
        SystemExit: it failed; with what it said.
    """
    began = time.perf_counter()
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(
            f"{' '.join(map(str, words))}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return took


def generated(folder: Path) -> Path:
    """Our noxfile over so many cases that there are :data:`CELLS` cells."""
    ours = folder / "ours"
    ours.mkdir()
    for name in ("noxfile.py", "pyproject.toml"):
        shutil.copy(ROOT / name, ours)
    shutil.copytree(ROOT / "harness", ours / "harness")
    for number in range(CELLS // len(HARDWARE) // len(TRACKS)):
        case = ours / "test_cases" / "gpt" / f"gpt3_mcore_tp4_pp2_resume_torch_dist_{number}"
        case.mkdir(parents=True)
        (case / CASE_FILE).touch()
    return ours


def listing(repeats: int) -> dict[str, Any]:
    """``nox -l`` against nox's own time for a plain noxfile of as many sessions."""
    nox = [sys.executable, "-m", "nox", "-l"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours, plain = generated(folder), folder / "plain"
        plain.mkdir()
        (plain / "noxfile.py").write_text(_PLAIN)
        for where in (ours, plain):  # once unmeasured, so that both find their bytecode
            seconds(nox, where)
        times = [(seconds(nox, ours), seconds(nox, plain)) for _ in range(repeats)]
    what = f"listing {CELLS} cells against {CELLS} plain sessions, s"
    return row(what, [a for a, _ in times], [b for _, b in times], "<= 1.5")


def warm(repeats: int) -> dict[str, Any]:
    """``nox -R`` of a cell whose environment is there, up to where the cell would start."""
    cell = f"case(cpu)(dev,{min(cases_by_name(ROOT / 'test_cases'))})"
    nox = [sys.executable, "-m", "nox", "-s", cell]
    seconds([*nox, "--install-only"], ROOT)
    again = [*nox, "-R", "--", "--collect-only", "--quiet"]
    seconds(again, ROOT)
    times = [seconds(again, ROOT) for _ in range(repeats)]
    return row(f"re-entering a warm cell against {WARM_LIMIT} s", times, [WARM_LIMIT] * repeats, "<= 1")


def asking(repeats: int) -> dict[str, Any]:
    """``harness --help``."""
    words = [sys.executable, "-m", "harness", "--help"]
    seconds(words, ROOT)
    times = [seconds(words, ROOT) for _ in range(repeats)]
    return row(f"harness --help against {HELP_LIMIT} s", times, [HELP_LIMIT] * repeats, "<= 1")


def rows(repeats: int = 7) -> Iterator[dict[str, Any]]:
    """All three."""
    yield listing(repeats)
    yield warm(repeats)
    yield asking(repeats)


def main() -> None:
    """Print the rows."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--repeats", type=int, default=7)
    show(rows(words.parse_args().repeats))


if __name__ == "__main__":
    main()
