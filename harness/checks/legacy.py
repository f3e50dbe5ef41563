"""Megatron-LM's published thresholds, to compare ours with; no verdict depends on them.

``lm loss`` and ``num-zeros`` exactly, on values rounded to five decimals; or, of a case that is marked as
nondeterministic, within 5 % and 20 %, one failing step in a hundred (at least one) forgiven. Memory within
5 %, forgiven likewise; time as the median over a few steps, within 5 %. A missing step counts as infinite, as
does a value that is not finite, and infinite equals infinite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from harness.checks.result import Check, Worst
from harness.checks.wording import steps as counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.metrics import Series

    Array = NDArray[np.float64]

DECIMALS: Final = 5
#: Relative, of the approximate mode.
TOLERANCES: Final = {
    "lm loss": 0.05, "num-zeros": 0.20, "mem-allocated-bytes": 0.05, "mem-max-allocated-bytes": 0.05,
    "iteration-time": 0.05,
}  # fmt: skip
_ALWAYS_APPROXIMATE: Final = {"mem-allocated-bytes", "mem-max-allocated-bytes"}


def compare_as_megatron(
    expected: Mapping[str, Series],
    actual: Mapping[str, Series],
    *,
    against: Literal["golden", "continuous"],
    last: int,
    deterministic: bool = True,
) -> list[Check]:
    """One check of kind ``legacy`` for each metric that Megatron-LM compares and ``expected`` has.

    Args:
        expected: the golden's series, or the first run's.
        actual: the run's; resumed, only its steps after N/2 count.
        against: what ``expected`` is; a first run is compared with from N/2 + 1 on, and without its times.
        last: N.
        deterministic: whether the case is compared exactly.
    """
    import numpy as np

    first = 1 if against == "golden" else last // 2 + 1
    found = []
    for metric, limit in TOLERANCES.items():
        if metric not in expected or (metric == "iteration-time" and against == "continuous"):
            continue
        steps = expected[metric].at(first, last).steps
        a, b = (_values(side.get(metric), steps) for side in (expected, actual))
        if metric == "iteration-time":
            found.append(_time(against, a, b, limit))
            continue
        exact = deterministic and metric not in _ALWAYS_APPROXIMATE
        with np.errstate(invalid="ignore"):
            off = np.abs(b - a) > (0.0 if exact else limit * np.abs(a))
        off |= np.isinf(a) != np.isinf(b)
        bad = np.flatnonzero(off)
        forgiven = 0 if exact else max(1, len(steps) // 100)
        passed = bad.size <= forgiven
        at = int(bad[0]) if bad.size else None
        how = "rounded to 5 decimals" if exact else f"within {limit:.0%}, {counted(forgiven)} forgiven"
        message = f"{bad.size} of {counted(len(steps))} differ{'s' if bad.size == 1 else ''}, {how}"
        found.append(
            Check(
                f"legacy: {against}: {metric}",
                metric,
                against,
                "legacy",
                passed=passed,
                first_bad_step=None if passed or at is None else int(steps[at]),
                worst=None if at is None else Worst(int(steps[at]), float(a[at]), float(b[at])),
                message=message,
            )
        )
    return found


def _values(series: Series | None, steps: NDArray[np.int64]) -> Array:
    """Rounded values at ``steps``; infinite where there is none."""
    import numpy as np

    values = np.full(len(steps), np.inf)
    if series is not None and len(series):
        order = np.argsort(series.steps, kind="stable")
        own, there = series.steps[order], series.values[order]
        # The last of several values of a step, as a dictionary by step keeps it.
        places = np.searchsorted(own, steps, side="right") - 1
        hit = (places >= 0) & (own[np.maximum(places, 0)] == steps)
        values[hit] = np.round(there[places[hit]], DECIMALS)
    values[~np.isfinite(values)] = np.inf
    return values


def _time(against: Literal["golden", "continuous"], a: Array, b: Array, limit: float) -> Check:
    import numpy as np

    window = slice(4, 20) if len(a) <= 25 else slice(29, 45)
    left, right = (float(np.median(side[window])) if side[window].size else np.inf for side in (a, b))
    passed = left == right or abs(right - left) <= limit * abs(left)
    message = f"median of a few steps: {right:.4g} against {left:.4g}, within {limit:.0%}"
    return Check(
        f"legacy: {against}: iteration-time", "iteration-time", against, "legacy", passed=passed,
        worst=Worst(None, left, right), message=message,
    )  # fmt: skip
