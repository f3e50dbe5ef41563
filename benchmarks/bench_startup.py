"""How long eight ranks take until their first all-reduce is done: torchrun, and ours cold and warm.

python -m benchmarks.bench_startup [--repeats 3]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.rows import row, show
from harness.launch.launcher import Launcher
from harness.trainers.base import Launch

ROOT = Path(__file__).parents[1]
RANKS = 8


def first_all_reduce(folder: Path, began: float) -> float:
    """Seconds from ``began`` until the last rank had its result; the clock is the machine's."""
    return max(float(path.read_text()) for path in folder.glob("done_*")) - began


def theirs(folder: Path) -> float:
    """Start by torchrun."""
    words = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={RANKS}",
        str(ROOT / "benchmarks" / "startup_rank.py"), str(folder),
    ]  # fmt: skip
    began = time.monotonic()
    subprocess.run(words, check=True, capture_output=True, cwd=ROOT)
    return first_all_reduce(folder, began)


def ours(folder: Path, launcher: Launcher) -> float:
    """Start by the harness; warm when ``launcher`` has run a phase before."""
    launch = Launch(kind="fork", world_size=RANKS, target="benchmarks.startup_rank:run", argv=(str(folder),))
    began = time.monotonic()
    launcher.run(launch, phase="continuous", folder=folder)
    return first_all_reduce(folder, began)


def rows(repeats: int = 3) -> Iterator[dict[str, Any]]:
    """Cold and warm, against torchrun."""
    cold, warm, torchrun = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for i in range(repeats):
            folders = [Path(scratch, f"{name}{i}") for name in ("torchrun", "cold", "warm")]
            for folder in folders:
                folder.mkdir()
            torchrun.append(theirs(folders[0]))
            with Launcher() as launcher:
                cold.append(ours(folders[1], launcher))
                warm.append(ours(folders[2], launcher))
    what = f"start-up: {RANKS} ranks to the first all-reduce, {{}}, against torchrun (s)"
    yield row(what.format("cold"), cold, torchrun, "<= 0.2")
    yield row(what.format("warm"), warm, torchrun, "<= 0.0667")


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    show(rows(parser.parse_args().repeats))


if __name__ == "__main__":
    main()
