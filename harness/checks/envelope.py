"""An envelope derived from recorded repeats, for cases that are truly nondeterministic.

Recorded for each metric: the mean and the spread at each step, the spread pooled over neighbouring steps;
and for windows of 1, 2, 4, ... steps how much the mean of a window of deviations spreads, with the degrees
of freedom it was estimated from. That last makes no assumption on how deviations of neighbouring steps hang
together: it was measured. A run passes if no window of any length is off by more than Student's t allows,
with a false alarm in less than :data:`ALARM` of all verdicts, and if it does not fit better moved by a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from harness.checks import shape, student
from harness.checks.bounds import is_bounded, typical
from harness.checks.exact import compare_exactly
from harness.checks.tolerance import compare_by_tolerance, scale
from harness.checks.wording import amount, both, direction, steps
from harness.errors import GoldenError
from harness.metrics.known import about

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.checks.pairing import Pair
    from harness.checks.result import Check
    from harness.metrics import Series

    Array = NDArray[np.float64]

#: Probability of a false alarm per verdict, over all its metrics, steps and windows.
ALARM: Final = 1e-3
FEWEST_REPEATS: Final = 3
#: Steps on either side whose spread is pooled.
_NEIGHBOURS = 5
#: The smallest spread, relative: a unit in the last place of float32.
_LAST_PLACE = 2.0**-23
#: Units of spread beyond which a single step says no more about the mean of a window.
_CLIP = 4.0
#: What a single flipped decision may be off by, in units of a metric's floor.
_FLIP = 20.0
#: How far a value may be off, relative, that was the same in all repeats.
_CONSTANT = 4 * _LAST_PLACE


def statistics_of(repeats: Sequence[Mapping[str, Series]]) -> dict[str, Any]:
    """What n runs of the same training say about its noise, as plain JSON values.

    Args:
        repeats: the series of each run; metrics that all of them have at the same steps count.

    Returns:
        By metric, ``repeats`` (n) and ``kind``: ``constant`` (bit for bit the same in all), ``cost`` (time,
        memory: ``typical``, one per run), or ``curve``: ``steps``, ``center``, ``spread`` (one a step),
        ``windows``, ``window_spread``, ``freedom``, ``factor`` (one a window) and ``alarm``, this metric's
        share of the probability of a false alarm.

    Raises:
        GoldenError: fewer than three repeats, or repeats that do not have the same steps.
    """
    import numpy as np

    if len(repeats) < FEWEST_REPEATS:
        raise GoldenError(
            f"an envelope of {len(repeats)} repeats, expected {FEWEST_REPEATS} or more",
            f"record it with --repeats {FEWEST_REPEATS} or more",
        )
    metrics = [name for name in repeats[0] if all(name in repeat for repeat in repeats)]
    curves = sum(not is_bounded(name) for name in metrics)
    found: dict[str, Any] = {}
    for name in metrics:
        series = [repeat[name] for repeat in repeats]
        if any(not np.array_equal(one.steps, series[0].steps) for one in series) or not all(
            one.clean for one in series
        ):
            raise GoldenError(
                f"repeats of {name}: found other steps, or a value that is not finite, in one of them"
            )
        values = np.stack([one.values for one in series])
        if is_bounded(name):
            found[name] = {
                "kind": "cost", "repeats": len(series), "typical": [typical(name, row) for row in values],
            }  # fmt: skip
        elif (values == values[0]).all():
            found[name] = {"kind": "constant", "repeats": len(series)}
        else:
            found[name] = _curve(series[0].steps, values, ALARM / curves)
    return found


def _curve(at: NDArray[np.int64], values: Array, alarm: float) -> dict[str, Any]:
    import numpy as np

    n, length = values.shape
    center = values.mean(axis=0)
    spread = np.sqrt(_pooled(values.var(axis=0, ddof=1)))
    spread = np.maximum(spread, _LAST_PLACE * scale(center, 0.1))
    # Deviations from a mean that the run itself is part of are smaller by (n − 1) / n.
    units = (values - center) / spread * math.sqrt(n / (n - 1))
    windows = [1 << power for power in range(length.bit_length()) if 1 << power <= length]
    spreads, freedoms, factors = [], [], []
    for width in windows:
        means = window_means(units if width == 1 else np.clip(units, -_CLIP, _CLIP), width)
        freedom = (n - 1) * _independent(np.clip(means, -_CLIP, _CLIP)[:, ::width])
        tests = 2 * len(windows) * means.shape[1]
        spreads.append(max(float(np.sqrt((means**2).mean())), 0.5 / math.sqrt(width)))
        freedoms.append(freedom)
        # Tails of training noise are heavier than a Gaussian's; a mean's are the less so the longer it is.
        factors.append((1 + 1 / math.sqrt(width)) * student.quantile(alarm / 2 / tests, freedom))
    return {
        "kind": "curve", "repeats": n, "alarm": alarm, "steps": at.tolist(),
        "center": center.tolist(), "spread": spread.tolist(),
        "windows": windows, "window_spread": spreads, "freedom": freedoms, "factor": factors,
        "persistence": max(shape.persistence(row) for row in units),
    }  # fmt: skip


def _pooled(variance: Array) -> Array:
    """Mean over each step and its neighbours."""
    import numpy as np

    kernel = np.ones(2 * _NEIGHBOURS + 1)
    total = np.convolve(variance, kernel)[_NEIGHBOURS:-_NEIGHBOURS]
    count = np.convolve(np.ones_like(variance), kernel)[_NEIGHBOURS:-_NEIGHBOURS]
    return np.asarray(total / count)


def window_means(values: Array, width: int) -> Array:
    """Mean of every ``width`` values in a row, along the last axis."""
    import numpy as np

    zero = np.zeros((*values.shape[:-1], 1))
    sums = np.concatenate([zero, np.cumsum(values, axis=-1)], axis=-1)
    return np.asarray((sums[..., width:] - sums[..., :-width]) / width)


def _independent(means: Array) -> float:
    """To how many independent ones the windows of one run amount; windows that share no step.

    Neighbouring windows may hang together, and all windows of a run that strayed early are large together:
    the fewer of both readings counts.
    """
    import numpy as np

    count = means.shape[1]
    if count < 3:
        return 1.0
    power = float((means * means).sum())
    hang = float((means[:, 1:] * means[:, :-1]).sum()) / power if power else 0.0
    hang = min(max(hang, 0.0), 0.99)
    by_neighbours = count * (1 - hang) / (1 + hang)
    each = (means * means).mean(axis=1)
    uneven = float(each.var(ddof=1) / each.mean() ** 2) if power else 0.0
    by_runs = 2 / uneven if uneven > 0 else count
    return float(np.clip(min(by_neighbours, by_runs), 1.0, count))


def compare_with_envelope(pair: Pair, statistics: Mapping[str, Any] | None, note: str = "") -> Check:
    """Judge a run by the recorded repeats; by tolerance where there are none for this metric.

    Args:
        pair: the curves. Against a golden the recorded mean is what is compared with; against a continuous
            run that run, which strays as much as the other.
        statistics: of this metric, as :func:`statistics_of` gives them.
        note: added to the message.

    Raises:
        GoldenError: statistics that are incomplete, or of other steps.
    """
    if about(pair.metric).judged != "value" or statistics is None:
        return compare_by_tolerance(pair, note)
    kind, n = _get(pair, statistics, "kind"), _get(pair, statistics, "repeats")
    if n < FEWEST_REPEATS:
        raise GoldenError(f"statistics of {pair.metric}: {n} repeats, expected {FEWEST_REPEATS} or more")
    if kind == "constant":
        return _constant(pair, n, note)
    import numpy as np

    at = np.asarray(_get(pair, statistics, "steps"), np.int64)
    places = np.searchsorted(at, pair.steps)
    if places[-1] >= at.size or not np.array_equal(at[places], pair.steps):
        raise GoldenError(f"statistics of {pair.metric}: they lack a step that the golden has")
    spread = np.asarray(_get(pair, statistics, "spread"), np.float64)[places]
    center = np.asarray(_get(pair, statistics, "center"), np.float64)[places]
    golden = pair.against == "golden"
    center = center if golden else pair.expected
    unit = spread * math.sqrt(1 + 1 / n if golden else 2.0)
    deviation = (pair.actual - center) / unit
    found = _outside(pair, statistics, center, deviation, unit)
    moved = shape.shift(
        center, deviation, unit, 1.0,
        limit=math.log(4 / _get(pair, statistics, "alarm")),
        memory=float(_get(pair, statistics, "persistence")), local=False,
    )  # fmt: skip
    said = [what for _, what in found]
    first = [place for place, _ in found]
    if moved:
        first.append(moved.at)
        said.append(f"at step {pair.steps[moved.at]} {moved.what}")
    worst = int(np.argmax(np.abs(deviation)))
    if said:
        message = f"{'; '.join(said)}; {direction(center, pair.actual)} ({n} repeats){note}"
        return pair.failed("envelope", message, first=min(first), worst=worst)
    message = (
        f"inside the envelope of {n} repeats at {steps(len(pair))}: off by at most"
        f" {amount(float(np.abs(deviation[worst])))} spreads (limit"
        f" {amount(_get(pair, statistics, 'factor')[0] * _get(pair, statistics, 'window_spread')[0])}){note}"
    )
    return pair.passed("envelope", message, worst)


def _constant(pair: Pair, n: int, note: str) -> Check:
    """Equal in all repeats, which proves little of the last places of a case that is not deterministic."""
    import numpy as np

    off = np.abs(pair.actual - pair.expected)
    if not (off <= _CONSTANT * np.abs(pair.expected)).all():
        return compare_exactly(pair, f"; it was the same in all {n} repeats{note}")
    message = f"equal within 4 ulp of float32 at {steps(len(pair))}; it was the same in all {n} repeats{note}"
    return pair.passed("envelope", message, int(np.argmax(off)))


def _outside(
    pair: Pair, statistics: Mapping[str, Any], center: Array, deviation: Array, unit: Array
) -> list[tuple[int, str]]:
    """The window that is furthest outside, as the position of its first step and a sentence."""
    import numpy as np

    best, found = 1.0, []
    tolerance = about(pair.metric).tolerance
    floor = _FLIP * tolerance.floor * scale(center, tolerance.least) / unit
    for width, spread, factor in zip(
        *(_get(pair, statistics, key) for key in ("windows", "window_spread", "factor")), strict=True
    ):
        if width > len(pair):
            break
        means = np.abs(window_means(deviation if width == 1 else np.clip(deviation, -_CLIP, _CLIP), width))
        # A single flipped decision (a unit that turns on, a token that changes its expert) is in no repeat.
        limits = np.maximum(spread * factor, window_means(floor, width) / math.sqrt(width))
        at = int(np.argmax(means / limits))
        if means[at] > best * limits[at]:
            best = float(means[at] / limits[at])
            where = (
                f"step {pair.steps[at]}: {both(pair.expected[at], pair.actual[at])}" if width == 1
                else f"the mean of steps {pair.steps[at]}–{pair.steps[at + width - 1]}"
            )  # fmt: skip
            found = [(
                at,
                f"{where} is off by {amount(float(means[at]))} spreads"
                f" (limit {amount(float(limits[at]))})",
            )]  # fmt: skip
    return found


def _get(pair: Pair, statistics: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return statistics[key]
    except KeyError:
        raise GoldenError(f"statistics of {pair.metric}: no {key!r} among {sorted(statistics)}") from None
