"""Bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
