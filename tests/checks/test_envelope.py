"""By the envelope of recorded repeats."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from harness.checks import Check, statistics_of, student
from harness.errors import GoldenError
from harness.metrics import Series
from tests.checks.made import STEPS, Array, changed, one, rough


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
