"""Did the resumed run go on where the other stood? By what both have logged, metric by metric.

Nothing is assumed of how a script counts its steps: what the uninterrupted run logged and the interrupted
one had not is what the resumed run must log.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.checks.wording import ranges
from harness.protocol.judge import present

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.metrics import Series

Curves = Mapping[str, "Series"]


@dataclass(frozen=True)
class WentOn:
    """Where a resumed run went on.

    Args:
        series: what it logged, without what it logged again though it was known.
        check: whether that is where the other one stood.
    """

    series: Curves
    check: Check


def common(one: Curves, other: Curves) -> tuple[Curves, Curves]:
    """Both at the steps that both have, metric by metric; a metric without one is left out.

    So is a step at which both overflowed in the same way: whether it may is not for this comparison to say.
    """
    import numpy as np

    left, right = {}, {}
    for metric in one.keys() & other.keys():
        mine, theirs = (
            dict(zip(c[metric].steps.tolist(), c[metric].numbers(), strict=True)) for c in (one, other)
        )
        steps = [
            s for s in mine.keys() & theirs.keys() if math.isfinite(mine[s]) or not _equal(mine[s], theirs[s])
        ]
        if steps:
            left[metric] = one[metric].kept(np.isin(one[metric].steps, steps))
            right[metric] = other[metric].kept(np.isin(other[metric].steps, steps))
    return left, right


def before(series: Curves, k: int) -> Curves:
    """What a run had logged when it came to iteration ``k``."""
    kept = {metric: line.kept(line.steps <= _last_before(series, k)) for metric, line in series.items()}
    return {metric: line for metric, line in kept.items() if len(line)}


def after(whole: Curves, known: Curves, k: int, n: int | None = None) -> Curves:
    """What is left of a whole run's curves behind iteration ``k``, of which ``known`` was logged.

    Args:
        n: the iterations of the whole run, where that is known.
    """
    last = max((int(line.steps.max()) for line in known.values() if len(line)), default=0)
    now_and_then = n is not None and _counts_from_zero(whole, known, k, n)
    last = max(last, k - 1 if now_and_then else _last_before(whole, k))
    return {metric: line.kept(line.steps > last) for metric, line in whole.items()}


def replays(resumed: Curves, known: Curves) -> bool:
    """Whether a resumed run logs more again than the last step that was known."""
    last = max((int(line.steps.max()) for line in known.values() if len(line)), default=0)
    first = _first(resumed)
    return first is not None and first < last


def went_on(
    resumed: Curves, known: Curves, like: Curves, k: int, *, trained_again: bool, n: int | None = None
) -> WentOn:
    """Judge where a resumed run went on.

    Args:
        resumed: what it logged.
        known: what had been logged when it was stopped.
        like: what an uninterrupted run logs.
        k: the iteration that it was resumed from.
        trained_again: it has saved checkpoints of k or before, which a run that goes on has no reason to; or
            nobody can tell whether it has.
        n: the iterations of a whole run, where that is known.
    """
    import numpy as np

    expected = min(
        (int(line.steps.min()) for line in after(like, known, k, n).values() if len(line)), default=k + 1
    )
    first = _first(resumed)
    name = f"resume: first step is {expected}"
    if first is None:
        return WentOn(
            resumed, present(name, "continuous", passed=False, message="the resumed run logged nothing")
        )
    series, again = dict(resumed), list[int]()
    for metric, line in resumed.items():
        old = known.get(metric)
        if old is None or trained_again:
            continue
        before = dict(zip(old.steps.tolist(), old.numbers(), strict=True))
        logged = zip(line.steps.tolist(), line.numbers(), strict=True)
        same = np.array([step < expected and _equal(before.get(step), value) for step, value in logged], bool)
        if same.any():
            again += line.steps[same].tolist()
            series[metric] = line.kept(~same)
    first = _first(series)
    if first == expected:
        noted = f"; logged again, with equal values: {ranges(sorted(set(again)))}" if again else ""
        return WentOn(
            series, present(name, "continuous", passed=True, message=f"it went on at step {first}{noted}")
        )
    from harness.checks import Worst

    if first is None:
        message = f"the resumed run logged nothing new: only {ranges(sorted(set(again)))}, which were known"
        return WentOn(resumed, present(name, "continuous", passed=False, message=message))
    message = f"it went on at step {first}, expected {expected}"
    if first < expected:
        if first <= min((int(line.steps.min()) for line in like.values() if len(line)), default=1):
            message += ": the checkpoint was not loaded, training started again"
        elif trained_again:
            message += ": it trained again what had been trained, from an older checkpoint"
    worst = Worst(first, expected, first)
    return WentOn(series, present(name, "continuous", passed=False, message=message, worst=worst))


def _last_before(series: Curves, k: int) -> int:
    """The number of iteration ``k``, the k-th, as the run counts: from 0 or from 1."""
    return k - 1 if _first(series) == 0 and _every_step(series) else k


def _every_step(series: Curves) -> bool:
    """Whether a curve begins 0, 1: a lone value at 0 is a validation before the first step."""
    return any(len(line) > 1 and {0, 1} <= set(line.steps[:2].tolist()) for line in series.values())


def _counts_from_zero(whole: Curves, known: Curves, k: int, n: int) -> bool:
    """Whether a run that does not log every step counts them from 0: 0, 10, 20, … and never N.

    Then ``k`` is the number of the iteration behind the k-th, and whoever was stopped after that has not
    logged it. One who counts from 1, and begins with a validation at 0, logs something at N.
    """
    at_k, known_at_k, at_n = (
        any((line.steps == step).any() for line in lines.values())
        for lines, step in ((whole, k), (known, k), (whole, n))
    )
    return _first(whole) == 0 and at_k and not known_at_k and not at_n


def _first(series: Curves) -> int | None:
    return min((int(line.steps.min()) for line in series.values() if len(line)), default=None)


def _equal(known: float | None, value: float) -> bool:
    return known is not None and (known == value or (math.isnan(known) and math.isnan(value)))
