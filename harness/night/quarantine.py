"""Cells that are known to be flaky: who answers for each, until when, and when to let it out again.

A cell in quarantine runs like any other and is shown like any other. Its red does not fail the night,
until the entry expires. When it has been green for long enough, the entry itself fails the night.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from harness.errors import QuarantineError
from harness.matrix import HARDWARE, TRACKS, Cell

QUARANTINE_FILE = "quarantine.yaml"
_KEYS = ("cell", "reason", "owner", "expires", "green_nights")
_MOST_NIGHTS = 365


@dataclass(frozen=True)
class Entry:
    """One line of the file.

    Args:
        cell: a pattern, ``HARDWARE/TRACK/CASE``; each part may have ``*``, ``?`` and ``[…]``.
        reason: why the cell may be red; a sentence.
        owner: who takes it out again.
        expires: the last day on which the entry counts, in UTC.
        green_nights: after so many green nights in a row the cell is healthy.
        where: the file and the number of the entry in it.
    """

    cell: str
    reason: str
    owner: str
    expires: date
    green_nights: int
    where: str

    def __post_init__(self) -> None:
        for name in ("cell", "reason", "owner"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise QuarantineError(f"{self.where}: {name}: found {value!r}, expected some text")
        expires: Any = self.expires
        # A datetime is a date for Python, but not what anybody means by a last day.
        if not isinstance(expires, date) or isinstance(expires, datetime):
            raise QuarantineError(f"{self.where}: expires: found {expires!r}, expected a date: 2026-12-31")
        nights = self.green_nights
        if type(nights) is not int or not 1 <= nights <= _MOST_NIGHTS:
            raise QuarantineError(
                f"{self.where}: green_nights: found {nights!r}, expected a number, 1 to {_MOST_NIGHTS}"
            )
        parts = self.cell.split("/")
        if len(parts) != 3 or not all(parts):
            raise QuarantineError(f"{self.where}: cell: found {self.cell!r}, expected HARDWARE/TRACK/CASE")
        for kind, pattern, table in (("hardware", parts[0], HARDWARE), ("track", parts[1], TRACKS)):
            if not any(fnmatchcase(name, pattern) for name in table):
                raise QuarantineError(
                    f"{self.where}: cell: {kind} {pattern!r} is none, expected {' or '.join(table)}"
                )

    def matches(self, cell: Cell) -> bool:
        """Whether it is about ``cell``."""
        names = (cell.hardware, cell.track, cell.case)
        return all(fnmatchcase(name, part) for name, part in zip(names, self.cell.split("/"), strict=True))

    def expired(self, today: date) -> bool:
        """Whether the last day is over."""
        return today > self.expires


@dataclass(frozen=True)
class Quarantine:
    """All entries; of two that match a cell, the first in the file counts.

    Args:
        entries: in the order of the file.
    """

    entries: tuple[Entry, ...] = field(default=())

    def entry(self, cell: Cell) -> Entry | None:
        """The entry that is about ``cell``, expired or not."""
        return next((entry for entry in self.entries if entry.matches(cell)), None)

    def holds(self, cell: Cell, today: date) -> Entry | None:
        """The entry that keeps a red ``cell`` from failing the night; None when none does."""
        entry = self.entry(cell)
        return None if entry is None or entry.expired(today) else entry

    def complaints(self, cells: Iterable[Cell], streaks: Mapping[str, int], today: date) -> tuple[str, ...]:
        """Why the file itself fails the night; a sentence each.

        Args:
            cells: those that ran.
            streaks: by cell id, how many nights in a row it has been green in quarantine, this one too.
            today: in UTC.
        """
        ran = list(cells)
        found = []
        for entry in self.entries:
            who = f"{entry.where}: {entry.cell} (owner {entry.owner})"
            held = [cell for cell in ran if self.entry(cell) is entry]
            if entry.expired(today):
                found.append(
                    f"{who} expired on {entry.expires}: mend the cell and take the entry out, "
                    "or say anew why it has to stay"
                )
            elif held and all(streaks.get(cell.id, 0) >= entry.green_nights for cell in held):
                nights = min(streaks[cell.id] for cell in held)
                found.append(f"{who} has been green for {nights} nights: take the entry out")
        return tuple(found)


def read_quarantine(path: Path | None) -> Quarantine:
    """Read ``quarantine.yaml``.

    Args:
        path: None for the one in the present folder, if it is there.

    Raises:
        QuarantineError: file, entry and key, what was found, what was expected.
    """
    if path is None:
        path = Path(QUARANTINE_FILE)
        if not path.exists():
            return Quarantine()
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        advice = "name one with --quarantine"
        raise QuarantineError(f"{path}: cannot be read: {error.strerror}", advice) from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise QuarantineError(f"{path}: is no YAML: {error}") from error
    if found is None:
        return Quarantine()
    if not isinstance(found, list):
        raise QuarantineError(f"{path}: found {type(found).__name__}, expected a list of entries")
    return Quarantine(tuple(_entry(item, f"{path}, entry {number}") for number, item in enumerate(found, 1)))


def _entry(item: Any, where: str) -> Entry:  # noqa: ANN401 - whatever YAML holds
    if not isinstance(item, dict):
        raise QuarantineError(f"{where}: found {item!r}, expected a mapping")
    missing = [key for key in _KEYS if key not in item]
    unknown = [str(key) for key in item if key not in _KEYS]
    if missing or unknown:
        wrong = [*(f"{key} is missing" for key in missing), *(f"{key} is no key" for key in unknown)]
        raise QuarantineError(f"{where}: {', '.join(wrong)}")
    return Entry(**item, where=where)
