"""How far a check let a value be from what was expected: the band that a plot shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.checks import Check

Values = Mapping[int, float]


def half_widths(
    check: Check,
    expected: Values,
    actual: Values,
    statistics: Mapping[str, Any] | None,
    rounding: str = "",
) -> dict[int, float]:
    """How far ``actual`` may be from ``expected`` at each step that both have.

    Args:
        check: by tolerance or envelope, of a metric.
        statistics: the metric's, from the golden.
        rounding: the verdict's, see :class:`harness.metrics.known.Tolerance`.

    Returns:
        By step; empty where a check asks something else of a step than a distance (counts, a moved
        curve), or cannot be asked again.
    """
    steps = [
        s for s in sorted(expected) if math.isfinite(expected[s]) and math.isfinite(actual.get(s, math.nan))
    ]
    if not steps or check.metric is None:
        return {}
    if check.kind == "envelope":
        return _envelope(check, steps, statistics) if statistics else {}
    import numpy as np

    from harness.checks import tolerance
    from harness.checks.pairing import Pair
    from harness.metrics.known import about

    pair = Pair(check.metric, check.against, np.asarray(steps, np.int64),
                np.asarray([expected[s] for s in steps]), np.asarray([actual[s] for s in steps]))  # fmt: skip
    judged = about(check.metric).judged
    if judged == "count":
        return {}
    if judged == "rate":
        return {s: tolerance.RATE_LIMIT * abs(expected[s]) for s in steps}
    allowed = tolerance.tolerance_of(check.metric, rounding)
    size = tolerance.scale(pair.expected, allowed.least)
    limits = tolerance.limits_of(pair, allowed, np.abs(pair.actual - pair.expected) / size)
    return dict(zip(steps, (limits * size).tolist(), strict=True))


def _envelope(check: Check, steps: list[int], statistics: Mapping[str, Any]) -> dict[int, float]:
    """Of single steps; longer windows are held to less."""
    try:
        repeats = int(statistics["repeats"])
        spread = dict(zip(statistics["steps"], statistics["spread"], strict=True))
        factor = float(statistics["factor"][0]) * float(statistics["window_spread"][0])
    except (KeyError, TypeError, ValueError, IndexError):
        return {}
    widened = factor * math.sqrt(1 + 1 / repeats if check.against == "golden" else 2.0)
    return {step: widened * float(spread[step]) for step in steps if step in spread}
