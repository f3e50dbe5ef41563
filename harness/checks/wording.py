"""How checks say numbers, steps and directions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHOWN_RANGES = 4

#: Said of plain values of a saved state that are noted and not judged: a golden's state holds others.
OTHER_VALUE: Final = "another value than recorded"


def ranges(steps: Iterable[int]) -> str:
    """``1–3, 7, 9–12``; the first few ranges when there are many."""
    spans: list[list[int]] = []
    for step in sorted(steps):
        if spans and step <= spans[-1][1] + 1:
            spans[-1][1] = step
        else:
            spans.append([step, step])
    said = [str(a) if a == b else f"{a}–{b}" for a, b in spans[:_SHOWN_RANGES]]
    more = len(spans) - _SHOWN_RANGES
    return ", ".join(said) + (f" and {more} more" if more > 0 else "")


def direction(expected: NDArray[np.float64], actual: NDArray[np.float64]) -> str:
    """Which way the values went, e.g. ``higher at all 12 of them``."""
    higher, lower = int((actual > expected).sum()), int((actual < expected).sum())
    if higher and lower:
        return f"higher at {higher}, lower at {lower} of them"
    if not higher and not lower:
        return "the sign of zero only"
    count = higher + lower
    return f"{'higher' if higher else 'lower'}{f' at all {count} of them' if count > 1 else ''}"


def number(value: float) -> str:
    """A number to the digits that tell it from another float32, or all digits of a float64."""
    return format(value, ".9g") if abs(value) < 1e15 else repr(value)


def both(expected: float, actual: float) -> str:
    """Two numbers, to as many digits as it takes to tell them apart."""
    a, b = number(expected), number(actual)
    return f"{a} → {b}" if a != b else f"{expected!r} → {actual!r}"


def amount(value: float) -> str:
    """A deviation."""
    return format(value, ".3g")


def steps(count: int) -> str:
    """``1 step``, ``5 steps``."""
    return f"{count} step{'' if count == 1 else 's'}"
