"""Megatron-LM's own thresholds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from harness.checks import Check, compare_as_megatron
from harness.metrics import Series
from tests.checks.made import Array, changed, rough, times


def legacy(expected: Array, actual: Array, metric: str = "lm loss", **options: Any) -> Check:
    a, b = ({metric: Series(metric, np.arange(1, len(v) + 1), v)} for v in (expected, actual))
    (check,) = compare_as_megatron(a, b, **{"against": "golden", "last": len(expected), **options})
    return check


def test_the_legacy_gate_forgives_what_rounds_to_five_decimals() -> None:
    values = np.round(rough(), 5)
    assert legacy(values, values + 4e-6).passed
    check = legacy(values, changed(values, 9, values[9] + 2e-5))
    assert (check.passed, check.first_bad_step, check.kind) == (False, 10, "legacy")


def test_the_legacy_gate_forgives_one_step_in_a_hundred_and_five_percent() -> None:
    values = rough()
    assert legacy(values, values * 1.049, deterministic=False).passed
    assert legacy(values, changed(values, 9, 100.0), deterministic=False).passed
    assert not legacy(values, changed(changed(values, 9, 100.0), 19, 100.0), deterministic=False).passed


def test_the_legacy_gate_takes_nan_and_missing_for_equal() -> None:
    nothing = np.full(100, math.nan)
    assert legacy(nothing, nothing).passed
    assert legacy(nothing, np.full(50, math.nan)).passed
    assert not legacy(rough(), nothing).passed


def test_the_legacy_gate_looks_at_a_resumed_run_after_half_only() -> None:
    values = rough()
    wrong_before = changed(values, 10, 100.0)
    assert legacy(values, wrong_before, against="continuous").passed
    assert not legacy(values, changed(values, 50, 100.0), against="continuous").passed


def test_the_legacy_gate_fails_a_time_that_is_better() -> None:
    assert legacy(times(), times(), "iteration-time").passed
    assert not legacy(times(), times(0.09), "iteration-time").passed
