"""Curves to compare, and the one check of two of them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from harness.checks import Check, compare_curves
from harness.metrics import Series

Array = NDArray[np.float64]
STEPS = np.arange(1, 101)
#: A loaded machine is no reason to fail.
UNHURRIED = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def rough(seed: int = 0, length: int = 100) -> Array:
    """A falling curve with the noise of batches, as float32 values."""
    rng = np.random.default_rng(seed)
    steps = np.arange(1, length + 1)
    values = 2 + 8 / np.sqrt(steps) + 0.05 * rng.standard_normal(length)
    return np.asarray(values.astype(np.float32).astype(np.float64))


def one(
    expected: Array | Series | None,
    actual: Array | Series | None,
    lane: Literal["exact", "tolerance", "envelope"] = "exact",
    *,
    metric: str = "lm loss",
    against: Literal["golden", "continuous"] = "golden",
    first: int = 1,
    last: int = 100,
    **options: Any,
) -> Check:
    """The one check of one metric."""

    def series(side: Array | Series | None) -> dict[str, Series]:
        if side is None:
            return {}
        if isinstance(side, Series):
            return {metric: side}
        return {metric: Series(metric, np.arange(1, len(side) + 1), side)}

    (check,) = compare_curves(
        series(expected), series(actual), against=against, lane=lane, first=first, last=last, **options
    )
    return check


def changed(values: Array, at: int, to: float) -> Array:
    copy = values.copy()
    copy[at] = to
    return copy


def series_of(name: str, values: list[float]) -> Series:
    return Series(name, np.arange(1, len(values) + 1, dtype=np.int64), np.array(values, np.float64))


def times(median: float = 0.1, first: float = 8.0, spread: float = 0.02) -> Array:
    rng = np.random.default_rng(0)
    values = median * (1 + spread * rng.standard_normal(100))
    values[0] = first
    values[49] *= 10  # a save
    return np.asarray(values)
