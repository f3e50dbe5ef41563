"""What a process says once, when it ends, of all that it did: a mean over its own steps is no loss.

A resumed process has trained k+1..N, and the mean that it logs at its end is over those; the uninterrupted
one's is over 1..N. Nobody is believed by a name: both must be the mean, or the part of the sum, that a curve
beside them has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from harness.checks.wording import amount

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.checks.result import Check
    from harness.metrics import Series

Curves = Mapping[str, "Series"]
#: Of a mean, which was summed up in float32;
_RELATIVE: Final = 1e-5
#: curves may have been rounded when they were logged to so many decimals, transformers' to four.
_DECIMALS: Final = (3, 4, 5)
_FLOAT32: Final = 1e-7


def without_summaries(checks: Sequence[Check], whole: Curves, run: Curves, first: int) -> list[Check]:
    """The checks, those of summaries passed and said to be not compared.

    Args:
        checks: of curves.
        whole: of a run that was not interrupted: the golden's, or the uninterrupted one's.
        run: the resumed run's, or the joined ones.
        first: the first step that the resumed process trained.
    """
    return [
        check if check.passed or check.metric is None else _judged(check, check.metric, whole, run, first)
        for check in checks
    ]


def _judged(check: Check, metric: str, whole: Curves, run: Curves, first: int) -> Check:
    there, here = _once(metric, whole, 0), _once(metric, run, first)
    if there is None or here is None:
        return check
    curve = next(
        (name for name in whole if name != metric and _sums_up(name, there, here, whole, run, first)), ""
    )
    if not curve:
        return check
    message = (
        f"logged once, at the end, where each process sums up its own steps: `{curve}` there over all, here "
        f"from step {first} on ({amount(there)} there, {amount(here)} here); not compared"
    )
    return replace(check, kind="present", passed=True, first_bad_step=None, message=message)


def _once(metric: str, curves: Curves, first: int) -> float | None:
    """Its value, if it has one only, at the last step of all."""
    if metric not in curves:
        return None
    line = curves[metric]
    line = line.kept(line.steps >= first)
    last = max((int(other.steps.max()) for other in curves.values() if len(other)), default=None)
    return float(line.values[0]) if len(line) == 1 and int(line.steps[0]) == last else None


def _sums_up(curve: str, there: float, here: float, whole: Curves, run: Curves, first: int) -> bool:
    """Whether both are means of a curve, of what their process logged of it."""
    import numpy as np

    if curve not in run or len(whole[curve]) < 2:
        return False
    line = run[curve]
    all_of_it, own = whole[curve].values, line.values[line.steps >= first]
    if not own.size or not np.isfinite(all_of_it).all() or not np.isfinite(own).all():
        return False
    over_all = float(all_of_it.mean())
    near = _RELATIVE * abs(over_all) + _rounding(all_of_it)
    # transformers' ``train_loss`` after a resume is the sum of its own steps over the number of all of them.
    means = float(own.mean()), float(own.sum()) / all_of_it.size
    # A mean that is the same over all of them explains no difference.
    return abs(there - over_all) <= near and any(
        abs(here - mean) <= near < abs(mean - over_all) for mean in means
    )


def _rounding(values: NDArray[np.float64]) -> float:
    """How far the mean of a curve may be off because its values were rounded before they were logged."""
    import numpy as np

    for decimals in _DECIMALS:
        if (np.abs(values - np.round(values, decimals)) <= _FLOAT32 * np.abs(values)).all():
            return 0.6 * 10.0**-decimals
    return 0.0
