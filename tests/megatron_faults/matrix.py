"""The table of faults in Megatron-LM's own code: what saw each first, and what it was named, by version."""

from __future__ import annotations

from collections.abc import Sequence

from tests.megatron_faults.bank import FAULTS
from tests.megatron_faults.running import Outcome

_SHOWN = 3


def line(outcome: Outcome) -> str:
    """One line while it goes on."""
    if not outcome.planted:
        said = f"NOT REACHED ({outcome.status})"
    elif not outcome.seen:
        said = f"NOT CAUGHT ({outcome.status})"
    else:
        more = f" and {len(outcome.seen) - _SHOWN} more" if len(outcome.seen) > _SHOWN else ""
        said = ", ".join(outcome.seen[:_SHOWN]) + more
    right = outcome.component
    if not outcome.named:
        right = f"{right or 'nothing'}, WRONG: it is {outcome.fault.component}"
    return f"{outcome.version}: {outcome.key}: {said}; named {right} ({outcome.seconds:.0f} s)"


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many were caught and named, by version."""
    said = []
    for version in dict.fromkeys(one.version for one in outcomes):
        found = [one for one in outcomes if one.version == version]
        caught, named = sum(one.caught for one in found), sum(one.named for one in found)
        said.append(f"{version}: {caught} of {len(found)} caught, {named} named rightly")
    return "; ".join(said)


def markdown(outcomes: Sequence[Outcome]) -> str:
    """A row a fault, a column a version, then the totals."""
    versions = list(dict.fromkeys(one.version for one in outcomes))
    head = ("what was lost", "the like of it", "case", "component", *(f"named, {one}" for one in versions))
    rows = [head, tuple("---" for _ in head)]
    by_key = {(one.key, one.version): one for one in outcomes}
    for fault in FAULTS:
        found = [by_key.get((fault.key, version)) for version in versions]
        if any(found):
            rows.append((fault.lost, fault.seen, fault.case, fault.component, *map(_named, found)))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", summary(outcomes) + "."])


def _named(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    if not outcome.caught:
        return "**not caught**"
    return outcome.component if outcome.named else f"**{outcome.component or outcome.status}**"
