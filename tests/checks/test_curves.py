"""Which checks are made of which metrics, and over which steps."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Literal

import numpy as np
import pytest

from harness.checks import compare_curves
from harness.metrics import Series
from tests.checks.made import STEPS, Array, changed, one, rough, series_of


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


@pytest.mark.parametrize("lane", ["exact", "tolerance", "envelope"])
@pytest.mark.parametrize(
    ("steps", "first_bad", "said"),
    [
        ([*range(1, 50), *range(51, 101)], 50, "steps missing: 50"),
        (range(1, 91), 91, "steps missing: 91–100"),
        (range(1, 102), 101, "steps logged though not expected: 101"),
        ([*range(1, 100), 101], 100, "steps missing: 100; logged though not expected: 101"),  # as many
        ([*range(50), *range(51, 101)], 0, "steps missing: 50; logged though not expected: 0"),
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


def test_a_metric_that_the_case_does_not_name_must_be_finite_all_the_same() -> None:
    one = {name: series_of(name, [1.0] * 20) for name in ("lm loss", "num-zeros")}
    two = {**one, "lm loss": series_of("lm loss", [1.0] * 19 + [math.nan])}
    named = {"metrics": ["num-zeros"], "against": "golden", "lane": "exact", "first": 1, "last": 20}
    assert [check.passed for check in compare_curves(one, one, **named)] == [True]  # type: ignore[arg-type]
    failed = [check.metric for check in compare_curves(one, two, **named) if not check.passed]  # type: ignore[arg-type]
    assert failed == ["lm loss"]


def test_a_metric_that_the_case_does_not_name_may_be_infinite_only_where_it_is_in_the_other_run() -> None:
    named, other = rough(), rough(1)
    first = changed(other, 0, float("inf"))

    def checks(
        expected: Array | None, actual: Array | None, against: Literal["golden", "continuous"]
    ) -> list[tuple[str, bool]]:
        sides = [
            {"lm loss": Series("lm loss", STEPS, named)}
            | ({} if one is None else {"grad-norm": Series("grad-norm", STEPS, one)})
            for one in (expected, actual)
        ]
        found = compare_curves(
            sides[0], sides[1], against=against, lane="exact", first=1, last=100, metrics=("lm loss",)
        )
        return [(check.metric or "", check.passed) for check in found]

    good, bad = [("lm loss", True)], [("lm loss", True), ("grad-norm", False)]
    assert checks(None, first, "golden") == good
    assert checks(first, first, "continuous") == good
    assert checks(other, first, "continuous") == bad
    assert checks(other, first, "golden") == bad
    assert checks(first, changed(first, 50, float("nan")), "continuous") == bad
    assert checks(None, first, "continuous") == bad
    assert checks(other, None, "continuous") == good
    assert checks(None, first, "continuous") == bad
