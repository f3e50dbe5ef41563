"""The files that a launcher keeps of its ranks.

``<run>/attempt_<n>/<local rank>/`` holds ``stderr.log``, ``stdout.log`` and, of some, ``error.json``.
All of them are read in part only, from their ends: a rank may have written gigabytes.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

#: Bytes of the one log of a command, and of each file of a rank.
WHOLE: Final = 2 << 20
_OF_RANK: Final = 256 << 10
_FURTHER: Final = 16 << 20  # where what is looked for is not near the end
_ALL: Final = 256 << 20  # of all ranks together
_ERROR_FILE: Final = 1 << 20
#: Folders below a phase's that are looked into: its data may lie there too.
_FOLDERS: Final = 20_000
_NEEDLE: Final = b"Traceback (most recent call last)"
_ATTEMPT = re.compile(r"attempt_(\d{1,6})")


@dataclass(frozen=True)
class ErrorFile:
    """What a rank wrote of its exception, by ``torch.distributed.elastic``'s ``record``.

    Args:
        message: ``ValueError: what it says``.
        traceback: Python's; empty without one.
        when: seconds since 1970; 0 where it does not say.
    """

    message: str
    traceback: str
    when: float


@dataclass(frozen=True)
class Attempt:
    """One start of all ranks.

    Args:
        number: from 0.
        ranks: the folder of each, by its local rank.
        before: the attempts before it, the last one first.
    """

    number: int
    ranks: dict[int, Path]
    before: tuple[Attempt, ...] = ()


def last_attempt(folder: Path) -> Attempt | None:
    """The last start below a phase's folder; None where no launcher has kept anything there."""
    runs: dict[Path, list[tuple[int, Path]]] = {}
    for path in _folders(folder):
        if named := _ATTEMPT.fullmatch(path.name):
            runs.setdefault(path.parent, []).append((int(named[1]), path))
    if not runs:
        return None
    newest = max(runs, key=lambda run: max(_changed(path) for _, path in runs[run]))
    found: tuple[Attempt, ...] = ()
    for number, path in sorted(runs[newest]):
        names = [name for name in _listed(path) if name.isascii() and name.isdigit() and len(name) < 9]
        ranks = {int(name): path / name for name in sorted(names, key=int)}
        found = (Attempt(number, ranks, found), *found)
    return found[0]


def _folders(top: Path) -> Iterator[Path]:
    left = _FOLDERS
    for here, folders, _ in os.walk(top):
        left -= len(folders)
        if left < 0:
            return
        yield from (Path(here, name) for name in folders)
        folders[:] = [name for name in folders if not _ATTEMPT.fullmatch(name)]


def _listed(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _changed(path: Path) -> float:
    """When anything was last written below an attempt."""
    times = [0.0]
    for here in (path, *(path / name for name in _listed(path)[:4096])):
        try:
            times.append(here.stat().st_mtime)
        except OSError:
            continue
    return max(times)


class Reader:
    """Reads the ends of logs, and of all of them together no more than a bound."""

    def __init__(self) -> None:
        self._left = _ALL

    def end(self, path: Path, size: int = _OF_RANK) -> str:
        """The last ``size`` bytes; more where no traceback is among them and one may stand before."""
        data = self._read(path, size)
        if len(data) >= size and _NEEDLE not in data:
            further = self._read(path, _FURTHER)
            # Only from the traceback on: the rest says nothing.
            at = further.rfind(_NEEDLE)
            data = further[max(0, at - size) : at + size] + b"\n" + data if at >= 0 else data
        return data.decode("utf-8", errors="replace")

    def _read(self, path: Path, size: int) -> bytes:
        try:
            # A FIFO would wait for somebody to write.
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                status = os.fstat(file.fileno())
                size = min(size, self._left)
                if not stat.S_ISREG(status.st_mode) or size <= 0:
                    return b""
                file.seek(max(0, status.st_size - size))
                data = file.read(size)
        except OSError:
            return b""
        self._left -= len(data)
        # The first line is torn.
        return data.partition(b"\n")[2] if status.st_size > size else data

    def error_file(self, path: Path) -> ErrorFile | None:
        """A rank's ``error.json``; None where it has none, or none that can be read."""
        if path.name != "error.json":
            return None
        data = self._read(path, _ERROR_FILE)
        try:
            found: Any = json.loads(data)
        except (ValueError, RecursionError):
            return None
        told = found.get("message") if isinstance(found, dict) else None
        if isinstance(told, str):
            return ErrorFile(told, "", _number(found.get("timestamp")))
        if not isinstance(told, dict) or not isinstance(told.get("message"), str):
            return None
        extra = told.get("extraInfo")
        extra = extra if isinstance(extra, dict) else {}
        traceback = extra.get("py_callstack")
        return ErrorFile(
            told["message"],
            traceback if isinstance(traceback, str) else "",
            _number(extra.get("timestamp")),
        )


def _number(value: object) -> float:
    try:
        found = float(value) if isinstance(value, (str, int, float)) else 0.0
    except (ValueError, OverflowError):
        return 0.0
    return found if math.isfinite(found) else 0.0
