"""Bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics import Series
from tests.checks.made import UNHURRIED, changed, one, rough


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


BIG = 1 << 62


def whole(*numbers: float) -> Series:
    return Series.of("lm loss", range(1, len(numbers) + 1), numbers)


@UNHURRIED
@given(
    st.lists(st.integers(-(1 << 64), 1 << 64), min_size=1, max_size=10),
    st.integers(0, 9),
    st.integers(-3, 3),
)
def test_whole_numbers_are_equal_only_when_they_are(numbers: list[int], at: int, by: int) -> None:
    at %= len(numbers)
    other = [*numbers[:at], numbers[at] + by, *numbers[at + 1 :]]
    check = one(whole(*numbers), whole(*other), last=len(numbers))
    assert check.passed == (by == 0)
    if by:
        assert check.first_bad_step == at + 1
        assert check.worst is not None
        assert (check.worst.expected, check.worst.actual) == (numbers[at], numbers[at] + by)


def test_two_whole_numbers_that_are_one_float_are_told_apart_in_words() -> None:
    check = one(whole(1, BIG, BIG + 9), whole(1, BIG + 1, BIG + 9), last=3)
    assert not check.passed
    assert f"1 of 3 steps differs, first 2: {BIG} → {BIG + 1}; higher" in check.message
    assert "as float64 1 of them would be equal" in check.message
    assert check.worst is not None
    assert check.worst.abs == 1


def test_a_whole_number_is_the_float_that_it_is() -> None:
    assert one(whole(BIG, 1 << 53, BIG + 1), whole(float(BIG), 2.0**53, BIG + 1), last=3).passed
    assert not one(whole(BIG + 1), whole(float(BIG)), last=1).passed
    assert not one(whole(0.0, BIG + 1), whole(-0.0, BIG + 1), last=2).passed


def test_whole_numbers_stay_exact_in_a_part_of_a_series_and_in_two_joined() -> None:
    series = whole(*range(BIG, BIG + 10))
    again = series.at(1, 4).followed_by(series.at(5, 10))
    assert again.numbers() == series.numbers() == list(range(BIG, BIG + 10))
    assert one(series, again, last=10).passed
    assert not one(
        series, whole(*range(BIG, BIG + 9), BIG + 10), first=6, last=10, against="continuous"
    ).passed
    small = whole(1, 2).followed_by(Series("lm loss", np.array([3]), np.array([3.0])))
    assert small.rest is None
    assert whole(1).followed_by(Series.of("lm loss", [2], [BIG + 1])).numbers() == [1, BIG + 1]
