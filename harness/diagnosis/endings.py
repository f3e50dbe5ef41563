"""A resumed run that trains on where the uninterrupted one stopped of itself, and is right up to there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.diagnosis import curves
from harness.diagnosis.result import Diagnosis

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.metrics import Series

_ENDS = "resume: came to iteration"
_OF_TRAINING = ("data", "rate", "scale", "loss", "gradient", "parameters")


def trained_on(
    failed: Sequence[Check], continuous: Mapping[str, Series], resumed: Mapping[str, Series]
) -> Diagnosis | None:
    """What decides when to stop was lost: where nothing but the end differs.

    A run that ends before the other did says nothing of that: its data may have come to an end.

    Args:
        failed: the checks that did not hold.
        continuous: the uninterrupted run's curves.
        resumed: the resumed run's.
    """
    if not any(check.name.startswith(_ENDS) for check in failed):
        return None
    whole, run = curves.last_step(continuous), curves.last_step(resumed)
    first = curves.first_step(resumed)
    if whole is None or run is None or first is None or run <= whole:
        return None
    alike = [
        curves.same_at_common_steps(line, continuous[metric], first)
        for metric, line in resumed.items()
        if metric in continuous and curves.kind_of(metric) in _OF_TRAINING
    ]
    if True not in alike or False in alike:
        return None
    how = f"the resumed run trains on to iteration {run}; the uninterrupted one stopped of itself at {whole}"
    why = (
        "up to there all curves of training that both logged are equal: what decides when to stop was "
        "lost, such as the count of early stopping or the best value so far"
    )
    return Diagnosis("buffers", (how, why))
