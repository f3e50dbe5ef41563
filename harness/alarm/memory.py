"""What the watch remembers from night to night, in one JSON file.

An issue knows its own spell. The file knows what no issue does: each cell's last green commit, how long
a cell in quarantine has been green, and which news the webhook has had. Without the file nothing is
posted twice by way of issues; a range of commits is then open at its good end, until the next green.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.alarm.spells import Spell, from_json, to_json
from harness.errors import UsageError
from harness.night.outcome import Outcome, commit

_FORMAT = 1


@dataclass
class Remembered:
    """One cell.

    Args:
        good: commit of its last green night.
        streak: green nights in a row while in quarantine.
        night: the last night that was counted.
    """

    good: str | None = None
    streak: int = 0
    night: str = ""


@dataclass
class Memory:
    """All of it.

    Args:
        cells: by cell id.
        spells: what is red, by subject; only used where there are no issues to ask.
        told: which news the webhook has had last.
        owed: news that it could not be told, as they are sent.
    """

    cells: dict[str, Remembered] = field(default_factory=dict)
    spells: dict[str, Spell] = field(default_factory=dict)
    told: str = ""
    owed: list[dict[str, Any]] = field(default_factory=list)

    def see(self, outcomes: Iterable[Outcome], night: str, quarantined: Collection[str]) -> None:
        """Take in one night; the same night twice is one."""
        for outcome in outcomes:
            if outcome.missing or outcome.state == "skipped":  # says nothing of the cell
                continue
            name = outcome.cell.id
            cell = self.cells.setdefault(name, Remembered())
            if outcome.green:
                cell.good = outcome.commit
            if not outcome.green or name not in quarantined:
                cell.streak = 0
            elif cell.night != night:
                cell.streak += 1
            cell.night = night

    def good(self, cells: Iterable[str]) -> str | None:
        """The commit at which all of ``cells`` were last green; None when there is no such commit."""
        commits = {self.cells[name].good if name in self.cells else None for name in cells}
        return commits.pop() if len(commits) == 1 else None

    def write(self, path: Path) -> None:
        """At once or not at all."""
        content = {
            "format": _FORMAT,
            "cells": {name: vars(cell) for name, cell in sorted(self.cells.items())},
            "spells": [to_json(spell) for _, spell in sorted(self.spells.items())],
            "told": self.told,
            "owed": self.owed,
        }
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            beside.replace(path)
        except OSError as error:
            advice = "name another file with --state"
            raise UsageError(f"{path}: cannot be written: {error.strerror}", advice) from error


def read_memory(path: Path | None) -> Memory:
    """What ``write`` has written; nothing when the file is not there yet.

    Raises:
        UsageError: it is something else.
    """
    if path is None or not path.exists():
        return Memory()
    try:
        return _memory(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path}: is no state of the night watch: {type(error).__name__}: {error}",
            "remove it: the watch then begins anew",
        ) from error


def _memory(raw: dict[str, Any]) -> Memory:
    if raw["format"] != _FORMAT:
        raise ValueError(f"format {raw['format']!r}, expected {_FORMAT}")
    cells = {str(name): _cell(item) for name, item in raw["cells"].items()}
    spells = [_spell(item) for item in raw["spells"]]
    owed = [dict(news, subject=str(news["subject"])) for news in raw["owed"]]
    return Memory(cells, {spell.subject: spell for spell in spells}, str(raw["told"]), owed)


def _cell(raw: dict[str, Any]) -> Remembered:
    if type(raw["streak"]) is not int:
        raise ValueError(f"streak {raw['streak']!r}")
    return Remembered(commit(raw["good"]), raw["streak"], str(raw["night"]))


def _spell(raw: object) -> Spell:
    spell = from_json(raw)
    if spell is None:
        raise ValueError(f"spell {raw!r}")
    return spell
