"""A command with all that it has started: held still, looked at, asked to end. Standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")
_TICK = 0.02  # s


def tree(root: int) -> list[int]:
    """``root``, what it has started, and who is in its group: launchers give their workers sessions."""
    parents: dict[int, int] = {}
    found = {root}
    for pid, fields in _all():
        parents[pid] = int(fields[1])
        if int(fields[2]) == root:
            found.add(pid)
    growing = True
    while growing:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        growing = bool(more)
    return sorted(found)


def _all() -> Iterator[tuple[int, list[str]]]:
    """Of every process that is alive, what /proc says behind its name: state, parent, group."""
    with contextlib.suppress(OSError):
        for name in os.listdir(_PROC):
            if not name.isdigit():
                continue
            with contextlib.suppress(OSError, IndexError):
                fields = (_PROC / name / "stat").read_text().rpartition(")")[2].split()
                if fields[0] not in "ZX":
                    yield int(name), fields


@contextlib.contextmanager
def held(root: int) -> Iterator[list[int]]:
    """Stop all of them for a while; gives their ids."""
    stopped: list[int] = []
    try:
        for _ in range(3):  # one may have been started meanwhile
            new = [pid for pid in tree(root) if pid not in stopped]
            stopped += new
            _tell(new, signal.SIGSTOP)
            if not new:
                break
        yield stopped
    finally:
        _tell(stopped, signal.SIGCONT)


def writing(pids: Iterable[int]) -> set[Path]:
    """The files that any of them has open to write into."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for name in os.listdir(_PROC / str(pid) / "fd"):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    about = (_PROC / str(pid) / "fdinfo" / name).read_text()
                    flags = int(about.partition("flags:")[2].split()[0], 8)
                    if flags & os.O_ACCMODE != os.O_RDONLY:
                        found.add(Path(os.readlink(_PROC / str(pid) / "fd" / name)))
    return found


def end(root: int, grace: float) -> None:
    """Ask all of them to end, as a pre-emption does, and end who does not mind.

    One that has not asked to be told of SIGTERM, but of SIGINT (as Python has), gets that: else what it has
    in its buffers is lost.
    """
    group = [pid for pid in tree(root) if _group(pid) == root]
    polite = [pid for pid in group if _catches(pid, signal.SIGINT) and not _catches(pid, signal.SIGTERM)]
    _tell(polite, signal.SIGINT)
    if len(polite) < len(group):
        _tell([pid for pid in group if pid not in polite], signal.SIGTERM)
    everyone = tree(root)
    _tell(everyone, signal.SIGCONT)  # who is held still, as while a folder is copied, hears nothing
    if not _gone(everyone, grace if not polite else grace / 2) and polite:
        _tell(polite, signal.SIGTERM)
        _gone(everyone, grace)
    _tell({*everyone, *tree(root)}, signal.SIGKILL)


def kill(root: int) -> None:
    """End all of them at once."""
    _tell(tree(root), signal.SIGKILL)


def _gone(pids: Iterable[int], within: float) -> bool:
    until = time.monotonic() + within
    while alive := {pid for pid, _ in _all()} & set(pids):
        if time.monotonic() > until:
            break
        time.sleep(_TICK)
    return not alive


def _group(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.getpgid(pid)
    return None


def _catches(pid: int, number: int) -> bool:
    with contextlib.suppress(OSError, IndexError, ValueError):
        caught = (_PROC / str(pid) / "status").read_text().partition("SigCgt:")[2].split()[0]
        return bool(int(caught, 16) >> (number - 1) & 1)
    return False


def _tell(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
