"""Bit for bit, told apart from equal after rounding."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from harness.checks.wording import amount, both, direction, steps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.checks.pairing import Pair
    from harness.checks.result import Check

_MOST_DECIMALS = 15


def compare_exactly(pair: Pair, note: str = "") -> Check:
    """Every value must have the same bits: one ulp fails, and so does −0.0 for 0.0.

    Whole numbers that no float holds are compared as they are.
    """
    import numpy as np

    whole = pair.whole()
    if whole is not None:
        return _compare_whole(pair, *whole, note)
    apart = pair.expected.view(np.int64) != pair.actual.view(np.int64)
    if not apart.any():
        return pair.passed("exact", f"equal bit for bit at {steps(len(pair))}{note}")
    where = np.flatnonzero(apart)
    a, b = pair.expected[where], pair.actual[where]
    first, worst = int(where[0]), int(where[np.argmax(np.abs(b - a))])
    parts = [
        f"{where.size} of {steps(len(pair))} differ{'s' if where.size == 1 else ''}, first"
        f" {pair.steps[first]}: {both(pair.expected[first], pair.actual[first])}",
        direction(a, b),
    ]
    if worst != first:
        parts.append(f"largest at step {pair.steps[worst]}, {amount(float(np.abs(b - a).max()))}")
    parts.append(closeness(a, b))
    return pair.failed("exact", "; ".join(p for p in parts if p) + note, first=first, worst=worst)


def _compare_whole(pair: Pair, expected: list[float], actual: list[float], note: str) -> Check:
    """Python's numbers, of which some are no float's: two of those may be one float."""
    bad = [i for i, (a, b) in enumerate(zip(expected, actual, strict=True)) if a != b or _sign(a) != _sign(b)]
    if not bad:
        return pair.passed("exact", f"equal bit for bit at {steps(len(pair))}{note}")
    first = bad[0]
    worst = max(bad, key=lambda i: abs(Fraction(actual[i]) - Fraction(expected[i])))
    higher = sum(actual[i] > expected[i] for i in bad)
    lower = sum(actual[i] < expected[i] for i in bad)
    mixed = f"higher at {higher}, lower at {lower} of them"
    ways = mixed if higher and lower else "higher" if higher else "lower"
    one = sum(float(expected[i]) == float(actual[i]) for i in bad)
    parts = [
        f"{len(bad)} of {steps(len(pair))} differ{'s' if len(bad) == 1 else ''}, first {pair.steps[first]}:"
        f" {expected[first]!r} → {actual[first]!r}",
        ways,
        f"as float64 {one} of them would be equal" if one else "",
    ]
    return pair.failed("exact", "; ".join(p for p in parts if p) + note, first=first, worst=worst)


def _sign(value: float) -> float:
    return math.copysign(1.0, value)


def closeness(a: NDArray[np.float64], b: NDArray[np.float64]) -> str:
    """How near different values are: in units in the last place, and to which decimal they round alike."""
    import numpy as np

    single = bool(np.all(_is_single(a)) and np.all(_is_single(b)))
    ulps = _ulps(a.astype(np.float32), b.astype(np.float32), np.int32) if single else _ulps(a, b, np.int64)
    said = f"at most {ulps} ulp of {'float32' if single else 'float64'}" if ulps < 1 << 20 else ""
    decimals = next(
        (d for d in range(_MOST_DECIMALS, -1, -1) if np.array_equal(np.round(a, d), np.round(b, d))), None
    )
    if decimals is None:
        return said
    return f"{said}{', ' if said else ''}equal only when rounded to {decimals} decimals"


def _is_single(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    import numpy as np

    with np.errstate(over="ignore"):
        return np.asarray(values.astype(np.float32).astype(np.float64) == values)


def _ulps(a: NDArray[np.floating], b: NDArray[np.floating], kind: type) -> int:
    """The most steps of the last place between two values of the arrays."""
    import numpy as np

    lowest = np.iinfo(kind).min

    def ordered(values: NDArray[np.floating]) -> list[int]:
        # Sign and magnitude → one increasing scale, in Python's integers, which do not overflow.
        return [int(lowest) - int(v) if v < 0 else int(v) for v in values.view(kind)]

    return max((abs(x - y) for x, y in zip(ordered(a), ordered(b), strict=True)), default=0)
