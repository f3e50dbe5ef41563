"""A sweep of 24 cells of different sizes over one machine: makespan against work divided by the slots.

    python -m benchmarks.bench_sweep [--repeats 3]

The cells are processes that sleep, so that what is measured is the leases. All stand in line at once, as with
``nox -j 24``; the clock starts when the last of them is up. That no two had the same slot at the same time is
checked from what they report.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.rows import row, show

CELLS = 24
IDEAL = 20.0  # s; work divided by slots
GOAL = "<= 1.15"
_GPUS = 8
_SMI = """#!/bin/sh
for i in 0 1 2 3 4 5 6 7; do echo "$i, GPU-$i, 81559, Disabled, NVIDIA H100 80GB HBM3"; done
"""


def mix(sizes: tuple[int, ...], slots: int, seed: int) -> list[tuple[int, float]]:
    """(slots, seconds) of each cell, adding up to :data:`IDEAL` seconds of all slots."""
    chance = random.Random(seed)
    cells = [(chance.choice(sizes), chance.uniform(0.5, 2)) for _ in range(CELLS)]
    scale = IDEAL * slots / sum(size * seconds for size, seconds in cells)
    return [(size, seconds * scale) for size, seconds in cells]


def sweep(hardware: str, cells: list[tuple[int, float]], folder: Path) -> float:
    """Run the cells side by side; returns the seconds until the last one is done.

    Raises:
        SystemExit: two had the same slot at the same time.
    """
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "HARNESS_LEASES": str(folder / hardware)}
    env.pop("CUDA_VISIBLE_DEVICES", None)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", __spec__.name, "--cell", hardware, str(size), str(seconds)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for size, seconds in cells
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    began = time.monotonic()
    for process in running:
        assert process.stdin is not None
        process.stdin.close()
    said = [json.loads(process.stdout.read()) for process in running if process.stdout is not None]
    makespan = time.monotonic() - began
    for process in running:
        process.wait()
    uses = sorted((slot, *cell["time"]) for cell in said for slot in cell["slots"])
    for (slot, _, end), (other, start, _) in itertools.pairwise(uses):
        if slot == other and start < end:
            raise SystemExit(f"{slot} was leased twice at the same time")
    return makespan


def one_cell(hardware: str, size: int, seconds: float) -> None:
    """In a process of its own: lease, work, report."""
    import filelock  # noqa: F401 - up is who has nothing more to load

    from harness.machine.hardware import detect
    from harness.machine.leases import lease

    detect()  # asks nvidia-smi, as whoever has found its cell fit has done by then
    print("up", flush=True)
    sys.stdin.read()
    with lease(hardware, size) as env:
        start = time.monotonic()
        time.sleep(seconds)
        slots = [slot for slot in env["CUDA_VISIBLE_DEVICES"].split(",") if slot]
        end = time.monotonic()
    print(json.dumps({"slots": slots, "time": [start, end]}), flush=True)


def rows(repeats: int = 3) -> Iterator[dict[str, Any]]:
    """On the cores of this machine, and on eight GPUs that only ``nvidia-smi`` tells of."""
    from harness.machine.hardware import cores

    for hardware, slots, sizes in (("cpu", cores(), (1, 2)), ("h100", _GPUS, (1, 2, 4, 8))):
        makespans = []
        for repeat in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                smi = Path(folder, "nvidia-smi")
                smi.write_text(_SMI)
                smi.chmod(0o755)
                makespans.append(sweep(hardware, mix(sizes, slots, repeat), Path(folder)))
        what = f"sweep of {CELLS} cells on {slots} {'cores' if hardware == 'cpu' else 'GPUs'}, s"
        yield row(what, makespans, [IDEAL] * repeats, GOAL)


def main() -> None:
    """Print the rows."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--repeats", type=int, default=3)
    words.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.cell:
        hardware, size, seconds = given.cell
        one_cell(hardware, int(size), float(seconds))
    else:
        show(rows(given.repeats))


if __name__ == "__main__":
    main()
