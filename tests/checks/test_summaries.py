"""What each process sums up over its own steps, told from what is lost."""

from __future__ import annotations

import numpy as np
import pytest

from harness.checks import Check
from harness.checks.summaries import without_summaries
from harness.metrics import Series
from tests.checks.made import rough

N, K = 40, 20
LOSS = rough(length=N)


def line(name: str, values: object, first: int = 1) -> Series:
    values = np.atleast_1d(np.asarray(values, np.float64))
    return Series(name, np.arange(first, first + len(values)), values)


def judged(there: float, here: float, *, at: int = N, loss: object = LOSS) -> Check:
    whole = {"loss": line("loss", loss), "train_loss": line("train_loss", there, N)}
    run = {"loss": line("loss", np.asarray(loss)[K:], K + 1), "train_loss": line("train_loss", here, at)}
    found = Check(
        "continuous: train_loss", "train_loss", "continuous", "exact", passed=False, first_bad_step=N
    )
    (check,) = without_summaries([found], whole, run, K + 1)
    return check


@pytest.mark.parametrize("here", [LOSS[K:].mean(), LOSS[K:].sum() / N], ids=["mean", "transformers"])
def test_a_mean_of_own_steps_is_not_compared_and_said(here: float) -> None:
    check = judged(LOSS.mean(), here)
    assert (check.passed, check.kind, check.first_bad_step) == (True, "present", None)
    assert "`loss` there over all, here from step 21 on" in check.message


@pytest.mark.parametrize(
    ("there", "here"),
    [
        (LOSS.mean(), LOSS.min()),
        (LOSS.min(), LOSS[K:].min()),
        (LOSS.mean(), LOSS[K:].mean() * 1.01),
        (LOSS.mean() * 1.01, LOSS[K:].mean()),
        (0.93, 0.91),
    ],
    ids=["lost best", "best of own steps", "another mean", "no mean there", "a validation"],
)
def test_anything_else_that_is_logged_once_at_the_end_stays_red(there: float, here: float) -> None:
    check = judged(there, here)
    assert (check.passed, check.kind) == (False, "exact")


def test_what_is_logged_before_the_end_is_no_summary() -> None:
    assert not judged(LOSS.mean(), LOSS[K:].mean(), at=N - 1).passed


def test_a_curve_with_a_value_that_is_no_number_explains_nothing() -> None:
    loss = LOSS.copy()
    loss[3] = np.nan
    assert not judged(LOSS.mean(), LOSS[K:].mean(), loss=loss).passed


def test_a_mean_of_rounded_values_is_one_all_the_same() -> None:
    assert judged(LOSS.mean(), LOSS[K:].mean(), loss=np.round(LOSS, 4).astype(np.float32)).passed


@pytest.mark.parametrize(
    ("there", "here", "curve"),
    [
        (2e-5, 5e-5, np.full(N, 1e-5)),
        (1e-3, 1.02e-3, np.full(N, 1e-3)),
        (3.4659, 3.4664, 3.4657 + 1e-4 * np.sin(np.arange(N))),
    ],
    ids=["an error beside a small rate", "a constant", "a validation beside a flat loss"],
)
def test_a_curve_that_says_the_same_of_both_explains_no_difference(
    there: float, here: float, curve: object
) -> None:
    assert not judged(there, here, loss=curve).passed
