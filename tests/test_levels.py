"""The shape of a loss behind a resume: other batches of the same model, or another model."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.checks import compare_curves
from harness.diagnosis import Diagnosis, diagnose
from harness.diagnosis.levels import other_batches
from harness.metrics import Series
from tests.made_curves import differs, state

Values = NDArray[np.float64]
N, K = 40, 20
LEVEL = 0.4 + np.exp(-np.arange(N) / 8)
DRAW = np.random.default_rng(3)
SAME, OTHER = DRAW.normal(0, 0.05, N), DRAW.normal(0, 0.05, N)


def line(values: Values, first: int = 1) -> dict[str, Series]:
    return {"loss": Series("loss", np.arange(first, first + len(values)), values)}


def said(resumed: Values, whole: Values = LEVEL + SAME) -> str:
    return other_batches("loss", line(whole), line(resumed, K + 1))


def test_the_level_is_kept_and_the_batches_are_others() -> None:
    assert "the same model, on other batches or with other random numbers" in said((LEVEL + OTHER)[K:])


@pytest.mark.parametrize(
    "resumed",
    [
        (LEVEL + SAME)[K:] + 0.01,  # the same ups and downs
        (LEVEL + OTHER)[K:] + 0.3,  # another level: something of the model was lost
        (LEVEL + OTHER)[: N - K],  # a new model
        (LEVEL + OTHER)[K : K + 5],  # too few to say
        np.full(N - K, np.nan),
        np.full(N - K, 0.4),
    ],
)
def test_nothing_is_said_where_it_is_not_so(resumed: Values) -> None:
    assert not said(resumed)


def test_training_that_has_not_come_far_says_nothing_of_its_weights() -> None:
    flat = np.full(N, 0.4)
    assert not said((flat + OTHER)[K:], flat + SAME)


def test_without_the_curve_there_is_nothing_to_say() -> None:
    assert not other_batches("loss", {}, line(LEVEL))


def lost(resumed: Values, **names: int) -> Diagnosis:
    """What is said where the curve and the weights at the end are off."""
    continuous, run = line(LEVEL + SAME), line(resumed, K + 1)
    checks = compare_curves(continuous, run, against="continuous", lane="exact", first=K + 1, last=N)
    end = state(differs("w", "weights"), names={"weights": 4, **names})
    found = diagnose(
        checks, continuous=continuous, resumed=run, k=K, n=N, state=end, probe=None, deterministic=True
    )
    assert found is not None
    return found


def candidates(found: Diagnosis) -> set[str]:
    return {one.component for one in found.candidates}


def test_where_the_random_numbers_came_back_it_was_the_data() -> None:
    found = lost((LEVEL + OTHER)[K:], rng=1)
    assert found.component == "data-order"
    assert any(said.startswith("not weights: the loss goes on at its level") for said in found.evidence)


def test_where_neither_is_known_to_have_come_back_both_are_left() -> None:
    found = lost((LEVEL + OTHER)[K:])
    assert (found.component, candidates(found)) == ("unknown", {"data-order", "rng"})


def test_the_same_ups_and_downs_rule_no_weights_out() -> None:
    assert {"weights", "buffers"} <= candidates(lost((LEVEL + SAME)[K:] + 0.01, rng=1))


def test_from_the_second_step_on_an_update_may_have_been_another() -> None:
    resumed = (LEVEL + OTHER)[K:]
    resumed[0] = (LEVEL + SAME)[K]
    assert {"optimizer", "lr-schedule"} <= candidates(lost(resumed, rng=1))
