"""Cases whose script is started where torch is imported already, so that a verdict takes a second."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WARM = Path(__file__).parent / "stand_ins" / "warm_python.py"
_STARTED = "[python, train.py"


@contextmanager
def warm_python(folder: Path) -> Iterator[Path]:
    """Where a process listens that has imported torch; it ends with the block."""
    door = folder / "door"
    with subprocess.Popen([sys.executable, str(WARM), "serve", str(door)], stdin=subprocess.PIPE) as server:
        assert server.stdin is not None
        try:
            while not door.exists():
                assert server.poll() is None
                time.sleep(0.05)
            yield door
        finally:
            server.stdin.close()


def started_warm(case: str, door: Path) -> str:
    """A case file whose ``train`` and ``resume`` begin with ``python train.py``, started there."""
    assert case.count(_STARTED) == 2
    return case.replace(_STARTED, f"[python, -S, {WARM}, {door}, train.py")
