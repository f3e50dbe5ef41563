"""One-sided upper bounds for time and memory: slower or bigger fails, better is reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.checks.pairing import Pair
    from harness.checks.result import Check

TIME = "iteration-time"


def is_bounded(metric: str) -> bool:
    """Whether a metric is a cost, judged by an upper bound only."""
    return metric == TIME or metric.startswith("mem-")


def compare_upper_bound(
    pair: Pair, *, enforce: bool, statistics: Mapping[str, Any] | None = None, note: str = ""
) -> Check:
    """The median must not be far above the golden's."""
    import numpy as np

    a, b = float(np.median(pair.expected)), float(np.median(pair.actual))
    factor = 3.0 if pair.metric == TIME else 1.5
    ratio = b / a if a else 1.0
    message = f"median {b:.4g} against {a:.4g}, {ratio:.2f}×, bound {factor:.2f}×{note}"
    worst = int(np.argmax(pair.actual))
    if not enforce:
        return pair.passed("upper-bound", message + " (not enforced: another machine)", worst)
    if ratio <= factor:
        return pair.passed("upper-bound", message, worst)
    return pair.failed("upper-bound", message, first=worst, worst=worst)
