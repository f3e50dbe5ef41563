"""Two-sided tolerances, for a run on another machine than the golden's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.words import amount, both, direction, steps

if TYPE_CHECKING:
    from harness.checks.pairing import Pair
    from harness.checks.result import Check

#: Relative to the expected value.
_TABLE = {"lm loss": 1e-3}
_DEFAULT = 2e-2
#: What no hardware changes.
BOOKKEEPING = {
    "learning-rate": 1e-6, "learning-rate-decoupled": 1e-6, "consumed-samples": 0.0, "batch-size": 0.0,
    "batch-digest": 0.0, "loss-scale": 0.0,
}  # fmt: skip


def compare_by_tolerance(pair: Pair, note: str = "") -> Check:
    """Every value within its relative tolerance."""
    import numpy as np

    limit = BOOKKEEPING.get(pair.metric, _TABLE.get(pair.metric, _DEFAULT))
    off = np.abs(pair.actual - pair.expected)
    allowed = limit * np.abs(pair.expected)
    worst = int(np.argmax(off - allowed))
    bad = np.flatnonzero(off > allowed)
    if not bad.size:
        return pair.passed("tolerance", f"within {amount(limit)} relative at {steps(len(pair))}{note}", worst)
    first = int(bad[0])
    message = (
        f"{bad.size} of {steps(len(pair))} are off by more than {amount(limit)} relative, first"
        f" {pair.steps[first]}: {both(pair.expected[first], pair.actual[first])};"
        f" {direction(pair.expected[bad], pair.actual[bad])}{note}"
    )
    return pair.failed("tolerance", message, first=first, worst=worst)
