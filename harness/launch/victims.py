"""Find the ranks of whatever was started, and kill one of them or all: as a machine that fails does."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterable
from pathlib import Path

from harness.trainers.command import processes

#: By which launchers tell a process its rank: torchrun and most others, MPI, PMI, SLURM.
_VARIABLES = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
#: Where torchrun lets a rank write: a rank that was forked by it has no environment of its own in /proc.
_LOG = re.compile(r"/attempt_\d+/(\d+)/std(?:out|err)\.log$")
_PROC = Path("/proc")


def ranks_below(root: int) -> dict[int, int]:
    """The process of each rank that ``root`` has started, by rank; nothing where none can be told.

    What a rank starts itself (workers that load data) has its environment too: the rank is the uppermost.
    """
    known = {pid: rank for pid in processes.tree(root) if (rank := _rank(pid)) is not None}
    found: dict[int, int] = {}
    for pid, rank in known.items():
        if known.get(_parent(pid)) != rank:
            found.setdefault(rank, pid)
    return found


def stopped_below(root: int) -> int | None:
    """A rank that ``root`` has started, and somebody has stopped by a signal."""
    return next((rank for rank, pid in sorted(ranks_below(root).items()) if _is_stopped(pid)), None)


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    return False


def kill(pids: Iterable[int]) -> list[int]:
    """SIGKILL; returns those that were still there."""
    told = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            told.append(pid)
    return told


def kill_everything(root: int, known: Iterable[int]) -> list[int]:
    """SIGKILL to ``root`` and all below it, at one moment: nobody can tell anybody of another's end.

    Args:
        known: processes that are known to be below it, which are held still first.
    """
    for pid in known:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGSTOP)
    with processes.held(root) as everyone:
        return kill(dict.fromkeys([*everyone, *known]))


def _rank(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        for setting in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
            name, _, value = setting.partition(b"=")
            if value.isdigit() and name.decode(errors="replace") in _VARIABLES:
                return int(value)
    for descriptor in ("1", "2"):
        with contextlib.suppress(OSError):
            match = _LOG.search(os.readlink(_PROC / str(pid) / "fd" / descriptor))
            if match:
                return int(match[1])
    return None


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return 0
