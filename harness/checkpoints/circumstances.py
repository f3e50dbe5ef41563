"""What two uninterrupted runs of one training do not share: the time, the host, the job. It is no state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checkpoints.rules import Rule, with_ids

if TYPE_CHECKING:
    from harness.checkpoints.compare import StateDiff, TensorDiff

_REASON = "two uninterrupted runs do not share it"


def circumstances(
    difference: StateDiff, *, lists: bool = False, floats: bool = True
) -> tuple[tuple[Rule, ...], tuple[TensorDiff, ...]]:
    """Rules for the plain values that two uninterrupted runs do not share; and all else that differs.

    Args:
        difference: of their checkpoints of one iteration.
        lists: whether a list of numbers is a plain value too: where all curves are equal, it steers nothing.
        floats: whether a float is: not where training does not repeat itself, and any may be part of it.
    """
    kinds = {"value", *(("float",) if floats else ()), *(("list",) if lists else ())}
    plain: list[TensorDiff] = []
    rest: list[TensorDiff] = []
    for entry in difference.entries:
        if entry.plain and entry.reason.startswith("only in"):
            continue  # says nothing of a value that both of two other runs have
        (plain if entry.plain in kinds else rest).append(entry)
    return tuple(dict.fromkeys(map(_rule, plain))), tuple(rest)


def only_plain(difference: StateDiff) -> bool:
    """Whether something differs, and nothing but plain values does."""
    return bool(difference.entries) and all(entry.plain for entry in difference.entries)


def _rule(entry: TensorDiff) -> Rule:
    # The file of another iteration, or of another job, has another number in its name.
    return Rule("observed", entry.key or entry.name, _REASON, with_ids(entry.file), entry.words)
