"""A resumed run that went on at another iteration than k+1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.diagnosis import curves, sentences
from harness.diagnosis.result import Candidate, Diagnosis

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.metrics import Series


def elsewhere(
    failed: Sequence[Check],
    continuous: Mapping[str, Series],
    resumed: Mapping[str, Series],
    number: Sequence[str] = (),
) -> Diagnosis | None:
    """What was lost, where it is that; None where it went on where it should.

    Args:
        failed: the checks that failed.
        continuous, resumed: both runs' series.
        number: sentences that say that the iteration's number did not come back, and little else.
    """
    first = curves.first_step(resumed)
    where = [c for c in failed if c.name.startswith("resume: first step is") and c.worst is not None]
    if first is None or not where or where[0].worst is None:
        return None
    expected = int(float(where[0].worst.expected or 0))
    said = [f"the resumed run's first iteration is {first}, expected {expected}"]
    said += [c.message for c in failed if c.kind == "present" and "tracker" in c.message]
    alike = _at_the_same_iterations(continuous, resumed, first)
    if True in alike.values() and False not in alike.values():
        what = (
            "nothing was loaded, training started again"
            if first <= 1
            else f"it loaded {'an older' if first < expected else 'a later'} checkpoint"
        )
        said.insert(1, f"from there on it repeats the uninterrupted run's iterations from {first} on: {what}")
        return Diagnosis("checkpoint", tuple(said))
    if taken_up := _same_as_from(continuous, resumed, first, expected):
        said.insert(
            1,
            f"its `{taken_up}` from iteration {first} on is that of the uninterrupted run from "
            f"{expected} on: only the iteration's number was lost",
        )
        return Diagnosis("iteration", tuple(said))
    if number:
        return Diagnosis("iteration", (*said, *number))
    if len(said) > 1:
        return Diagnosis("checkpoint", tuple(said))
    apart = [metric for metric, same in alike.items() if same is False]
    found = (
        Candidate(
            "checkpoint",
            ("it may have loaded none, or another one",),
            (sentences.unlike(apart, first),) if apart else (),
        ),
        Candidate("iteration", ("its number may have been lost, beside something else",)),
    )
    return Diagnosis("unknown", tuple(said), found)


def _at_the_same_iterations(
    continuous: Mapping[str, Series], resumed: Mapping[str, Series], first: int
) -> dict[str, bool | None]:
    """Whether the resumed run's values are those of the same iterations, from ``first`` on."""
    return {
        metric: curves.same_at_common_steps(line, continuous[metric], first)
        for metric, line in resumed.items()
        if curves.kind_of(metric) in ("loss", "data", "gradient") and metric in continuous
    }


def _same_as_from(
    continuous: Mapping[str, Series], resumed: Mapping[str, Series], first: int, expected: int
) -> str | None:
    """A loss whose values from ``first`` on are the uninterrupted run's from ``expected`` on."""
    for metric, line in resumed.items():
        other = continuous.get(metric)
        if curves.kind_of(metric) != "loss" or other is None:
            continue
        if curves.same_as(line, other, first) == expected:
            return metric
    return None
