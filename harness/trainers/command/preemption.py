"""End a command as a pre-emption would, once its checkpoint of an iteration is there.

``FOLDER K N INTERVAL OUTPUT -- COMMAND…`` stands between the harness and a script that cannot stop by itself.
When the checkpoint of ``K`` is whole, the script is held for a moment and what stands there is copied; then
it is told to end. What it saves meanwhile is nobody's: the copy takes the folder's place. Standard library
only: it is started for every such phase.
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

from harness.trainers.command import processes
from harness.trainers.command.checkpoint_names import found
from harness.trainers.command.names import Saves
from harness.trainers.command.snapshot import Watch, replace, turned_back

_TICK = 0.02  # s
_LOOKING = 4  # at most one in so many seconds is spent with looking
_GRACE = 10.0  # s from the request to SIGKILL
_NOT_FOUND = 127  # as a shell says it
_UNSEEN = 3


def run(folder: Path, k: int, saves: Saves, output: Path, command: list[str]) -> int:
    """Start ``command``, and end it after iteration ``k``.

    Args:
        folder: where it saves.
        saves: when it saves, and where it would end.
        output: where it logs; what it was writing when it was ended is cut off.

    Returns:
        0 when its checkpoint of ``k`` is there, however it ended then; else its own status.
    """
    started: list[subprocess.Popen[bytes]] = []
    for number in (signal.SIGTERM, signal.SIGINT):  # before it starts: it would inherit that one is ignored
        signal.signal(number, lambda *_: _leave(started))
    try:
        started.append(subprocess.Popen(command, start_new_session=True))
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        return _NOT_FOUND
    (process,) = started
    like = folder.with_name("continuous")  # the uninterrupted run, where there was one already
    watch = Watch(folder, k, Saves(saves.interval), process.pid, like, saves.end or k)
    try:
        if _wait(process, watch):
            print(f"\nharness: the checkpoint of iteration {k} is there; the command is ended", flush=True)
            _end(process)
            watch.take_its_place()
            for path in output.rglob("*"):
                _cut(path)
            return 0
        status = process.returncode
        if status == 0:
            return _ended_by_itself(folder, k, saves, watch)
        return status if status >= 0 else 128 - status
    except OSError as error:  # no room, most of all
        print(
            f"harness: the checkpoint of iteration {k} cannot be kept: {error}", file=sys.stderr, flush=True
        )
        return _UNSEEN
    finally:
        processes.kill(process.pid)
        _signal(process, signal.SIGKILL)


def _wait(process: subprocess.Popen[bytes], watch: Watch) -> bool:
    """Wait for the checkpoint; False when the command ends before."""
    while process.poll() is None:
        began = time.monotonic()
        if watch.look(began):
            return True
        time.sleep(max(_TICK, _LOOKING * (time.monotonic() - began)))
    return False


def _ended_by_itself(folder: Path, k: int, saves: Saves, watch: Watch) -> int:
    """What a command has left that came to its own end."""
    there = found(folder, k, saves)
    gone_on = max(there, default=0) > k
    if k not in there and not (watch.taken and gone_on):
        print(
            f"harness: the command ended by itself, and no checkpoint of iteration {k} was seen in "
            f"{folder}: let it stop after ${{EXIT_ITERS}} iterations, or put the iteration into the "
            "names of its checkpoints, and keep that one",
            file=sys.stderr,
            flush=True,
        )
        return _UNSEEN
    # What was copied too early is taken only where nothing else is left of it.
    if watch.taken and gone_on and (watch.whole or k not in there):
        watch.take_its_place()
    elif gone_on:
        turned_back(folder, watch.copy, k, saves, place=folder)
        replace(folder, watch.copy)
    return 0


def _end(process: subprocess.Popen[bytes]) -> None:
    processes.end(process.pid, _GRACE)
    _signal(process, signal.SIGKILL)  # what it had started may still be there
    process.wait()


def _leave(started: list[subprocess.Popen[bytes]]) -> None:
    for process in started:
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
    """``FOLDER K N INTERVAL OUTPUT -- COMMAND…``."""
    folder, k, n, interval, output, _, *command = sys.argv[1:]
    return run(Path(folder), int(k), Saves(int(interval), int(n)), Path(output), command)


if __name__ == "__main__":
    sys.exit(main())
