"""The matrix of faults: what caught each, at which iteration, and what it was named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from tests.faults.running import Caught, Outcome

_HEAD = (
    "#", "what was lost", "where it happened", "by golden", "by continuous", "by state", "component",
    "named", "Megatron-LM's gate", "its approximate mode",
)  # fmt: skip
_LEGACY, _APPROXIMATE = "by Megatron-LM's gate", "by its approximate mode"


def totals(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many faults were run, caught by what, and named; and what the legacy gate caught."""
    return {
        "faults": len(outcomes),
        "caught": sum(o.caught for o in outcomes),
        "named": sum(o.named for o in outcomes),
        "by golden": sum(o.golden is not None for o in outcomes),
        "by continuous": sum(o.continuous is not None for o in outcomes),
        "by state": sum(o.state is not None for o in outcomes),
        _LEGACY: sum(bool(o.legacy) for o in outcomes),
        _APPROXIMATE: sum(bool(o.approximate) for o in outcomes),
    }


def summary(outcomes: Sequence[Outcome]) -> str:
    """The totals in one sentence."""
    found = totals(outcomes)
    count = found["faults"]

    def share(what: str) -> str:
        return f"{found[what]} of {count} ({found[what] / max(count, 1):.0%})"

    return (
        f"{share('caught')} caught, {share('named')} named rightly; by golden {found['by golden']}, by "
        f"continuous {found['by continuous']}, by state {found['by state']}; Megatron-LM's published "
        f"thresholds catch {share(_LEGACY)} on the same runs, {share(_APPROXIMATE)} in approximate mode"
    )


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The matrix as a table, then its totals."""
    rows = [_HEAD, tuple("---" for _ in _HEAD)]
    for o in sorted(outcomes, key=lambda one: one.number):
        fault = o.fault
        rows.append((
            str(o.number), fault.lost, fault.tracker, _seen(o.golden), _seen(o.continuous), _seen(o.state),
            fault.component, o.component if o.named else f"**{o.component or o.status}**",
            o.legacy or "passes", o.approximate or "passes",
        ))  # fmt: skip
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([*lines, "", summary(outcomes) + "."])


def _seen(caught: Caught | None) -> str:
    if caught is None:
        return "–"
    return caught.by if caught.step is None else f"{caught.by}, {caught.step}"


def to_json(outcomes: Sequence[Outcome]) -> str:
    """All of it, with the evidence."""
    faults = [
        {**asdict(o), "caught": o.caught, "true": o.fault.component, "named": o.named, "lost": o.fault.lost,
         "case": o.fault.case, "where": o.fault.tracker, "equivalent": o.fault.equivalent}
        for o in sorted(outcomes, key=lambda one: one.number)
    ]  # fmt: skip
    return json.dumps({"totals": totals(outcomes), "faults": faults}, indent=1, ensure_ascii=False) + "\n"


def line(outcome: Outcome) -> str:
    """One line while it goes on."""
    where = [
        f"{name} {_seen(caught)}"
        for name, caught in zip(
            ("golden", "continuous", "state"),
            (outcome.golden, outcome.continuous, outcome.state),
            strict=True,
        )
        if caught is not None
    ]
    said = "; ".join(where) if outcome.caught else f"NOT CAUGHT ({outcome.status})"
    right = outcome.component
    if not outcome.named:
        right = f"{right or 'nothing'}, WRONG: it is {outcome.fault.component}"
    return f"{outcome.number:2}  {outcome.fault.lost}: {said}; named {right} ({outcome.seconds:.1f} s)"
