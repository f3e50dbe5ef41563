"""What no verdict of a case on cpu can do without, as one process: ``python -m benchmarks.limit CASE``.

One import of the trainer, all N iterations in one go at the layout's full number of ranks, two saves, one
load. Nothing is compared, read or written beside. The load is a start at N, which saves there as it ends; so
the first start saves once.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

from harness.cases import find_case
from harness.launch.launcher import Launcher
from harness.trainers.base import Phase
from harness.trainers.native.adapter import NativeTrainer

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Train, save, load, save."""
    case = find_case(sys.argv[1], ROOT / "test_cases")
    trainer, n = NativeTrainer(case, "cpu"), case.train_iters("cpu")
    with tempfile.TemporaryDirectory() as scratch, Launcher() as launcher:
        save = Path(scratch) / "checkpoints"
        for name, load, start in (("continuous", None, 0), ("probe", save, n)):
            folder = Path(scratch) / name
            folder.mkdir()
            launch = trainer.launch(Phase(name, folder, save, load, start, n, n, n))  # type: ignore[arg-type]
            launch = dataclasses.replace(launch, argv=(*launch.argv, "--save-interval", str(n)))
            launcher.run(launch, phase=name, folder=folder)


if __name__ == "__main__":
    main()
