"""Which entry of the saved state was lost, and what else differs in the order of cause.

What differs at the end differs mostly because something else did before: the list must not begin with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from harness.diagnosis import differences
from harness.diagnosis.result import CAUSES, PARAMETERS, Diagnosis

if TYPE_CHECKING:
    from harness.checkpoints import TensorDiff


def entry_of(component: str, groups: differences.Groups) -> str:
    """The name that says most of what was lost; empty where none does.

    Args:
        component: what a diagnosis names.
        groups: differing entries by component.
    """
    # A checkpoint that was lost as a whole: what comes first of what it should have held.
    named = min(groups, key=_rank, default="") if component == "checkpoint" else component
    entries = groups.get(named)
    return differences.most_telling(entries).name if entries else ""


def in_order_of_cause(entries: Iterable[TensorDiff], diagnosis: Diagnosis | None) -> tuple[TensorDiff, ...]:
    """What differs, what was lost first: its telling entry, then the others of it, then the rest.

    Args:
        entries: of one state diff.
        diagnosis: of the same run; without one, only what decides what counts.
    """
    entries = tuple(entries)
    lost = diagnosis.component if diagnosis is not None else ""
    named = diagnosis.entry if diagnosis is not None else ""
    groups = differences.components(entries)
    of_lost = groups.get(lost, [])
    first = named or (differences.most_telling(of_lost).name if of_lost else "")
    names = {entry.name for entry in of_lost}
    kinds = PARAMETERS if lost == "weights" else (lost,)

    def key(entry: TensorDiff) -> tuple[bool, bool, bool, int, str]:
        return (
            entry.name != first, entry.name not in names, entry.component not in kinds,
            _rank(entry.component), entry.name,
        )  # fmt: skip

    return tuple(sorted(entries, key=key))


def _rank(component: str) -> int:
    return CAUSES.index(component) if component in CAUSES else len(CAUSES)
