"""The table of faults: what caught each, what was lost, and what it was named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

from tests.experiments.bank import FAULTS
from tests.experiments.running import Outcome

_HEAD = ("script", "what was lost", "the like of it", "caught by", "truth", "named", "s")
_ORDER = [fault.name for fault in FAULTS]


def caught_by(outcome: Outcome) -> str:
    """What saw it first, by each kind of comparison."""
    by = {"golden": outcome.golden, "continuous": outcome.continuous, "state": outcome.state}
    said = "; ".join(f"{kind}: {first}" for kind, first in by.items() if first)
    return said or ("the run's end" if outcome.caught else f"**nothing: {outcome.status}**")


def named(outcome: Outcome) -> str:
    """What it was named; bold where that is wrong."""
    if outcome.named == "named":
        return outcome.component
    if outcome.named == "wrong":
        return f"**{outcome.component}**"
    if outcome.named == "passed":
        return "–"
    candidates = ", ".join(f"*{c}*" if c == outcome.of.component else c for c in outcome.candidates)
    return f"unknown: {candidates or 'no candidates'}"


def totals(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many were caught and named, and how those that were not named were called."""
    return {
        "faults": len(outcomes),
        "caught": sum(one.caught for one in outcomes),
        "named": sum(one.named == "named" for one in outcomes),
        "candidate": sum(one.named == "candidate" for one in outcomes),
        "unknown": sum(one.named == "unknown" for one in outcomes),
        "wrong": sum(one.named == "wrong" for one in outcomes),
    }


def summary(outcomes: Sequence[Outcome]) -> str:
    """The totals in one sentence."""
    found = totals(outcomes)
    count = found["faults"]
    return (
        f"{found['caught']} of {count} caught, {found['named']} of {count} named rightly; "
        f"{found['candidate']} unknown with the right one among its candidates, {found['unknown']} unknown "
        f"without it, {found['wrong']} named wrongly"
    )


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The table, then the totals."""
    rows = [_HEAD, tuple("---" for _ in _HEAD)]
    for one in sorted(outcomes, key=lambda one: _ORDER.index(one.fault)):
        fault = one.of
        rows.append((
            fault.script.name, fault.lost, fault.reference, caught_by(one), fault.component, named(one),
            f"{one.seconds:.0f}",
        ))  # fmt: skip
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([*lines, "", f"{summary(outcomes)}."])


def to_json(outcomes: Sequence[Outcome]) -> str:
    """All of it, with the evidence."""
    faults = [
        {**asdict(one), "truth": one.of.component, "caught": one.caught, "how": one.named}
        for one in sorted(outcomes, key=lambda one: _ORDER.index(one.fault))
    ]
    return json.dumps({"totals": totals(outcomes), "faults": faults}, indent=1, ensure_ascii=False) + "\n"


def from_json(path: Path) -> list[Outcome]:
    """What :func:`to_json` wrote; nothing where nothing was."""
    if not path.is_file():
        return []
    names = {one.name for one in fields(Outcome)}
    rows = json.loads(path.read_text())["faults"]
    return [
        Outcome(
            **{k: cast("Any", tuple(v) if isinstance(v, list) else v) for k, v in row.items() if k in names}
        )
        for row in rows
    ]


def line(outcome: Outcome) -> str:
    """One line while it goes on."""
    return (
        f"{outcome.fault}: {outcome.named.upper() if outcome.named != 'named' else 'named'}: "
        f"{named(outcome)} (it is {outcome.of.component}); {caught_by(outcome)} ({outcome.seconds:.0f} s)"
    )
