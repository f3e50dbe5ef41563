"""Curves of a run that was resumed by another side than the one that saved: as far off as was measured.

Two sides that round otherwise cannot give the same bits. How far apart they come is measured where nothing
was saved or loaded: by the run of each that was never stopped. What the other side resumes may then be no
further from the run that it goes on from than these two had come apart by the same step, times :data:`FAR`.
Two sides whose own runs are the same to the last bit, their states too, allow nothing at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.checks.curves import compare_curves
from harness.checks.edges import Edges
from harness.checks.result import Check
from harness.checks.tolerance import scale
from harness.checks.wording import amount, both
from harness.metrics.known import about

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.metrics import Series

    Array = NDArray[np.float64]

#: How many times as far apart as the two sides' own runs: the distance of single steps varies.
FAR: Final = 4.0
#: The least that two sides which round otherwise are taken to be apart, relative: float32's last place.
LAST_PLACE: Final = 2.0**-23


@dataclass(frozen=True)
class Measured:
    """One metric.

    Args:
        check: against the run of the side that saved.
        exact: every bit is the same.
        off: the largest deviation, relative (a count's in elements), and its step; None where nothing
            deviates or no size is judged.
        allowed: what was allowed there.
        apart: how far the two sides' own runs had come apart there, the most up to that step.
        start: the deviation at the first step.
        counted: deviations are in elements, and relative to nothing.
    """

    check: Check
    exact: bool
    off: float | None = None
    step: int | None = None
    allowed: float | None = None
    apart: float | None = None
    start: float | None = None
    counted: bool = False


def compare_as_measured(
    saved: Mapping[str, Series],
    resumed: Mapping[str, Series],
    other: Mapping[str, Series],
    *,
    k: int,
    same: bool,
    metrics: Collection[str] = (),
) -> tuple[Measured, ...]:
    """One finding per metric, over the steps behind ``k``.

    Args:
        saved: of the side that saved, never stopped.
        resumed: of the run that the other side has resumed from it.
        other: of that other side, never stopped.
        same: the two that were never stopped are one to the last bit, their states too.
        metrics: only these; all when empty.
    """
    after = {name: line.kept(line.steps > k) for name, line in saved.items()}
    behind = {name: line.kept(line.steps > k) for name, line in resumed.items()}
    steps = [step for line in (*after.values(), *behind.values()) for step in line.steps.tolist()]
    edges = Edges(saved, k)
    exact, rounded = (
        compare_curves(
            after, behind, against="continuous", lane="tolerance" if rounds else "exact",
            first=min(steps, default=0), last=max(steps, default=0), metrics=metrics, edges=edges,
        )
        for rounds in (False, True)
    )  # fmt: skip
    by_name = {check.name: check for check in rounded}
    found = []
    for check in exact:
        metric, judged = check.metric, about(check.metric or "").judged
        there = metric in after and metric in behind
        if check.passed or check.kind != "exact" or same or metric is None or not there:
            found.append(Measured(check, exact=check.passed))
        elif judged in ("exact", "rate"):
            found.append(Measured(by_name.get(check.name, check), exact=False))
        else:
            found.append(_by_distance(check, after[metric], behind[metric], saved[metric], other.get(metric)))
    return tuple(found)


def same_curves(saved: Mapping[str, Series], other: Mapping[str, Series]) -> bool:
    """Whether both sides, never stopped, gave the same bits from the first step to the last."""
    import numpy as np

    compared = [name for name in saved if name in other and not about(name).cost]
    compared = [name for name in compared if about(name).judged in ("value", "count", "exact")]
    return bool(compared) and all(
        np.array_equal(saved[name].steps, other[name].steps)
        and np.array_equal(saved[name].values, other[name].values)
        for name in compared
    )


def _by_distance(
    check: Check, after: Series, behind: Series, saved: Series, other: Series | None
) -> Measured:
    import numpy as np

    if not np.array_equal(after.steps, behind.steps):
        return Measured(check, exact=False)  # with what is missing, or is none of it
    counts = about(check.metric or "").judged == "count"
    off = np.abs(behind.values - after.values) / _size(after)
    apart = _apart(saved, other, after.steps)
    allowed = FAR * np.maximum(apart, 1.0 if counts else LAST_PLACE)
    bad = np.flatnonzero(~(off <= allowed))
    worst = int(np.argmax(off / allowed))
    relative = "" if counts else " relative"
    numbers = f"off by {amount(float(off[worst]))}{relative} at step {after.steps[worst]}"
    measured = (
        f"the two sides' own runs are {amount(float(apart[worst]))} apart by then, "
        f"so {amount(float(allowed[worst]))} is allowed"
    )
    first = int(bad[0]) if bad.size else None
    said = f"{numbers}; {measured}"
    if first is not None:
        said = (
            f"{bad.size} of {len(after)} steps are off by more than was measured, first "
            f"{after.steps[first]}: "
            f"{both(after.values[first], behind.values[first])}; worst: {said}"
        )
    judged = Check(
        check.name, check.metric, check.against, "tolerance", passed=first is None,
        first_bad_step=None if first is None else int(after.steps[first]), worst=check.worst, message=said,
    )  # fmt: skip
    step = int(after.steps[worst])
    return Measured(
        judged, exact=False, off=float(off[worst]), step=step, allowed=float(allowed[worst]),
        apart=float(apart[worst]), start=float(off[0]), counted=counts,
    )  # fmt: skip


def _size(series: Series) -> Array:
    """What deviations are relative to; those of a count are counted."""
    import numpy as np

    known = about(series.name)
    return np.ones(len(series)) if known.judged == "count" else scale(series.values, known.tolerance.least)


def _apart(saved: Series, other: Series | None, steps: NDArray[np.int64]) -> Array:
    """At each of ``steps``, the most that the two sides' own runs had been apart until then, relative."""
    import numpy as np

    none = np.zeros(len(steps))
    if other is None:
        return none
    shared, mine, theirs = np.intersect1d(saved.steps, other.steps, return_indices=True)
    if not shared.size:
        return none
    apart = np.abs(other.values[theirs] - saved.values[mine]) / _size(saved)[mine]
    most = np.maximum.accumulate(np.where(np.isfinite(apart), apart, 0.0))
    places = np.searchsorted(shared, steps, side="right") - 1
    found: Array = np.where(places >= 0, most[np.maximum(places, 0)], 0.0)
    return found
