"""By the table of tolerances, and by the shape of a deviation."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics import Series
from tests.checks.made import STEPS, UNHURRIED, Array, changed, one, rough


def drifted(values: Array, seed: int, last: float = 1e-4) -> Array:
    """As another machine would have it: deviations that grow from the last place to ``last``, relative."""
    rng = np.random.default_rng(seed)
    size = 1e-7 * (last / 1e-7) ** (np.arange(len(values)) / len(values))
    return np.asarray(values * (1 + size * rng.standard_normal(len(values))))


@UNHURRIED
@given(st.integers(0, 10_000), st.sampled_from([1e-7, 1e-6, 1e-5, 1e-4, 1e-3]))
def test_rounding_that_grows_along_the_curve_passes_by_tolerance(seed: int, last: float) -> None:
    values = rough(seed)
    check = one(values, drifted(values, seed + 1, last), "tolerance")
    assert check.passed, check.message


@UNHURRIED
@given(st.integers(0, 10_000), st.sampled_from([1, -1]), st.integers(0, 60))
def test_a_curve_moved_by_one_step_from_any_step_on_fails_by_tolerance(
    seed: int, by: int, after: int
) -> None:
    values = rough(seed, 102)[1:]
    moved = np.concatenate([values[:after], np.roll(rough(seed, 102), -by)[1:][after:]])[:100]
    assert not one(values[:100], drifted(moved, seed), "tolerance").passed


def test_a_smooth_curve_moved_by_one_step_within_the_cap_is_told_by_its_shape() -> None:
    rng = np.random.default_rng(1)
    values = 3 + 0.003 * rng.standard_normal(101)
    check = one(values[:100], drifted(values[1:], 2), "tolerance")
    assert not check.passed
    assert "fits the expected values of one step later" in check.message


@pytest.mark.parametrize("after", [20, 50, 80])
def test_a_factor_of_1_001_after_k_fails_by_tolerance_at_k_plus_1(after: int) -> None:
    values = rough()
    factor = np.where(after < STEPS, 1.001, 1.0)
    check = one(values, drifted(values, 3, 1e-5) * factor, "tolerance")
    assert not check.passed
    assert check.first_bad_step is not None
    assert abs(check.first_bad_step - (after + 1)) <= 1
    assert "depart from their neighbours" in check.message or "departs from its" in check.message


def test_swapping_two_steps_fails_by_tolerance() -> None:
    values = rough()
    swapped = values.copy()
    swapped[[39, 40]] = values[[40, 39]]
    check = one(values, drifted(swapped, 4), "tolerance")
    assert (check.passed, check.first_bad_step) == (False, 40)


@pytest.mark.parametrize("at", [5, 40, 70])
def test_one_wrong_step_fails_by_tolerance_and_is_named(at: int) -> None:
    values = rough()
    check = one(values, drifted(changed(values, at, values[at] * 1.002), 4, 1e-5), "tolerance")
    assert (check.passed, check.first_bad_step) == (False, at + 1)


def test_a_deviation_too_large_for_the_first_steps_fails_though_below_the_cap() -> None:
    values = rough()
    check = one(values, changed(values, 3, values[3] * 1.003), "tolerance")
    assert (check.passed, check.first_bad_step) == (False, 4)
    assert "so early in the run" in check.message


def test_a_curve_with_another_first_step_is_not_held_to_the_early_limit() -> None:
    values = rough()
    rng = np.random.default_rng(5)
    assert one(values, values * (1 + 2e-3 * rng.standard_normal(100)), "tolerance").passed


@pytest.mark.parametrize("metric", ["batch-digest", "consumed-samples", "loss-scale", "batch-size"])
def test_what_no_hardware_changes_must_be_equal_by_tolerance_too(metric: str) -> None:
    values = np.floor(rough() * 1000)
    assert one(values, values.copy(), "tolerance", metric=metric).passed
    check = one(values, changed(values, 9, values[9] + 1), "tolerance", metric=metric)
    assert (check.passed, check.first_bad_step) == (False, 10)


@pytest.mark.parametrize("metric", ["learning-rate", "decoupled-learning-rate", "lr"])
def test_a_learning_rate_is_held_to_a_millionth_and_its_ratio_is_said(metric: str) -> None:
    rates = 1e-3 * STEPS / 100
    assert one(rates, rates * (1 + 1e-7), "tolerance", metric=metric).passed
    check = one(rates, rates * 1.02, "tolerance", metric=metric)
    assert (check.passed, check.first_bad_step) == (False, 1)
    assert "ratio 1.02" in check.message


def test_a_count_of_zeros_is_judged_by_its_median_only() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(200, 100).astype(float)
    assert one(counts, rng.poisson(200, 100).astype(float), "tolerance", metric="num-zeros").passed
    assert one(counts * 0, rng.poisson(2, 100).astype(float), "tolerance", metric="num-zeros").passed
    assert not one(counts, counts * 3, "tolerance", metric="num-zeros").passed


def test_a_metric_around_zero_is_judged_by_its_typical_size() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(100)
    values[50] = 0.0
    assert one(values, values + 1e-4, "tolerance", metric="mean logit").passed


@pytest.mark.parametrize("lane", ["exact", "tolerance"])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 9, 20, 30])
@pytest.mark.parametrize("value", [0.0, 1.0, -2.0])
def test_short_and_constant_curves_pass_when_equal_and_fail_when_doubled(
    lane: Literal["exact", "tolerance"], length: int, value: float
) -> None:
    values = np.full(length, value)
    assert one(values, values.copy(), lane, last=length).passed
    assert not one(values, values * 2 + 1, lane, last=length).passed


def test_digests_that_no_float_holds_are_equal_on_any_machine() -> None:
    numbers = [(1 << 62) + step for step in range(20)]
    one_, other = (
        Series.of("digest", range(1, 21), each) for each in (numbers, [*numbers[:-1], numbers[-1] + 1])
    )
    assert one(one_, one_, "tolerance", metric="digest", last=20).passed
    check = one(one_, other, "tolerance", metric="digest", last=20)
    assert (check.passed, check.first_bad_step, check.kind) == (False, 20, "exact")
