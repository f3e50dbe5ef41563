"""One rank in this very process: ``python -m tests.native.processor_rank FOLDER ARGUMENT …``.

An emulator of another processor is left by every program that is started below it, so nothing is.
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness.trainers.native.main import preload, run

if __name__ == "__main__":
    preload()
    run(sys.argv[2:], 0, 1, sys.argv[1], str(Path(sys.argv[1], "rendezvous")), lambda _: None)
