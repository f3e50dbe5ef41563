"""Did the resumed run go on where the other stood? By what both have logged, metric by metric.

Nothing is assumed of how a script counts its steps: what the uninterrupted run logged and the interrupted
one had not is what the resumed run must log.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
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


def named(series: Curves, metrics: Collection[str]) -> Curves:
    """The curves that the case names; all of them where it names none, or none that is there."""
    return {name: line for name, line in series.items() if name in metrics} or series


def last_of(series: Curves) -> int | None:
    """The last step that anything was logged at."""
    return max((int(line.steps.max()) for line in series.values() if len(line)), default=None)


def from_zero(series: Curves) -> bool:
    """Whether anything was logged at step 0."""
    return any((line.steps == 0).any() for line in series.values())


def common(one: Curves, other: Curves) -> tuple[Curves, Curves]:
    """Both at the steps that both have, metric by metric; a metric without one is left out.

    So is a step at which both overflowed in the same way: whether it may is not for this comparison to say.
    """
    import numpy as np

    left, right = {}, {}
    for metric in one.keys() & other.keys():
        mine, theirs = (_values(c[metric]) for c in (one, other))
        steps = [
            s for s in mine.keys() & theirs.keys() if math.isfinite(mine[s]) or not _equal(mine[s], theirs[s])
        ]
        if steps:
            left[metric] = one[metric].kept(np.isin(one[metric].steps, steps))
            right[metric] = other[metric].kept(np.isin(other[metric].steps, steps))
    return left, right


def before(series: Curves, k: int) -> Curves:
    """What a run had logged when it came to iteration ``k``."""
    kept = {metric: line.kept(line.steps <= last_before(series, k)) for metric, line in series.items()}
    return {metric: line for metric, line in kept.items() if len(line)}


def after(whole: Curves, known: Curves, k: int, n: int | None = None) -> Curves:
    """What is left of a whole run's curves behind iteration ``k``, of which ``known`` was logged.

    Args:
        n: the iterations of the whole run, where that is known.
    """
    last = last_known(whole, known, k, n)
    return {metric: line.kept(line.steps > last) for metric, line in whole.items()}


def last_known(whole: Curves, known: Curves, k: int, n: int | None = None) -> int:
    """The last step that a run had logged which was stopped behind iteration ``k``; arguments as above."""
    last = max((int(line.steps.max()) for line in known.values() if len(line)), default=0)
    now_and_then = n is not None and _counts_from_zero(whole, known, k, n)
    return max(last, k - 1 if now_and_then else last_before(whole, k))


def replays(resumed: Curves, known: Curves) -> bool:
    """Whether a resumed run logs more again than the last step that was known."""
    last = max((int(line.steps.max()) for line in known.values() if len(line)), default=0)
    first = first_of(resumed)
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
    first = first_of(resumed)
    name = f"resume: first step is {expected}"
    if first is None:
        return WentOn(
            resumed, present(name, "continuous", passed=False, message="the resumed run logged nothing")
        )
    series, new, again = dict(resumed), dict(resumed), list[int]()
    for metric, line in resumed.items():
        if trained_again:
            continue
        mine, later = _values(known.get(metric)), _values(at_k(metric, like, expected))
        logged = list(zip(line.steps.tolist(), line.numbers(), strict=True))
        same = np.array([step < expected and _equal(mine.get(step), value) for step, value in logged], bool)
        late = np.array([_equal(later.get(step), value) for step, value in logged], bool) & ~same
        if same.any() or late.any():
            again += line.steps[same | late].tolist()
            series[metric], new[metric] = line.kept(~same), line.kept(~same & ~late)
    first = first_of(new)
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


def at_k(metric: str, like: Curves, expected: int) -> Series | None:
    """What an uninterrupted run logs at k of a metric that is logged now and then; None of any other.

    A validation at k may come after the checkpoint of k: then it is the resumed run that makes it.

    Args:
        expected: the first step behind k.
    """
    line = like.get(metric)
    if line is None or not _now_and_then(metric, like):
        return None
    k = max((step for one in like.values() for step in one.steps.tolist() if step < expected), default=None)
    return None if k is None else line.at(k, k)


def behind(whole: Curves, resumed: Curves, last: int) -> Curves:
    """What is left of a whole run's curves behind a step, and what the resumed run has made up for at it."""
    import numpy as np

    kept = {}
    for metric, line in whole.items():
        mask = line.steps > last
        if metric in resumed and (late := at_k(metric, whole, last + 1)) is not None:
            mask |= np.isin(line.steps, late.steps) & np.isin(line.steps, resumed[metric].steps)
        kept[metric] = line.kept(mask)
    return kept


def _values(line: Series | None) -> dict[int, float]:
    return {} if line is None else dict(zip(line.steps.tolist(), line.numbers(), strict=True))


def _now_and_then(metric: str, like: Curves) -> bool:
    """Whether it is a validation's, or so: logged at half of the steps at most."""
    return 2 * len(like[metric]) <= max(map(len, like.values()))


def last_before(series: Curves, k: int) -> int:
    """The number of iteration ``k``, the k-th, as the run counts: from 0 or from 1."""
    return k - 1 if first_of(series) == 0 and _every_step(series) else k


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
    return first_of(whole) == 0 and at_k and not known_at_k and not at_n


def first_of(series: Curves) -> int | None:
    """The first step that anything was logged at."""
    return min((int(line.steps.min()) for line in series.values() if len(line)), default=None)


def _equal(known: float | None, value: float) -> bool:
    return known is not None and (known == value or (math.isnan(known) and math.isnan(value)))
