"""The native trainer as torchrun starts it: ``train.py FOLDER ARGUMENTS…``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from harness.trainers.native.main import preload, run

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    preload()
    run(
        sys.argv[2:],
        int(os.environ["RANK"]),
        int(os.environ["WORLD_SIZE"]),
        str(folder),
        str(folder / f"rendezvous_{os.environ['TORCHELASTIC_RUN_ID']}"),
        lambda _: None,
    )
