"""Where one component is what differs, and the loss of another one explains that as well.

A state at the end shows what came of a loss. A stream that stands elsewhere was not restored, or the loader
began anew and drew from it. A count of a model's buffers that began anew was lost alone, or with
the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.diagnosis.candidates import LIKELIEST
from harness.diagnosis.result import PARAMETERS, Candidate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.diagnosis.candidates import Known


def explains_it_too(known: Known, component: str) -> tuple[Candidate, ...]:
    """The component that differs and those whose loss would make it differ, the likeliest first.

    Args:
        known: all that was compared.
        component: the one that the states name.

    Returns:
        Nothing where only its own loss explains it.
    """
    found = dict(_others(known, component)) if _since_the_resume(known) else {}
    if not found:
        return ()
    found[component] = tuple(known.seen[component])
    return tuple(Candidate(one, found[one]) for one in sorted(found, key=LIKELIEST.index))


def rate_of_the_optimizer(known: Known, *, in_step: bool) -> tuple[str, ...]:
    """Of a rate that is off: what says that its optimizer was lost, with its schedule or without.

    A schedule changes the rate that lies in the groups of its optimizer, and none of its counts.

    Args:
        known: all that was compared.
        in_step: the rate moves as it should, a constant factor off.
    """
    seen = tuple(known.seen.get("optimizer", ()))
    lacking = lacks(known, "optimizer") if in_step else ()
    if not seen and not lacking:
        return ()
    if in_step:
        return (*seen, *lacking, "the rate that the schedule moves lies in the optimizer's groups")
    schedule = tuple(known.seen.get("lr-schedule", ()))
    return (*seen, *schedule, "no schedule moves that: the optimizer was lost, and its schedule with it")


def lacks(known: Known, *components: str) -> tuple[str, ...]:
    """That the checkpoint has no word for any of these; nothing where it has one, or could not be read."""
    held = known.held
    if held is None or any(held.get(one) for one in components):
        return ()
    return (f"the checkpoint holds nothing whose name speaks of {components[0]}",)


def _since_the_resume(known: Known) -> bool:
    """No loss was right between: what is off was off when it was loaded, as far as is known."""
    first = known.first
    return first.kind == "loss" and not (
        first.step > known.k + 1 and known.right("loss", known.k + 1, first.step - 1)
    )


def _others(known: Known, component: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    if component == "rng" and not known.right("data", known.k + 1, known.first.step):
        lacking = lacks(known, "data-order")
        if lacking:
            yield "data-order", (*lacking, "a loader that begins anew draws from the streams again")
    if component == "buffers":
        part = _part_of_the_weights(known)
        lacking = lacks(known, *PARAMETERS, "unknown")
        if part:
            yield "weights", (f"what differs of buffers is saved in one part with weights, `{part}`",)
        elif lacking:
            yield "weights", lacking


def _part_of_the_weights(known: Known) -> str | None:
    """The part of the checkpoint in which buffers differ, and weights do."""
    if known.state is None:
        return None
    parts = [
        {entry.name.partition(".")[0] for entry in known.state.entries if entry.component in kinds}
        for kinds in (PARAMETERS, ("buffers",))
    ]
    return min(parts[0] & parts[1], default=None)
