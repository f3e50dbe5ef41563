"""What a comparison found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Against = Literal["golden", "continuous", "state"]
Kind = Literal["exact", "tolerance", "envelope", "upper-bound", "present", "legacy"]


@dataclass(frozen=True)
class Worst:
    """The worst deviation of a check.

    Args:
        step: where; None for something that has no step.
        expected, actual: the two values; numbers of a series, or words about state.
        abs: |actual − expected|; filled in when both are finite numbers.
        rel: |actual − expected| / |expected|; likewise, None where expected is 0.
    """

    step: int | None
    expected: float | str | None
    actual: float | str | None
    abs: float | None = None
    rel: float | None = None

    def __post_init__(self) -> None:
        a, b = self.expected, self.actual
        if self.abs is not None or isinstance(a, (str, type(None))) or isinstance(b, (str, type(None))):
            return
        if math.isfinite(a) and math.isfinite(b):
            object.__setattr__(self, "abs", abs(b - a))
            if a:
                object.__setattr__(self, "rel", abs(b - a) / abs(a))


@dataclass(frozen=True)
class Check:
    """One comparison.

    Args:
        name: unique in a verdict, e.g. ``golden: lm loss``.
        metric: the series it is about; None for a check of state or presence.
        against: what it was compared with.
        kind: how.
        passed: whether it held.
        first_bad_step: the first iteration at which it did not; None where it held.
        worst: the largest deviation; None where there is none to show.
        message: one sentence for a person, passed or not.
    """

    name: str
    metric: str | None
    against: Against
    kind: Kind
    passed: bool
    first_bad_step: int | None = None
    worst: Worst | None = None
    message: str = ""
