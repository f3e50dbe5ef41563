"""A sweep of 300 cells over a real Slurm of three nodes, and one of 30: submitted, run, collected.

    python -m benchmarks.bench_cluster [--cells 30 300]

Measured are the makespan against what the cells themselves took divided by the slots, and what the process on
the head needs: its peak memory, and how often it calls Slurm's programs. A cell is a script that sleeps
between its steps, some ten seconds with all its processes. Work is from the first line of its task until the
last file of its results, so that a machine that is busy with something else makes the cells longer, and not
the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rows import row, show
from tests.slurm.cluster import Cluster, missing
from tests.slurm.sweeps import EVERYWHERE, ROOT, Sweep, case, golden, record, repository

CELLS = (30, 300)
SLOTS = 6
GOAL, SAME = "<= 1.15", "<= 1.1"
_PAUSE = 0.8  # s a step, of ten
_PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct", "srun", "salloc")


@dataclass(frozen=True)
class Seen:
    """A sweep that has ended.

    Args:
        makespan: seconds from its command to its exit.
        ideal: what its cells took, divided by the slots.
        memory: the peak of the process on the head, MiB.
        calls: of Slurm's programs by it, a minute.
        count: of these calls in all.
    """

    makespan: float
    ideal: float
    memory: float
    calls: float
    count: int


def sweep(cluster: Cluster, root: Path, recorded: Path, cells: int) -> Seen:
    """Run so many; all are green but the last, so that what their jobs said is kept.

    Raises:
        SystemExit: they ended otherwise.
    """
    repository(root)
    for number in range(cells):
        case(root, f"c{number:03}", pause=_PAUSE, bad=EVERYWHERE if number == cells - 1 else ())
    golden(root, recorded)
    calls = root / "calls"
    (root / "bin").mkdir()
    for name in _PROGRAMS:
        if real := shutil.which(name):
            program = root / "bin" / name
            program.write_text(f'#!/bin/sh\necho {name} >> {calls}\nexec {real} "$@"\n')
            program.chmod(0o755)
    path = os.pathsep.join([str(root / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    began = time.monotonic()
    with Sweep(cluster, root, ["--at-most", str(SLOTS)], env={"PATH": path}) as run:
        assert run.process.stdout is not None
        said = run.process.stdout.read()
        _, status, usage = os.wait4(run.process.pid, 0)
        run.process.returncode = os.waitstatus_to_exitcode(status)
    makespan = time.monotonic() - began
    if f"{cells} cells: {cells - 1} passed, 1 failed" not in said:
        raise SystemExit(f"expected {cells - 1} passed, 1 failed; found: {said[-2000:]}")
    (sheet,) = root.glob("results/.sweep/*/0.json")
    work = 0.0
    for task, one in enumerate(json.loads(sheet.read_text())["cells"]):
        started = json.loads(sheet.with_name(f"0-{task}.json").read_text())["started"]
        folder = Path(one["folder"])  # its report and what is removed come after the verdict
        work += max(path.stat().st_mtime for path in (folder, *folder.iterdir())) - started
    count = len(calls.read_text().splitlines())
    return Seen(makespan, work / SLOTS, usage.ru_maxrss / 1024, count * 60 / makespan, count)


def rows(repeats: int = 1, cells: Sequence[int] = CELLS) -> Iterator[dict[str, Any]]:
    """Of both sweeps, one after the other on one cluster; none where no Slurm can be made."""
    if why := missing():
        print(f"  cluster: not measured: {why}", file=sys.stderr)
        return
    few, many = cells
    seen: dict[int, list[Seen]] = {few: [], many: []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            recorded = record(folder / "golden")
            with Cluster(folder / "slurm", shared=[folder, ROOT, Path(sys.prefix)]) as cluster:
                for number in (few, many):
                    found = sweep(cluster, folder / str(number), recorded, number)
                    print(f"  {number} cells: {found}", file=sys.stderr)
                    seen[number].append(found)
    ours, theirs = seen[many], seen[few]
    what = f"harness sweep of {many} cells on a Slurm of 3 nodes, {SLOTS} slots"
    yield row(f"{what}, against their work by the slots (s)", [one.makespan for one in ours],
              [one.ideal for one in ours], GOAL)  # fmt: skip
    yield row(f"{what}, peak memory of its process, against {few} cells (MiB)", [one.memory for one in ours],
              [one.memory for one in theirs], SAME)  # fmt: skip
    yield row(f"{what}, calls of Slurm a minute, against {few} cells", [one.calls for one in ours],
              [one.calls for one in theirs], SAME)  # fmt: skip


def main() -> None:
    """Print the rows."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--repeats", type=int, default=1)
    words.add_argument("--cells", nargs=2, type=int, default=CELLS, metavar=("FEW", "MANY"))
    given = words.parse_args()
    show(rows(given.repeats, given.cells))


if __name__ == "__main__":
    main()
