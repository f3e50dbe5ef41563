"""Time and memory: slower or bigger fails, better is reported."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks import compare_curves, statistics_of
from harness.checks.bounds import steady, typical
from harness.metrics import Series
from tests.checks.made import STEPS, UNHURRIED, Array, changed, one, series_of, times


def test_slower_fails_and_faster_passes() -> None:
    for factor, passes in ((0.2, True), (1.0, True), (1.2, True), (1.4, False)):
        check = one(times(), times(0.1 * factor), metric="iteration-time")
        assert (check.passed, check.kind) == (passes, "upper-bound")


def test_a_slow_first_step_and_a_slow_save_do_not_count() -> None:
    assert one(times(), changed(times(first=100.0), 49, 50.0), metric="iteration-time").passed


def test_the_spread_of_repeats_widens_the_bound_of_a_time() -> None:
    recorded = [{"iteration-time": Series("iteration-time", STEPS, times(t))} for t in (0.1, 0.12, 0.14, 0.1)]
    found = statistics_of(recorded)
    slow = times(0.16)
    assert not one(times(), slow, metric="iteration-time").passed
    assert one(times(), slow, metric="iteration-time", statistics=found).passed


def test_a_bound_that_is_not_enforced_is_still_said() -> None:
    for option in ("enforce_bounds", "enforce_time"):
        options: dict[str, Any] = {option: False}
        check = one(times(), times(0.5), metric="iteration-time", **options)
        assert check.passed
        assert "not enforced" in check.message


def test_the_time_of_a_disturbed_run_is_not_judged() -> None:
    rng = np.random.default_rng(1)
    check = one(times(), 0.2 * (1 + 3 * rng.random(100)), metric="iteration-time")
    assert check.passed
    assert "disturbed" in check.message


@pytest.mark.parametrize("metric", ["mem-allocated-bytes", "mem-max-allocated-bytes"])
def test_memory_may_shrink_and_not_grow(metric: str) -> None:
    golden = np.full(100, 8.0 * (1 << 30))
    for factor, passes in ((0.5, True), (1.03, True), (1.1, False)):
        assert one(golden, golden * factor, metric=metric, enforce_time=False).passed is passes


def test_a_missing_step_of_a_time_fails_even_where_bounds_are_not_enforced() -> None:
    check = one(times(), times()[:90], metric="iteration-time", enforce_bounds=False)
    assert not check.passed


@pytest.mark.parametrize("metric", ["forward-backward-time", "optimizer-inner-step-time", "epoch_time"])
def test_any_timer_is_bounded_from_above_only_and_with_a_golden_only(metric: str) -> None:
    one, two = ({metric: series_of(metric, [value] * 20)} for value in (1.0, 0.5))
    (there,) = compare_curves(one, two, against="continuous", lane="exact", first=1, last=20)
    assert (there.kind, there.passed) == ("present", True)
    (better,) = compare_curves(one, two, against="golden", lane="exact", first=1, last=20)
    (worse,) = compare_curves(two, one, against="golden", lane="exact", first=1, last=20)
    assert (better.kind, better.passed, worse.passed) == ("upper-bound", True, False)


@pytest.mark.parametrize("metric", ["throughput/device/tflops", "tokens_per_second", "samples/sec"])
def test_work_per_second_is_not_judged(metric: str) -> None:
    one, two = ({metric: series_of(metric, [value] * 20)} for value in (1.0, 0.5))
    for found in (
        compare_curves(one, two, against="golden", lane="exact", first=1, last=20),
        compare_curves(one, two, against="continuous", lane="exact", first=1, last=20),
    ):
        assert [(check.kind, check.passed) for check in found] == [("present", True)]


@pytest.mark.parametrize("metric", ["iteration-time", "mem-allocated-bytes", "samples/sec"])
@pytest.mark.parametrize("values", [[], [math.nan] * 20, [1.0] * 19 + [math.inf]])
def test_a_measurement_that_is_missing_or_not_finite_fails_though_its_size_is_not_judged(
    metric: str, values: list[float]
) -> None:
    one = {metric: series_of(metric, [1.0] * 20)}
    two = {metric: series_of(metric, values)} if values else {}
    (check,) = compare_curves(one, two, against="continuous", lane="exact", first=1, last=20)
    assert not check.passed


TIMES = st.lists(st.floats(0, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0]), min_size=1)


@UNHURRIED
@given(values=TIMES.map(np.array) | st.integers(1, 3000).map(lambda n: np.random.default_rng(n).random(n)))
def test_what_is_typical_of_a_time_is_the_median_as_numpy_has_it(values: Array) -> None:
    before = values.copy()
    with np.errstate(over="ignore"):
        wanted = np.median(steady(values)) + 0.0
    assert np.float64(typical("iteration-time", values)).tobytes() == wanted.tobytes()
    assert np.array_equal(values, before)
