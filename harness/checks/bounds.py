"""One-sided upper bounds for time and memory: slower or bigger fails, better is reported.

Time is the median over a steady window: the first steps are left out (a first iteration was seen to take 80
times as long), and saves and validations are too few to move a median. Memory is the median and the highest
value. The bound is a factor, wider where the golden's repeats show a wider spread.

A time is judged only where it means something: on the machine of the golden, and in a run that was not
disturbed. The same small training on two CPU cores was measured to take 0.06 s a step alone and 0.6 s beside
other work; a disturbed run shows itself by the spread of its steps, one beside a steady load does not. So
the caller says whether times are to be enforced, and on a CPU they should not be. Memory of a CPU run is its
resident set: 350 MB, most of it libraries, within 1 MB from run to run and under load. Another build of torch
changes it (500 MB with CUDA's libraries), so it counts on the golden's own machine and build only, with
:data:`_SLACK` beside the factor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from harness.checks import student
from harness.checks.wording import amount
from harness.metrics.known import about
from harness.metrics.units import unit_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.checks.pairing import Pair
    from harness.checks.result import Check

_TIME_FACTOR: Final = 1.25
_MEMORY_FACTOR: Final = 1.05
#: Bytes on top of the factor.
_SLACK: Final = 64 << 20
#: Probability of a false alarm that the spread of repeats is turned into a bound with.
_ALARM: Final = 1e-4
#: Interquartile range over median, above which a run was disturbed. Undisturbed on a GPU: 0.01–0.06.
_DISTURBED: Final = 0.25


def is_time(metric: str) -> bool:
    """Whether a metric is seconds: ``iteration-time``, and any other timer that a trainer logs."""
    return about(metric).judged == "time"


def is_speed(metric: str) -> bool:
    """Whether a metric is work per second, or so. No two runs share it: its size is not judged."""
    return about(metric).judged == "finite"


def is_bounded(metric: str) -> bool:
    """Whether a metric is a cost, judged by an upper bound only."""
    return about(metric).cost


def steady(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without the first tenth, at least 3 and at most 20 steps; of a shorter curve, its second half."""
    start = min(max(3, len(values) // 10), 20, len(values) // 2)
    return values[start:]


def typical(metric: str, values: NDArray[np.float64]) -> float:
    """What a cost is judged by: the median over the steady window; of a highest value, the highest."""
    return float(values.max()) if about(metric).highest else _median(steady(values))


def _median(values: NDArray[np.float64]) -> float:
    """The number that numpy's median has for finite values ``[n]``, in a fifth of its time at n = 100."""
    import numpy as np

    half = len(values) // 2
    if not len(values):
        return math.nan
    if len(values) % 2:
        middle = float(np.partition(values, half)[half])
    else:
        low, high = np.partition(values, (half - 1, half))[half - 1 : half + 1].tolist()
        middle = (low + high) / 2
    return middle + 0.0  # numpy's sums begin with 0.0, which makes that of -0.0


def compare_upper_bound(
    pair: Pair, *, enforce: bool, statistics: Mapping[str, Any] | None = None, note: str = ""
) -> Check:
    """Judge a time or memory by its bound.

    Args:
        pair: the curves.
        enforce: whether exceeding the bound fails; otherwise it is only said.
        statistics: of this metric, with ``typical``, one a repeat.
        note: added to the message.
    """
    import numpy as np

    expected, actual = typical(pair.metric, pair.expected), typical(pair.metric, pair.actual)
    timed = is_time(pair.metric)
    bound = expected * (_TIME_FACTOR if timed else _MEMORY_FACTOR) + (
        0 if timed else _SLACK / unit_of(pair.metric)
    )
    repeats = np.asarray(statistics.get("typical", ()), np.float64) if statistics else None
    if repeats is not None and repeats.size > 1:
        reach = student.quantile(_ALARM, repeats.size - 1) * float(repeats.std(ddof=1))
        center = max(expected, float(repeats.mean()))
        bound = max(bound, center + reach * float(np.sqrt(1 + 1 / repeats.size)))
    ratio = actual / expected if expected else 1.0
    over = actual > bound
    what = "the highest" if about(pair.metric).highest else "median of the steady steps"
    how = f"{ratio:.3g} times the golden's" if ratio != 1.0 else "the golden's"
    message = f"{what}: {amount(actual)}, {how} (bound {amount(bound)})"
    window = steady(pair.actual)
    worst = int(window.argmax()) + len(pair) - len(window)
    if not over:
        return pair.passed("upper-bound", message + note, worst)
    spread = _spread(pair.actual) if timed else 0.0
    if not enforce:
        message += "; not enforced here"
    elif spread > _DISTURBED:
        message += f"; not enforced: the run was disturbed, half of its steps lie {spread:.0%} apart"
    else:
        first = int(np.flatnonzero(pair.actual > bound)[0]) if (pair.actual > bound).any() else worst
        return pair.failed("upper-bound", message + note, first=first, worst=worst)
    return pair.passed("upper-bound", message + note, worst)


def _spread(values: NDArray[np.float64]) -> float:
    import numpy as np

    low, middle, high = np.quantile(steady(values), [0.25, 0.5, 0.75])
    return float((high - low) / middle) if middle else 0.0
