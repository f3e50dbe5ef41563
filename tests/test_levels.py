"""The shape of a loss behind a resume: other batches of the same model, or another model."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.diagnosis.levels import other_batches
from harness.metrics import Series

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
