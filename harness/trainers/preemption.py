"""End a command as a pre-emption would, once its checkpoint of an iteration is there.

``python -m harness.trainers.preemption FOLDER K -- COMMAND…`` stands between the harness and a
script that cannot stop by itself. The script gets SIGTERM, and SIGKILL when it does not mind.
Standard library only: it is started for every such phase.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from harness.trainers import anybodys

_TICK = 0.05  # s
_SETTLED = 0.5  # s; for so long no file of a checkpoint must have changed, to be whole
_GRACE = 10.0  # s from SIGTERM to SIGKILL
_PR_SET_PDEATHSIG = 1


def run(folder: Path, k: int, command: list[str]) -> int:
    """Start ``command``, and end it after iteration ``k``.

    Returns:
        0 when it was ended, or ended by itself with 0; else its own status.
    """
    process = subprocess.Popen(command, start_new_session=True, preexec_fn=_die_with_parent)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _end(process))
    try:
        last, since = anybodys.state(folder, k), time.monotonic()
        while process.poll() is None:
            time.sleep(_TICK)
            now = anybodys.state(folder, k)
            if not now or now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since >= _SETTLED:
                print(f"harness: the checkpoint of iteration {k} is there; ending the command",
                      flush=True)  # fmt: skip
                _end(process)
                return 0
        status = process.returncode
        return status if status >= 0 else 128 - status
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> int:
    """``FOLDER K -- COMMAND…``."""
    folder, k, _, *command = sys.argv[1:]
    return run(Path(folder), int(k), command)


if __name__ == "__main__":
    sys.exit(main())
