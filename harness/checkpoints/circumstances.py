"""What two uninterrupted runs of one training do not share: the time, the host, the job. It is no state."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.checkpoints.rules import ANY, Rule

if TYPE_CHECKING:
    from harness.checkpoints.compare import StateDiff, TensorDiff

_REASON = "two uninterrupted runs do not share it"


def circumstances(
    difference: StateDiff, iteration: int | None = None, *, lists: bool = False, floats: bool = True
) -> tuple[tuple[Rule, ...], tuple[TensorDiff, ...]]:
    """Rules for the plain values that two uninterrupted runs do not share; and all else that differs.

    Args:
        difference: of their checkpoints of one iteration.
        iteration: which; its number in the name of a file stands for any other iteration's.
        lists: whether elements of a list of numbers are: where all curves are equal, they steer nothing.
        floats: whether a float is: not where training does not repeat itself, and any may be part of it.
    """
    kinds = {"value", *(("float",) if floats else ()), *(("list",) if lists else ())}
    plain: list[TensorDiff] = []
    rest: list[TensorDiff] = []
    for entry in difference.entries:
        if entry.plain and entry.reason.startswith("only in"):
            continue  # says nothing of a value that both of two other runs have
        known = entry.plain in kinds and (entry.plain != "list" or entry.reason == "values")
        (plain if known else rest).append(entry)
    return tuple(dict.fromkeys(_rule(entry, iteration) for entry in plain)), tuple(rest)


def only_plain(difference: StateDiff) -> bool:
    """Whether something differs, and nothing but plain values does."""
    return bool(difference.entries) and all(entry.plain for entry in difference.entries)


def _rule(entry: TensorDiff, iteration: int | None) -> Rule:
    def said(number: re.Match[str]) -> str:
        return ANY if int(number[0]) == iteration else number[0]

    file = re.sub(r"\d{1,12}", said, entry.file) if iteration is not None else entry.file
    return Rule("observed", entry.key or entry.name, _REASON, file, entry.words)
