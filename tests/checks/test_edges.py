"""What a process does not log yet, or logs once more, because it begins or ends there."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from harness.checks import Check, compare_curves
from harness.checks.edges import Edges
from harness.metrics import Series

N, K = 20, 10


def line(metric: str, steps: Iterable[int]) -> Series:
    found = np.fromiter(steps, np.int64)
    return Series(metric, found, np.ones(len(found)))


def joined(metric: str, golden: Iterable[int], actual: Iterable[int], *, k: int = K) -> Check:
    """A curve of a run that was stopped at ``k`` beside its golden's; the loss is right at every step."""
    loss = line("lm loss", range(1, N + 1))
    whole = {"lm loss": loss, metric: line(metric, golden)}
    found = compare_curves(
        whole, {"lm loss": loss, metric: line(metric, actual)}, against="golden", lane="exact",
        first=1, last=N, edges=Edges(whole, k, end=k),
    )  # fmt: skip
    return next(check for check in found if check.metric == metric)


def every(interval: int, *without: int, n: int = N) -> list[int]:
    return [step for step in range(1, n + 1) if step % interval == 0 and step not in without]


@pytest.mark.parametrize("metric", ["iteration-time", "forward-backward-time", "mem-max-allocated-bytes"])
def test_a_cost_may_come_as_late_behind_the_resume_as_in_the_golden(metric: str) -> None:
    check = joined(metric, every(1, 1), every(1, 1, K + 1))
    assert check.passed, check.message
    assert f"not logged by a process that has just begun: {K + 1}" in check.message
    assert joined(metric, every(1, 1, 2, 3), every(1, 1, 2, 3, K + 1, K + 2, K + 3)).passed


@pytest.mark.parametrize(
    ("golden", "actual"),
    [
        pytest.param(every(1), every(1, K + 1), id="the golden has its first"),
        pytest.param(every(1, 1), every(1, 1, K + 2), id="it is not the first"),
        pytest.param(every(1, 1), every(1, 1, K + 1, K + 2), id="more than the golden lacks"),
        pytest.param(every(1, 1), every(1, 1, K), id="the last before the resume"),
        pytest.param(every(1, 1), every(1, 1, 2, K + 1), id="two at its own beginning"),
        pytest.param(every(1, 1), range(2, K + 1), id="all of the resumed run's"),
        pytest.param(every(5), every(5, K + 5), id="an interval that was over"),
        pytest.param(every(1, 1), every(1, K + 1), id="the golden has not its first, and the run has"),
    ],
)
def test_what_the_golden_did_not_lack_at_its_own_beginning_is_lost(
    golden: list[int], actual: Iterable[int]
) -> None:
    check = joined("iteration-time", golden, actual)
    assert not check.passed


@pytest.mark.parametrize("metric", ["lm loss validation", "grad-norm", "learning-rate", "batch-digest"])
def test_a_value_of_training_that_is_missing_is_lost_wherever_it_is(metric: str) -> None:
    assert not joined(metric, every(1, 1), every(1, 1, K + 1)).passed


def test_a_wider_interval_than_every_step() -> None:
    """Resumed between two of its points, the first of a process is not logged: it has begun with it."""
    assert joined("iteration-time", every(2), every(2, 6), k=5).passed
    assert not joined("iteration-time", every(2), every(2, 8), k=5).passed
    assert joined("iteration-time", every(2), every(2), k=5).passed


def test_the_first_step_of_a_process_is_logged_beside_the_interval() -> None:
    """As timers are: at step 1 and at every fourth one; behind the resume at its first."""
    golden = [1, *every(4)]
    for k in (8, 10):
        assert joined("optimizer-time", golden, sorted({*golden, k + 1}), k=k).passed
    assert joined("optimizer-time", golden, golden).passed
    assert not joined("optimizer-time", golden, sorted({*golden, K + 1, K + 3})).passed
    assert not joined("optimizer-time", every(4), sorted({*every(4), K + 1})).passed
    assert not joined("grad-norm", golden, sorted({*golden, K + 1})).passed


def test_what_is_logged_at_the_end_of_a_run_is_logged_where_it_was_told_to_stop() -> None:
    check = joined("lm loss validation", [N], [K, N])
    assert check.passed, check.message
    assert f"began or ended: {K}" in check.message
    assert joined("train_loss", [N], [K, N]).passed
    assert not joined("lm loss validation", [N], [K]).passed
    assert not joined("lm loss validation", [N], [N - 1, N]).passed
    assert not joined("lm loss validation", [K - 1], [K - 1, K]).passed


@pytest.mark.parametrize("metric", ["lm loss validation", "iteration-time"])
def test_what_is_no_number_is_left_out_nowhere(metric: str) -> None:
    """It is one too many at the end of the interrupted run, or at the first step of the resumed one."""
    at = {"lm loss validation": K, "iteration-time": K + 1}[metric]
    golden = {"lm loss validation": [N], "iteration-time": [1, *every(4)]}[metric]
    whole = {"lm loss": line("lm loss", range(1, N + 1)), metric: line(metric, golden)}
    odd = line(metric, sorted({*golden, at}))
    for value, passed in ((1.0, True), (np.nan, False), (np.inf, False)):
        odd = Series(metric, odd.steps, np.where(odd.steps == at, value, 1.0))
        found = compare_curves(
            whole, {"lm loss": whole["lm loss"], metric: odd}, against="golden", lane="exact",
            first=1, last=N, edges=Edges(whole, K, end=K),
        )  # fmt: skip
        assert next(check for check in found if check.metric == metric).passed is passed


def resumed(metric: str, whole: Iterable[int], actual: Iterable[int]) -> list[Check]:
    """What was logged behind the resume beside the uninterrupted run's."""
    loss = line("lm loss", range(1, N + 1))
    curves = {"lm loss": loss, metric: line(metric, whole)}
    expected = {name: one.at(K + 1, N) for name, one in curves.items()}
    found = {"lm loss": loss.at(K + 1, N)}
    if steps := list(actual):
        found[metric] = line(metric, steps)
    return compare_curves(
        expected, found, against="continuous", lane="exact", first=K + 1, last=N, edges=Edges(curves, K)
    )


def test_a_cost_of_which_a_resumed_run_had_no_time_to_log_any() -> None:
    assert all(check.passed for check in resumed("iteration-time", [11], []))
    assert all(check.passed for check in resumed("throughput", [11], []))
    assert not all(check.passed for check in resumed("iteration-time", [2, 12], []))
    assert not all(check.passed for check in resumed("lm loss validation", [11], []))


def test_a_validation_that_only_one_run_has_at_its_end_is_no_equal_end() -> None:
    assert not all(check.passed for check in resumed("lm loss validation", [N], []))
    assert not all(check.passed for check in resumed("lm loss validation", [5], [N]))
