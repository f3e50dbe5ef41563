"""All series of a run against all that were expected: one check per metric."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from harness.checks.bounds import compare_upper_bound, is_bounded, is_speed, is_time
from harness.checks.envelope import compare_with_envelope
from harness.checks.exact import compare_exactly
from harness.checks.pairing import pair
from harness.checks.result import Against, Check, Kind, Worst
from harness.checks.tolerance import compare_by_tolerance
from harness.metrics.known import about

if TYPE_CHECKING:
    from harness.checks.edges import Edges
    from harness.metrics import Series

Lane = Literal["exact", "tolerance", "envelope"]


def compare_curves(
    expected: Mapping[str, Series],
    actual: Mapping[str, Series],
    *,
    against: Literal["golden", "continuous"],
    lane: Lane,
    first: int,
    last: int,
    metrics: Collection[str] = (),
    statistics: Mapping[str, Any] | None = None,
    enforce_bounds: bool = True,
    enforce_time: bool = True,
    rounding: str = "",
    note: str = "",
    edges: Edges | None = None,
) -> list[Check]:
    """One check per metric of either side, over the steps ``first..last``.

    Args:
        expected: the golden's series, or the continuous run's.
        actual: the run's.
        against: what ``expected`` is. Time and memory are compared with a golden only.
        lane: how values are compared.
        first, last: both included.
        metrics: only these; all of both sides when empty. Of the others, what tells of training itself must
            be finite where the other side is.
        statistics: the golden's, by metric, for the envelope lane and the spread of times.
        enforce_bounds: whether a time or memory above its bound fails; give False where the run is
            on another machine than the golden's, and it is only reported.
        enforce_time: the same for the time alone; give False where others may use the machine: a CPU.
        rounding: the precision of the model, where it is known that only the rounding of operations differs:
            then the tolerances are what was measured for that.
        note: added to every message, e.g. why this lane was taken.
        edges: where the run was stopped and went on.
    """
    import numpy as np

    noted = f" ({note})" if note else ""
    found = []
    for metric in dict.fromkeys((*expected, *actual)):
        bounded = is_bounded(metric)
        left, right = expected.get(metric), actual.get(metric)
        said = noted
        if edges is not None:
            known, (left, right, odd) = left, edges.without(metric, left, right)
            said += odd
            if not left and known and not right:  # it came no later than in the other run's own beginning
                message = f"it was not logged{said}"
                found.append(
                    Check(f"{against}: {metric}", metric, against, "present", passed=True, message=message)
                )
                continue
        if metrics and metric not in metrics:
            if right is not None and _is_training(metric) and not _as_odd(left, right, against):
                check = _finite(metric, right.at(first, last), against, said)
                found += [] if check.passed else [check]
            continue
        if is_speed(metric) or (bounded and against == "continuous"):
            found.append(_finite(metric, right and right.at(first, last), against, said))
            continue
        if right is not None and left is None and against == "golden":
            found.append(_unknown(right.at(first, last), said, named=metric in metrics))
            continue
        kind: Kind = "upper-bound" if bounded else lane
        both = pair(metric, left, right, against=against, kind=kind, first=first, last=last)
        if isinstance(both, Check):
            found.append(replace(both, message=both.message + said))
            continue
        spread = (statistics or {}).get(metric)
        with np.errstate(over="ignore", invalid="ignore"):  # finite values may be further apart than a float
            if bounded:
                enforce = enforce_bounds and (enforce_time or not is_time(metric))
                check = compare_upper_bound(both, enforce=enforce, statistics=spread, note=said)
            elif lane == "exact":
                check = compare_exactly(both, said)
            elif lane == "envelope":
                check = compare_with_envelope(both, spread, said)
            else:
                check = compare_by_tolerance(both, said, rounding)
        found.append(check)
    for metric in sorted(set(metrics) - expected.keys() - actual.keys()):
        message = f"neither side has it, though the case names it{noted}"
        found.append(Check(f"{against}: {metric}", metric, against, "present", passed=False, message=message))
    return found


def _finite(metric: str, series: Series | None, against: Against, said: str) -> Check:
    """A metric whose size is not judged here: it must be there, and finite, all the same."""
    import numpy as np

    name = f"{against}: {metric}"
    if series is None or not series.steps.size:
        message = f"it was not logged{said}"
        return Check(name, metric, against, "present", passed=False, message=message)
    bad = np.flatnonzero(~np.isfinite(series.values))
    if not bad.size:
        message = f"finite at every step; its size is not judged here{said}"
        return Check(name, metric, against, "present", passed=True, message=message)
    step, value = int(series.steps[bad[0]]), float(series.values[bad[0]])
    return Check(
        name, metric, against, "present", passed=False, first_bad_step=step,
        worst=Worst(step, None, value), message=f"found {value} at step {step}, expected a number{said}",
    )  # fmt: skip


def _is_training(metric: str) -> bool:
    """Whether a metric tells of training itself: no NaN of it goes unseen, whatever a case names."""
    return about(metric).tells in ("loss", "gradient", "parameters")


def _as_odd(expected: Series | None, actual: Series | None, against: Against) -> bool:
    """Whether a metric that the case does not name is infinite only where that is expected.

    The gradients of a first step that overflowed are, in every run. A golden has no such metric.
    """
    import numpy as np

    if actual is None or not actual.steps.size:
        return True
    if expected is None:
        return against == "golden"
    here, there = (set(one.steps[~np.isfinite(one.values)].tolist()) for one in (actual, expected))
    return here <= there


def _unknown(series: Series, said: str, *, named: bool) -> Check:
    """A metric of the run that the golden lacks: it must be finite, and none that the case names."""
    import numpy as np

    bad = np.flatnonzero(~np.isfinite(series.values))
    step = int(series.steps[bad[0]]) if bad.size else None
    what = "not finite" if bad.size else "the case names it" if named else "nothing to compare with"
    message = f"the golden does not have it; {what}{said}"
    worst = Worst(step, None, float(series.values[bad[0]])) if bad.size else None
    return Check(
        f"golden: {series.name}", series.name, "golden", "present", passed=not (bad.size or named),
        first_bad_step=step, worst=worst, message=message,
    )  # fmt: skip
