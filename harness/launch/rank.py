"""Inside one rank: the board it reports on, and the frame around the trainer's entry point.

Standard library only: this is imported by the warm parent before the trainer is.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import json
import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.launch import peers
from harness.machine import signals

STARTING, RUNNING, RETURNED, RAISED = range(4)
STACK_SIGNAL = signals.stacks()
_PR_SET_PDEATHSIG = 1
_CELLS = 4  # state, iteration, time of the last beat, time of the exception
_TEXT = 32768  # one exception as JSON; the most that _describe makes, every character escaped


class Board:
    """Anonymous shared memory in which every rank notes how far it is.

    Made before the fork, so parent and ranks see the same pages. Times are ``time.monotonic_ns``,
    which is one clock for all processes of a machine. Each cell is written by one rank only.
    """

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        cells = world_size * _CELLS * 8
        self._map = mmap.mmap(-1, cells + world_size * _TEXT)
        self._text_at = cells
        self._cells = memoryview(self._map)[:cells].cast("q")
        for rank in range(world_size):
            self._cells[rank * _CELLS + 1] = -1

    def beat(self, rank: int, iteration: int) -> None:
        """Note that ``rank`` is alive and has come to ``iteration``."""
        self._cells[rank * _CELLS + 1] = iteration
        self._cells[rank * _CELLS + 2] = time.monotonic_ns()

    def iteration(self, rank: int) -> int:
        """The last iteration noted by ``rank``; -1 before the first."""
        return self._cells[rank * _CELLS + 1]

    def last_beat(self, rank: int) -> float:
        """When ``rank`` last noted anything (s, monotonic); 0 if never."""
        return self._cells[rank * _CELLS + 2] / 1e9

    def state(self, rank: int) -> int:
        """STARTING, RUNNING, RETURNED or RAISED."""
        return self._cells[rank * _CELLS]

    def enter(self, rank: int, state: int) -> None:
        """Note the rank's state."""
        self._cells[rank * _CELLS] = state

    def raised(self, rank: int, error: BaseException) -> None:
        """Note an exception that left the trainer, with the time at which it did."""
        self._cells[rank * _CELLS + 3] = time.monotonic_ns()
        at = self._text_at + rank * _TEXT
        line = json.dumps(_describe(error)).encode() + b"\0"
        self._map[at : at + len(line)] = line
        self.enter(rank, RAISED)

    def error(self, rank: int) -> tuple[float, dict[str, Any]] | None:
        """The noted exception of ``rank``: when (s, monotonic) and what; None without one."""
        if self.state(rank) != RAISED:
            return None
        at = self._text_at + rank * _TEXT
        found = json.loads(self._map[at : at + _TEXT].split(b"\0", 1)[0])
        return self._cells[rank * _CELLS + 3] / 1e9, found


def _describe(error: BaseException) -> dict[str, Any]:
    """One exception as plain data: its class, its sentence, how likely a peer caused it."""
    ours = isinstance(error, HarnessError)
    message = error.message if isinstance(error, HarnessError) else " ".join(str(error).split())
    return {
        "class": type(error).__name__,
        "message": message[:1000],
        "advice": error.advice[:500] if isinstance(error, HarnessError) else "",
        "ours": ours,
        "peer": peers.OWN if ours else _suspicion(error),
    }


def _suspicion(error: BaseException | None) -> int:
    seen: list[BaseException] = []
    while error is not None and all(error is not one for one in seen):
        seen.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return peers.suspicion([([cls.__name__ for cls in type(one).__mro__], str(one)) for one in seen])


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (Linux), or end now if it has."""
    with contextlib.suppress(OSError, AttributeError):  # other systems: the parent's pipe does it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def live_without_parent() -> None:
    """Undo :func:`die_with_parent`."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


def resolve(target: str) -> Callable[..., None]:
    """``package.module:function`` → the function."""
    module, _, name = target.partition(":")
    function: Callable[..., None] = getattr(importlib.import_module(module), name)
    return function


def become_rank(*, parent: int, group: int, log: Path, cwd: str | None) -> None:
    """First thing after the fork: own group, own log, default signals, no life after the parent.

    Args:
        group: the process group to join; 0 opens a new one.
        log: gets stdout and stderr.
    """
    os.setpgid(0, group)
    die_with_parent(parent)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    if cwd:
        os.chdir(cwd)


def run_rank(
    target: str,
    argv: Sequence[str],
    *,
    rank: int,
    local_rank: int,
    world_size: int,
    folder: str,
    rendezvous: str,
    board: Board,
) -> int:
    """Call the trainer as ``rank``; returns the exit status. The exception, if any, is noted first.

    Args:
        rank, world_size: among all nodes.
        local_rank: on this one; its place on ``board``.
        rendezvous: where all meet: the path of a file, or as :class:`harness.launch.place.Place` has it.

    The status is for people who read process tables; the parent reads the board.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()
    faulthandler.register(STACK_SIGNAL, all_threads=True)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(local_rank), WORLD_SIZE=str(world_size))
    os.environ["LOCAL_WORLD_SIZE"] = str(board.world_size)
    board.enter(local_rank, RUNNING)
    try:
        resolve(target)(list(argv), rank, world_size, folder, rendezvous, lambda i: board.beat(local_rank, i))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent is told
        board.raised(local_rank, error)
        traceback.print_exc()
        return error.exit_code if isinstance(error, HarnessError) else 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    board.enter(local_rank, RETURNED)
    return 0
