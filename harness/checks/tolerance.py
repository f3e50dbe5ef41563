"""Two-sided tolerances, for a run on another machine than the golden's.

Another machine's rounding starts at the last place and grows along the curve. Three things are asked of the
deviation: that it is small enough (:mod:`harness.metrics.known` says how small, and far smaller in the first
steps), that no step or level departs from its neighbourhood, and that the curve is none that was moved by a
step. What no hardware changes (there ``exact`` and ``rate``) must be equal. ``docs/sensitivity.md`` has what
each is worth.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from harness.checks import shape
from harness.checks.exact import compare_exactly
from harness.checks.wording import amount, both, direction, steps
from harness.metrics.known import about

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.checks.pairing import Pair
    from harness.checks.result import Check
    from harness.metrics.known import Tolerance

    Array = NDArray[np.float64]


#: How far apart they may be at the first step, where both have the same weights: of metrics that grow.
_FIRST_ROUNDING: Final = {"fp32": 2e-6, "bf16": 1e-4}
RATE_LIMIT: Final = 1e-6

#: A first step that is off by less is taken as off by this, a few units in the last place of float32.
_FIRST = 5e-7
#: What rounding may grow to in the first ten steps, and how many steps it then takes to grow tenfold.
_EARLY_GROWTH, _TENFOLD = 1e3, 10
_SHIFT_LIMIT = 12.0


def tolerance_of(metric: str, rounding: str = "") -> Tolerance:
    """What a metric is allowed; ``rounding`` is the model's precision, empty where nobody knows."""
    allowed, precision = about(metric).tolerance, "bf16" if rounding == "fp16" else rounding
    first = _FIRST_ROUNDING.get(precision) if allowed.grows else None
    return replace(allowed, cap=allowed.rounding.get(precision, allowed.cap), first=first)


def compare_by_tolerance(pair: Pair, note: str = "", rounding: str = "") -> Check:
    """Judge the size and the shape of the deviation, by the metric's tolerance.

    Whole numbers that no float holds are digests or counts: no hardware changes them.

    Args:
        note: added to the message.
        rounding: as of :func:`tolerance_of`.
    """
    judged = about(pair.metric).judged
    if judged == "exact" or pair.whole() is not None:
        return compare_exactly(pair, note)
    if judged == "rate":
        return _rate(pair, note)
    if judged == "count":
        return _count(pair, note)
    import numpy as np

    tolerance = tolerance_of(pair.metric, rounding)
    size = scale(pair.expected, tolerance.least)
    deviation = (pair.actual - pair.expected) / size
    off = np.abs(deviation)
    worst = int(np.argmax(off))
    limits = limits_of(pair, tolerance, off)
    bad = np.flatnonzero(off > limits)
    found, said = [], []
    if bad.size:
        first = int(bad[0])
        found.append(first)
        early = " so early in the run" if limits[first] < tolerance.cap else ""
        said.append(
            f"{bad.size} of {steps(len(pair))} {'is' if bad.size == 1 else 'are'} off by more than"
            f" {amount(float(limits[first]))} relative{early}, first {pair.steps[first]}:"
            f" {both(pair.expected[first], pair.actual[first])}, {amount(float(off[first]))};"
            f" {direction(pair.expected[bad], pair.actual[bad])}"
        )
    if off[worst] > tolerance.floor:
        for odd in _shapes(pair, deviation, size, tolerance):
            found.append(odd.at)
            said.append(f"at step {pair.steps[odd.at]} {odd.what}")
    if found:
        return pair.failed("tolerance", "; ".join(said) + note, first=min(found), worst=worst)
    message = (
        f"off by at most {amount(float(off[worst]))} relative (limit {amount(tolerance.cap)}) over"
        f" {steps(len(pair))}{note}"
    )
    return pair.passed("tolerance", message, worst)


def scale(expected: Array, least: float) -> Array:
    """What deviations are relative to: each value's size, or ``least`` times the curve's typical one."""
    import numpy as np

    size = np.abs(expected)
    typical = least * float(np.median(size))
    found: Array = np.maximum(size, typical if typical > 0 else max(float(size.max()), 1e-30))
    return found


def _shapes(pair: Pair, deviation: Array, size: Array, tolerance: Tolerance) -> list[shape.Odd]:
    """What in the deviation is not noise."""
    found = (
        shape.jump(deviation, tolerance.floor, widths=tolerance.widths, limit=tolerance.jump),
        shape.shift(pair.expected, deviation, size, tolerance.floor, limit=_SHIFT_LIMIT),
    )
    return [odd for odd in found if odd]


def limits_of(pair: Pair, tolerance: Tolerance, off: Array) -> Array:
    """How much each step may be off: the cap, and less where rounding cannot have grown to it yet."""
    import numpy as np

    limits = np.full(len(pair), tolerance.cap)
    if tolerance.grows and len(pair) > 1 and pair.steps[1] == pair.steps[0] + 1:
        passed = np.minimum(pair.steps - pair.steps[0], 400)
        grown = _EARLY_GROWTH * 10.0 ** (np.maximum(0, passed - _TENFOLD) / _TENFOLD)
        limits[1:] = np.minimum(limits[1:], (max(float(off[0]), _FIRST) * grown)[1:])
        if tolerance.first is not None and pair.steps[0] <= 1:
            limits[0] = tolerance.first
    return limits


def _rate(pair: Pair, note: str) -> Check:
    import numpy as np

    off = np.abs(pair.actual - pair.expected)
    allowed = RATE_LIMIT * np.abs(pair.expected)
    bad = np.flatnonzero(off > allowed)
    worst = int(np.argmax(off))
    if not bad.size:
        message = f"equal within {RATE_LIMIT:g} relative, as no hardware changes it, at {steps(len(pair))}"
        return pair.passed("tolerance", message + note, worst)
    first = int(bad[0])
    ratio = pair.actual[first] / pair.expected[first] if pair.expected[first] else float("inf")
    message = (
        f"no hardware changes it, and {bad.size} of {steps(len(pair))} differ{'s' if bad.size == 1 else ''},"
        f" first {pair.steps[first]}: {both(pair.expected[first], pair.actual[first])}, ratio {ratio:.6g};"
        f" {direction(pair.expected[bad], pair.actual[bad])}{note}"
    )
    return pair.failed("tolerance", message, first=first, worst=worst)


def _count(pair: Pair, note: str) -> Check:
    """The median of the differences, against half of the count and five times its square root."""
    import numpy as np

    off = np.abs(pair.actual - pair.expected)
    typical = float(np.median(np.abs(pair.expected)))
    allowed = 0.5 * typical + 5 * np.sqrt(typical) + 10
    middle, worst = float(np.median(off)), int(np.argmax(off))
    message = f"off by {amount(middle)} in the median (limit {amount(allowed)}) over {steps(len(pair))}{note}"
    if middle <= allowed:
        return pair.passed("tolerance", message, worst)
    first = int(np.flatnonzero(off > allowed)[0])
    return pair.failed("tolerance", message, first=first, worst=worst)
