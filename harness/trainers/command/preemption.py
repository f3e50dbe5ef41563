"""End a command as a pre-emption would, once its checkpoint of an iteration is there.

``FOLDER K OUTPUT -- COMMAND…`` stands between the harness and a script that cannot stop by itself.
The script gets SIGTERM, and SIGKILL when it does not mind. Standard library only: it is started for
every such phase.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from harness.trainers.command import checkpoint_names

_TICK = 0.05  # s
_SETTLED = 1.0  # s; for so long no file of a checkpoint must have changed, to be whole,
_PAUSES = 3  # and for so many times the longest pause that its writing has made
_GRACE = 10.0  # s from SIGTERM to SIGKILL
_NOT_FOUND = 127  # as a shell says it
_UNSEEN = 3


def run(folder: Path, k: int, output: Path, command: list[str]) -> int:
    """Start ``command``, and end it after iteration ``k``.

    Args:
        folder: where it saves.
        output: where it logs; what it was writing when it was ended is cut off.

    Returns:
        0 when its checkpoint of ``k`` is there, however it ended then; else its own status.
    """
    try:
        process = subprocess.Popen(command, start_new_session=True)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        return _NOT_FOUND
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _leave(process))
    try:
        if _wait(process, folder, k):
            print(f"\nharness: the checkpoint of iteration {k} is there; the command is ended", flush=True)
            _end(process)
            for path in output.rglob("*"):
                _cut(path)
            return 0
        status = process.returncode
        if status == 0 and not checkpoint_names.state(folder, k):
            print(
                f"harness: the command ended by itself, and no checkpoint of iteration {k} was seen in "
                f"{folder}: let it stop after ${{EXIT_ITERS}} iterations, or put the iteration into the "
                "names of its checkpoints, and keep that one",
                file=sys.stderr,
                flush=True,
            )
            return _UNSEEN
        return status if status >= 0 else 128 - status
    finally:
        _signal(process, signal.SIGKILL)


def _wait(process: subprocess.Popen[bytes], folder: Path, k: int) -> bool:
    """Wait for the checkpoint of ``k``; False when the command ends before."""
    last, since, longest = checkpoint_names.state(folder, k), time.monotonic(), 0.0
    while process.poll() is None:
        time.sleep(_TICK)
        now, moment = checkpoint_names.state(folder, k), time.monotonic()
        if not now or now != last:
            longest = max(longest, moment - since) if now and last else 0.0
            last, since = now, moment
        elif moment - since >= max(_SETTLED, _PAUSES * longest):
            return True
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    _signal(process, signal.SIGKILL)  # what it had started may still be there
    process.wait()


def _leave(process: subprocess.Popen[bytes]) -> None:
    _end(process)
    os._exit(1)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _cut(path: Path) -> None:
    """Cut a half-written last line or record off a log of metrics."""
    with contextlib.suppress(OSError):
        if path.name == "metrics.jsonl" or _is_read(path):
            _cut_line(path)
        elif "tfevents" in path.name:
            os.truncate(path, _whole_records(path))


def _is_read(path: Path) -> bool:
    """Whether it is the log, and metrics are read from it (:mod:`harness.metrics.stdout`)."""
    return path.name == "trainer.log" and (path.parents[1] / "stdout_metrics.json").is_file()


def _cut_line(path: Path) -> None:
    """Cut off what stands behind the last line end (that of a progress bar too, in the log)."""
    text = path.read_bytes()
    ends = (b"\n",) if path.name == "metrics.jsonl" else (b"\n", b"\r")
    os.truncate(path, max(text.rfind(end) for end in ends) + 1)


def _whole_records(path: Path) -> int:
    """Bytes of the whole records of an event file: length, checksum, that many bytes, checksum."""
    size, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:
            after = position + 16 + struct.unpack("<Q", head[:8])[0]
            if after > size:
                break
            position = after
            file.seek(position)
    return position


def main() -> int:
    """``FOLDER K OUTPUT -- COMMAND…``."""
    folder, k, output, _, *command = sys.argv[1:]
    return run(Path(folder), int(k), Path(output), command)


if __name__ == "__main__":
    sys.exit(main())
