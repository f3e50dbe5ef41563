"""Curves of a run that another side has resumed, held against what the two sides' own runs measure."""

from __future__ import annotations

import numpy as np
import pytest

from harness.checks.measured import FAR, LAST_PLACE, Measured, compare_as_measured, same_curves
from harness.metrics import Series

N, K = 20, 10
STEPS = np.arange(1, N + 1)


def curves(loss: float = 0.0, **others: float) -> dict[str, Series]:
    """Curves that are off by so much, relative; ``batch_digest``: by whole numbers."""
    values = {
        "lm loss": (3.0 - 0.05 * STEPS) * (1 + loss),
        "batch-digest": 1000.0 * STEPS + others.get("batch_digest", 0.0),
        "num-zeros": 100.0 + others.get("zeros", 0.0) * np.ones(N),
    }
    return {name: Series(name, STEPS, np.asarray(value, np.float64)) for name, value in values.items()}


def after(series: dict[str, Series]) -> dict[str, Series]:
    return {name: one.kept(one.steps > K) for name, one in series.items()}


def found(resumed: dict[str, Series], other: dict[str, Series], *, alike: bool = True) -> dict[str, Measured]:
    same = same_curves(curves(), other) and alike
    judged = compare_as_measured(curves(), after(resumed), other, k=K, same=same)
    return {one.check.metric or "": one for one in judged}


def test_the_same_bits_are_exact() -> None:
    assert all(one.exact and one.check.passed for one in found(curves(), curves(loss=1e-3)).values())


def test_what_two_sides_do_not_measure_is_not_allowed() -> None:
    loss = found(curves(loss=1e-12), curves())["lm loss"]
    assert not loss.check.passed
    assert loss.check.kind == "exact"


def test_the_same_curves_of_states_that_are_not_allow_the_last_place() -> None:
    assert found(curves(loss=1e-7), curves(), alike=False)["lm loss"].check.passed
    assert not found(curves(loss=1e-6), curves(), alike=False)["lm loss"].check.passed


@pytest.mark.parametrize(("apart", "off", "passed"), [
    (1e-5, 3.9e-5, True), (1e-5, 4.1e-5, False), (1e-9, 3e-7, True), (1e-9, 6e-7, False),
])  # fmt: skip
def test_as_far_off_as_was_measured_and_no_further(apart: float, off: float, passed: bool) -> None:
    loss = found(curves(loss=off), curves(loss=apart))["lm loss"]
    assert loss.check.passed is passed
    assert loss.check.kind == "tolerance"
    assert loss.allowed == pytest.approx(FAR * max(apart, LAST_PLACE))
    assert loss.off == pytest.approx(off)
    assert loss.start == pytest.approx(off)
    assert loss.check.first_bad_step == (None if passed else K + 1)


def test_what_comes_apart_later_allows_nothing_before() -> None:
    other = curves()
    late = other["lm loss"].values.copy()
    late[K + 5 :] *= 1 + 1e-3
    other["lm loss"] = Series("lm loss", STEPS, late)
    loss = found(curves(loss=1e-4), other)["lm loss"]
    assert loss.check.first_bad_step == K + 1
    assert "5 of 10 steps are off by more than was measured" in loss.check.message


def test_what_is_counted_must_be_equal_whatever_was_measured() -> None:
    digest = found(curves(batch_digest=1), curves(loss=0.1, batch_digest=1))["batch-digest"]
    assert not digest.check.passed


def test_a_count_of_zeros_may_be_off_by_a_few() -> None:
    other = curves(loss=1e-6)
    assert found(curves(zeros=4), other)["num-zeros"].check.passed
    assert not found(curves(zeros=5), other)["num-zeros"].check.passed


def test_a_step_that_is_missing_and_a_value_that_is_none_fail() -> None:
    other = curves(loss=1e-3)
    resumed = curves(loss=1e-4)
    resumed["lm loss"] = resumed["lm loss"].kept(STEPS != 15)
    assert not found(resumed, other)["lm loss"].check.passed
    broken = curves(loss=1e-4)
    values = broken["lm loss"].values.copy()
    values[14] = np.nan
    broken["lm loss"] = Series("lm loss", STEPS, values)
    assert not found(broken, other)["lm loss"].check.passed
    assert not found({name: one for name, one in resumed.items() if name != "lm loss"}, other)[
        "lm loss"
    ].check.passed
