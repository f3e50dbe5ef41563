"""A spell: the nights in a row that something has been red. It is kept, unseen, in the issue itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from typing import Any

from harness.matrix import HARDWARE, NAME, TRACKS
from harness.night.outcome import commit

_BEGIN = re.compile(r"<!-- harness-alarm:begin (\{[^<>]*\}) -->")
_END = "<!-- harness-alarm:end -->"


@dataclass(frozen=True)
class Spell:
    """Since when a subject has been red, and why.

    Args:
        subject: a cell, or ``HARDWARE/TRACK`` for many cells that turned red together.
        good: commit of the last green night before it; None when nobody knows.
        bad: commit of its first night; likewise.
        since: date of its first night, in UTC.
        nights: how many there were.
        night: the last one of them.
        signature: what was wrong in that night.
        cells: those that are red; one for a cell's own.
    """

    subject: str
    good: str | None
    bad: str | None
    since: str
    nights: int
    night: str
    signature: str
    cells: tuple[str, ...]

    def goes_on(self, night: str, signature: str, cells: tuple[str, ...]) -> Spell:
        """The same spell, after one more night; the same night twice is one."""
        nights = self.nights + (night != self.night)
        return replace(self, nights=nights, night=night, signature=signature, cells=cells)


def wrap(spell: Spell, text: str, around: str = "") -> str:
    """The body of an issue: the spell, unseen, ``text``, and what people have written outside of it.

    Args:
        around: the issue's present body; empty for a new issue.
    """
    # Text of a run that holds the end's mark would leave its rest behind as if people had written it.
    text = text.replace("<!-- harness-alarm:", "<!-- harness-alarm;")
    made = f"<!-- harness-alarm:begin {_dump(asdict(spell))} -->\n{text}\n{_END}"
    found = _BEGIN.search(around)
    if found is None:
        return made
    end = around.find(_END, found.end())
    after = around[end + len(_END) :] if end >= 0 else ""
    return around[: found.start()] + made + after


def unwrap(body: object) -> Spell | None:
    """The spell of an issue's body; None when it has none, or somebody has damaged it."""
    found = _BEGIN.search(body) if isinstance(body, str) else None
    if found is None:
        return None
    try:
        return from_json(json.loads(found[1]))
    except ValueError:
        return None


def from_json(raw: object) -> Spell | None:
    """A spell as :func:`to_json` made it; None for anything else: people can edit what it is read from."""
    if not isinstance(raw, dict) or set(raw) != {field.name for field in fields(Spell)}:
        return None
    texts = [raw[name] for name in ("subject", "since", "night", "signature")]
    if not all(isinstance(text, str) and len(text) < 400 for text in texts):
        return None
    if type(raw["nights"]) is not int or not isinstance(raw["cells"], list):
        return None
    if not all(isinstance(name, str) and is_subject(name) for name in (raw["subject"], *raw["cells"])):
        return None
    try:
        date.fromisoformat(raw["since"])
    except ValueError:
        return None
    good, bad = commit(raw["good"]), commit(raw["bad"])
    return Spell(**{**raw, "good": good, "bad": bad, "cells": tuple(raw["cells"])})


def to_json(spell: Spell) -> Mapping[str, Any]:
    """For a file."""
    return asdict(spell)


def is_subject(text: str) -> bool:
    """Whether it is ``HARDWARE/TRACK`` or ``HARDWARE/TRACK/CASE``."""
    parts = text.split("/")
    return (
        2 <= len(parts) <= 3
        and parts[0] in HARDWARE
        and parts[1] in TRACKS
        and all(NAME.fullmatch(part) for part in parts[2:])
    )


def _dump(content: Mapping[str, Any]) -> str:
    """JSON that cannot end the comment it stands in."""
    text = json.dumps(content, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("--", "\\u002d\\u002d")
