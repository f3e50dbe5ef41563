"""Checks: steps, the exact, tolerance and envelope lanes, bounds, and Megatron-LM's thresholds."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.checks import Check, compare_as_megatron, compare_curves, statistics_of, student
from harness.errors import GoldenError
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


# -- which checks are made -------------------------------------------------------------------------


def test_every_metric_of_either_side_gets_one_check_named_after_it() -> None:
    a = {name: Series(name, STEPS, rough()) for name in ("lm loss", "grad-norm")}
    b = {name: Series(name, STEPS, rough()) for name in ("lm loss", "params-norm")}
    found = compare_curves(a, b, against="continuous", lane="exact", first=1, last=100)
    assert [(c.name, c.passed) for c in found] == [
        ("continuous: lm loss", True), ("continuous: grad-norm", False), ("continuous: params-norm", False),
    ]  # fmt: skip
    assert "the run has no such metric" in found[1].message
    assert "the continuous run has no such metric" in found[2].message


def test_a_metric_that_the_golden_lacks_is_only_mentioned() -> None:
    check = one(None, rough())
    assert (check.passed, check.kind) == (True, "present")
    assert "the golden does not have it" in check.message


def test_only_the_metrics_asked_for_are_compared_and_one_that_neither_side_has_fails() -> None:
    sides = {name: Series(name, STEPS, rough()) for name in ("lm loss", "grad-norm")}
    found = compare_curves(
        sides, sides, against="golden", lane="exact", first=1, last=100, metrics=("lm loss", "mtp loss")
    )
    assert [(c.metric, c.passed) for c in found] == [("lm loss", True), ("mtp loss", False)]


def test_the_size_of_time_and_memory_is_not_compared_with_the_continuous_run() -> None:
    one = {name: Series(name, STEPS, rough()) for name in ("iteration-time", "mem-allocated-bytes")}
    two = {name: Series(name, STEPS, rough() * 9) for name in one}
    found = compare_curves(one, two, against="continuous", lane="exact", first=1, last=100)
    assert [(check.kind, check.passed) for check in found] == [("present", True)] * 2


def test_a_metric_that_the_golden_lacks_must_be_finite_all_the_same() -> None:
    check = one(None, changed(rough(), 4, math.nan))
    assert (check.passed, check.first_bad_step) == (False, 5)


def test_the_note_is_in_every_message() -> None:
    lanes: tuple[Literal["exact", "tolerance"], ...] = ("exact", "tolerance")
    for lane in lanes:
        for actual in (rough(), rough() * 2, rough()[:50], None):
            message = one(rough(), actual, lane, note="torch differs").message
            assert message.endswith("(torch differs)")


def test_importing_the_checks_does_not_import_numpy() -> None:
    code = "import sys, harness.checks; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", ["exact", "tolerance", "envelope"])
@pytest.mark.parametrize(
    ("steps", "first_bad", "said"),
    [
        ([*range(1, 50), *range(51, 101)], 50, "steps missing: 50"),
        (range(1, 91), 91, "steps missing: 91–100"),
        (range(1, 102), 101, "steps logged though not expected: 101"),
        ([*range(1, 101), 100], 100, "steps logged more than once: 100"),
        ([*range(1, 51), *range(41, 101)], 41, "steps logged more than once: 41–50"),
        ([*range(1, 50), 51, 50, *range(52, 101)], 50, "steps logged out of order: 50"),
    ],
)
def test_missing_extra_repeated_and_backward_steps_fail_in_every_lane(
    lane: Literal["exact", "tolerance", "envelope"], steps: list[int], first_bad: int, said: str
) -> None:
    values = rough(length=120)
    actual = Series("lm loss", np.array(list(steps)), values[np.array(list(steps)) - 1])
    check = one(values[:100], actual, lane)
    assert (check.passed, check.first_bad_step) == (False, first_bad)
    assert said in check.message


@pytest.mark.parametrize("lane", ["exact", "tolerance", "envelope"])
@pytest.mark.parametrize(
    ("value", "said"), [(math.nan, "NaN"), (math.inf, "infinity"), (-math.inf, "infinity")]
)
def test_a_value_that_is_not_finite_fails_in_every_lane_on_either_side(
    lane: Literal["exact", "tolerance", "envelope"], value: float, said: str
) -> None:
    broken = changed(rough(), 41, value)
    for expected, actual in ((rough(), broken), (broken, rough()), (broken, broken)):
        check = one(expected, actual, lane, against="continuous")
        assert (check.passed, check.first_bad_step) == (False, 42)
        assert f"has {said} at 42" in check.message


def test_a_step_that_both_sides_logged_twice_fails_all_the_same() -> None:
    twice = Series("lm loss", np.array([1, 2, 2, 3]), np.array([4.0, 3.0, 3.0, 2.0]))
    check = one(twice, twice, against="continuous", last=3)
    assert (check.passed, check.first_bad_step) == (False, 2)
    assert "the continuous run has steps twice or backward: 2" in check.message


def test_a_resumed_run_that_trains_steps_before_k_again_fails() -> None:
    values = rough()
    again = Series("lm loss", STEPS, values)
    check = one(values, again, against="continuous", first=51)
    assert (check.passed, check.first_bad_step) == (False, 1)
    assert "steps logged though not expected: 1–50" in check.message


def test_a_resumed_run_from_k_plus_1_on_passes() -> None:
    values = rough()
    assert one(values, Series("lm loss", STEPS[50:], values[50:]), against="continuous", first=51).passed


def test_a_golden_that_begins_before_the_first_step_may_find_the_same_in_the_run() -> None:
    values = rough(length=101)
    both = Series("lm loss validation", np.arange(101), values)
    assert one(both, both, metric="lm loss validation").passed
    later = Series("lm loss validation", np.arange(-1, 100), values)
    assert not one(both, later, metric="lm loss validation").passed


def test_a_metric_with_an_interval_is_compared_at_its_own_steps() -> None:
    every = Series("lm loss validation", STEPS[9::10], rough()[9::10])
    assert one(every, every, metric="lm loss validation").passed
    fewer = Series("lm loss validation", STEPS[9:90:10], rough()[9:90:10])
    check = one(every, fewer, metric="lm loss validation")
    assert "steps missing: 100" in check.message


def test_a_metric_without_a_step_in_the_window_on_either_side_passes() -> None:
    early = Series("lm loss validation", np.array([40]), np.array([3.0]))
    check = one(early, None, metric="lm loss validation", against="continuous", first=51)
    assert (check.passed, check.kind) == (True, "present")


# -- exact -----------------------------------------------------------------------------------------


@UNHURRIED
@given(st.integers(0, 99), st.sampled_from([np.float32, np.float64]), st.booleans())
def test_one_last_place_at_any_step_fails_exactly_there(at: int, kind: type, up: bool) -> None:
    values = rough()
    near = float(np.nextafter(kind(values[at]), kind(np.inf if up else -np.inf)))
    check = one(values, changed(values, at, near))
    assert (check.passed, check.first_bad_step, check.kind) == (False, at + 1, "exact")
    assert check.worst is not None
    assert (check.worst.expected, check.worst.actual) == (values[at], near)
    assert f"at most 1 ulp of {kind.__name__}" in check.message
    assert ("higher" if up else "lower") in check.message


@UNHURRIED
@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=30))
def test_equal_bits_pass_exactly_and_no_other_values_do(values: list[float]) -> None:
    array = np.array(values)
    assert one(array, array.copy(), last=len(values)).passed
    other = changed(array, 0, float(np.nextafter(array[0], np.inf)))
    if np.isfinite(other).all():
        assert not one(array, other, last=len(values)).passed


def test_minus_zero_is_not_zero() -> None:
    check = one(np.array([1.0, 0.0]), np.array([1.0, -0.0]), last=2)
    assert (check.passed, check.first_bad_step) == (False, 2)
    assert "the sign of zero only" in check.message
    assert "0 → -0" in check.message


def test_equal_after_rounding_is_told_apart_from_equal() -> None:
    check = one(np.array([1.234567, 2.0]), np.array([1.234568, 2.0]), last=2)
    assert not check.passed
    assert "equal only when rounded to 5 decimals" in check.message
    assert "rounded" not in one(np.array([1.0]), np.array([2.0]), last=1).message


def test_the_first_and_the_largest_deviation_are_both_named() -> None:
    values = rough()
    check = one(values, changed(changed(values, 9, values[9] + 0.1), 19, values[19] - 0.5))
    assert check.first_bad_step == 10
    assert check.worst is not None
    assert check.worst.step == 20
    assert check.worst.abs == pytest.approx(0.5)
    assert "higher at 1, lower at 1 of them" in check.message


# -- tolerance -------------------------------------------------------------------------------------


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


# -- envelope --------------------------------------------------------------------------------------


def repeats(count: int, noise: float = 1e-3, seed: int = 0) -> list[dict[str, Series]]:
    """Runs of one training: one curve, noise of their own."""
    rng = np.random.default_rng(seed)
    values = rough(9)
    return [
        {"lm loss": Series("lm loss", STEPS, values * (1 + noise * rng.standard_normal(100)))}
        for _ in range(count)
    ]


def inside(actual: Array, recorded: list[dict[str, Series]], **options: Any) -> Check:
    return one(recorded[0]["lm loss"], actual, "envelope", statistics=statistics_of(recorded), **options)


def test_statistics_are_plain_json_and_state_all_that_is_enforced() -> None:
    found = statistics_of(repeats(4))
    again = json.loads(json.dumps(found))["lm loss"]
    assert again["repeats"] == 4
    assert again["kind"] == "curve"
    assert len(again["center"]) == len(again["spread"]) == len(again["steps"]) == 100
    assert again["windows"] == [1, 2, 4, 8, 16, 32, 64]
    assert len(again["factor"]) == len(again["window_spread"]) == len(again["freedom"]) == 7
    run = repeats(5, seed=3)[4]["lm loss"]
    direct = one(rough(9), run, "envelope", statistics=found)
    assert direct == one(rough(9), run, "envelope", statistics={"lm loss": again})


@pytest.mark.parametrize("count", [3, 5])
def test_runs_with_the_noise_of_the_repeats_pass(count: int) -> None:
    for seed in range(15):
        *recorded, fresh = repeats(count + 1, seed=seed)
        check = inside(fresh["lm loss"].values, recorded)
        assert check.passed, check.message
        assert check.kind == "envelope"


def test_the_mean_of_the_repeats_is_compared_with_not_one_of_them() -> None:
    recorded = repeats(5)
    odd = changed(recorded[0]["lm loss"].values, 50, 0.0)
    assert one(odd, repeats(6, seed=4)[5]["lm loss"], "envelope", statistics=statistics_of(recorded)).passed


def test_one_step_outside_the_envelope_fails_and_is_named() -> None:
    *recorded, fresh = repeats(6)
    values = fresh["lm loss"].values
    check = inside(changed(values, 60, values[60] * 1.03), recorded)
    assert (check.passed, check.first_bad_step) == (False, 61)
    assert "5 repeats" in check.message


def test_a_level_that_no_single_step_shows_fails_by_the_mean_of_many() -> None:
    *recorded, fresh = repeats(6)
    factor = np.where(STEPS > 50, 1.005, 1.0)
    check = inside(fresh["lm loss"].values * factor, recorded)
    assert not check.passed
    assert "the mean of steps" in check.message
    assert "higher" in check.message


def test_a_curve_moved_by_one_step_fails_though_inside_every_envelope() -> None:
    rng = np.random.default_rng(0)
    values = 3 + 0.006 * rng.standard_normal(101)
    runs = [values[:100] * (1 + 1e-3 * rng.standard_normal(100)) for _ in range(6)]
    recorded = [{"lm loss": Series("lm loss", STEPS, run)} for run in runs[:5]]
    assert inside(runs[5], recorded).passed
    check = inside(values[1:] * (1 + 1e-3 * rng.standard_normal(100)), recorded)
    assert not check.passed
    assert "one step later" in check.message


def test_two_noisy_runs_are_compared_with_each_other_by_twice_the_variance() -> None:
    recorded = repeats(5)
    one_run, other = repeats(7, seed=8)[5:]
    check = one(
        one_run["lm loss"], Series("lm loss", STEPS[50:], other["lm loss"].values[50:]), "envelope",
        against="continuous", first=51, statistics=statistics_of(recorded),
    )  # fmt: skip
    assert check.passed, check.message


def test_a_metric_that_was_equal_in_all_repeats_may_be_a_few_last_places_off_and_no_more() -> None:
    values = rough(2)
    recorded = [{"lm loss": Series("lm loss", STEPS, values)} for _ in range(3)]
    assert statistics_of(recorded)["lm loss"]["kind"] == "constant"
    near = float(np.nextafter(np.float32(values[7]), np.float32(9)))
    assert inside(changed(values, 7, near), recorded).passed
    assert not inside(changed(values, 7, values[7] * 1.00001), recorded).passed


def test_two_repeats_are_no_envelope() -> None:
    with pytest.raises(GoldenError, match="an envelope of 2 repeats, expected 3 or more"):
        statistics_of(repeats(2))


def test_repeats_with_other_steps_or_values_that_are_not_finite_are_refused() -> None:
    recorded = repeats(3)
    values = recorded[0]["lm loss"].values
    for broken in (Series("lm loss", STEPS[1:], values[1:]), Series("lm loss", STEPS, values * np.nan)):
        with pytest.raises(GoldenError, match="repeats of lm loss"):
            statistics_of([*recorded, {"lm loss": broken}])


def test_statistics_that_lack_a_field_or_a_step_are_refused_by_name() -> None:
    found = statistics_of(repeats(3))["lm loss"]
    for key in ("kind", "steps", "spread", "factor", "alarm"):
        with pytest.raises(GoldenError, match=f"statistics of lm loss: no '{key}'"):
            one(
                rough(), rough(), "envelope",
                statistics={"lm loss": {name: value for name, value in found.items() if name != key}},
            )  # fmt: skip
    with pytest.raises(GoldenError, match="they lack a step"):
        one(rough(), rough(), "envelope", statistics={"lm loss": {**found, "steps": list(range(2, 102))}})


@pytest.mark.parametrize(
    ("tail", "freedom", "value"),
    [(0.025, 1, 12.7062), (0.025, 10, 2.22814), (0.0005, 2, 31.5991), (1e-5, 1000, 4.28544)],
)
def test_student_s_quantiles_are_those_of_the_tables(tail: float, freedom: float, value: float) -> None:
    assert student.quantile(tail, freedom) == pytest.approx(value, rel=1e-4)
    assert student.survival(value, freedom) == pytest.approx(tail, rel=1e-3)


# -- time and memory -------------------------------------------------------------------------------


def times(median: float = 0.1, first: float = 8.0, spread: float = 0.02) -> Array:
    rng = np.random.default_rng(0)
    values = median * (1 + spread * rng.standard_normal(100))
    values[0] = first
    values[49] *= 10  # a save
    return np.asarray(values)


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


# -- Megatron-LM's thresholds ----------------------------------------------------------------------


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


def test_a_metric_that_the_case_does_not_name_must_be_finite_all_the_same() -> None:
    one = {name: series_of(name, [1.0] * 20) for name in ("lm loss", "num-zeros")}
    two = {**one, "lm loss": series_of("lm loss", [1.0] * 19 + [math.nan])}
    named = {"metrics": ["num-zeros"], "against": "golden", "lane": "exact", "first": 1, "last": 20}
    assert [check.passed for check in compare_curves(one, one, **named)] == [True]  # type: ignore[arg-type]
    failed = [check.metric for check in compare_curves(one, two, **named) if not check.passed]  # type: ignore[arg-type]
    assert failed == ["lm loss"]


def series_of(name: str, values: list[float]) -> Series:
    return Series(name, np.arange(1, len(values) + 1, dtype=np.int64), np.array(values, np.float64))
