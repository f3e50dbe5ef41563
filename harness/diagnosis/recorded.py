"""A run that is the recorded one, bit for bit, and saves something else: what it does not save any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.diagnosis.curves import kind_of
from harness.diagnosis.result import PARAMETERS, Finding

if TYPE_CHECKING:
    from harness.checks import Check

_STATE = "golden: state: "
_TRAINING = ("loss", "gradient", "parameters")


def no_longer_saved(checks: Sequence[Check]) -> list[Finding]:
    """Components whose saved state is another than the golden's, though all of training is the same.

    Args:
        checks: all of a verdict's.
    """
    curves = [c for c in checks if c.metric and c.name.startswith("golden: ") and c.kind == "exact"]
    if not any(kind_of(c.metric or "") in _TRAINING for c in curves) or not all(c.passed for c in curves):
        return []
    states = [check for check in checks if check.name.startswith(_STATE)]
    lost = {c.name.removeprefix(_STATE): c.message for c in states if not c.passed}
    if not lost or len(lost) == len(states):
        return []
    if len(kinds := [component for component in lost if component in PARAMETERS]) > 1:
        lost = {"weights": "; ".join(lost[c] for c in kinds)} | {
            c: said for c, said in lost.items() if c not in PARAMETERS
        }
    return [
        Finding(
            c, f"the uninterrupted run trains as recorded, bit for bit, and what it saves is another: {said}"
        )
        for c, said in lost.items()
    ]
