"""Whether a deviation has the shape of noise: jumps, and curves that fit better one step aside.

Both take the deviation of each step relative to the expected size (dimensionless) and judge it by its own
neighbourhood, so they need no recorded noise: what is told from noise is told from the noise that is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

#: Of the larger of the two medians of a sample, a Gaussian's standard deviation.
_MAD = 1.4826
#: Neighbours that a median of noise is taken from, at least.
_FEWEST = 8


@dataclass(frozen=True)
class Odd:
    """Where a deviation is least like noise.

    Args:
        at: the position of the first step that is affected.
        score: the statistic; above ``limit`` the deviation is not noise.
        limit: its threshold.
        what: the finding as a sentence's end, e.g. ``one step departs …``.
    """

    at: int
    score: float
    limit: float
    what: str


def jump(deviation: Array, floor: float, *, widths: tuple[int, ...], limit: float) -> Odd | None:
    """A step, or a level from some step on, that departs from its neighbours more than they do.

    For each width w, the mean of w steps minus the mean of the w steps before them; divided by the median
    size of the same contrast at the places before it or behind it that do not overlap it, whichever is larger
    (noise may grow along the curve), and never by less than ``floor``. At the end of the curve, where nothing
    shows what noise has grown to, the limit is ten times as high.
    """
    import numpy as np

    best: Odd | None = None
    sums = np.concatenate([[0.0], np.cumsum(deviation)])
    for width in widths:
        n = len(deviation) - 2 * width + 1
        if n < width + 1 + _FEWEST:
            continue
        ahead = (sums[2 * width :] - sums[width:-width]) - (sums[width:-width] - sums[: -2 * width])
        size = np.abs(ahead) / width
        # Contrasts up to `width` places away share steps with this one.
        past = _medians_before(size, width + 1)
        future = _medians_before(size[::-1], width + 1)[::-1]
        noise = np.maximum(floor / np.sqrt(width), _MAD * np.maximum(past, future))
        scores = size / np.where(future > 0, noise, 10 * noise)
        at = int(np.argmax(scores))
        if scores[at] > limit and (best is None or scores[at] > best.score):
            who = "one step departs from its" if width == 1 else f"{width} steps depart from their"
            what = f"{who} neighbours {scores[at]:.3g} times as much as those do (limit {limit:g})"
            best = Odd(at + width, float(scores[at]), limit, what)
    return best


def _medians_before(size: Array, distance: int) -> Array:
    """Median of the up to 24 values that end ``distance`` places before each; 0 where there are too few."""
    import numpy as np

    result = np.zeros(len(size))
    for span in (_FEWEST, 24):  # the longer where there is room for it
        if len(size) >= distance + span:
            windows = np.lib.stride_tricks.sliding_window_view(size, span)
            medians = np.maximum(np.median(windows, axis=1), 1e-300)
            result[distance + span - 1 :] = medians[: len(size) - distance - span + 1]
    return result


def shift(
    expected: Array,
    deviation: Array,
    scale: Array,
    floor: float,
    *,
    limit: float,
    memory: float | None = None,
    local: bool = True,
) -> Odd | None:
    """Whether the curve, from some step on, fits the expected one better one step aside.

    The log of the likelihood ratio, summed from the end: deviations as Gaussian noise around the expected
    curve moved by a step, against noise around it as it stands, both whitened. Under the second, that the
    largest of all these sums exceeds c has a probability of at most exp(-c), whatever the curve (Doob).

    Args:
        expected: the expected values.
        deviation: actual − expected, divided by ``scale``.
        scale: what ``deviation`` is in units of.
        floor: the least noise of a step, in the same units.
        limit: of the log likelihood ratio.
        memory: correlation of neighbouring deviations; None estimates it from them.
        local: estimate the noise of a step from its neighbourhood; otherwise it is ``floor`` everywhere.
    """
    import numpy as np

    if len(expected) < 2 * limit:
        return None
    noise = np.full(len(expected), floor)
    if local:
        noise = np.maximum(noise, _MAD * running_median(np.abs(deviation), 12))
    if memory is None:
        memory = persistence(deviation / noise)
    best: Odd | None = None
    for aside in (1, -1):
        moved = np.zeros_like(expected)
        if aside == 1:
            moved[:-1] = expected[1:] - expected[:-1]
        else:
            moved[1:] = expected[:-1] - expected[1:]
        found = _whitened(deviation / noise, memory)
        template = _whitened(moved / scale / noise, memory)
        gain = np.clip(found, -6, 6) * template - template**2 / 2
        gain[[0, -1]] = 0.0  # one of them has no neighbour on that side
        sums = np.cumsum(gain[::-1])[::-1][: -int(limit)]
        at = int(np.argmax(sums))
        if sums[at] > limit and (best is None or sums[at] > best.score):
            where = "later" if aside == 1 else "earlier"
            what = (
                f"from there on it fits the expected values of one step {where} better than those of its own"
                f" (log likelihood ratio {sums[at]:.3g}, limit {limit:g})"
            )
            best = Odd(at, float(sums[at]), limit, what)
    return best


def running_median(values: Array, half: int) -> Array:
    """Median of the up to 2·half + 1 values around each; fewer at the ends."""
    import numpy as np

    padded = np.concatenate([values[half:0:-1], values, values[-2 : -half - 2 : -1]])
    if len(padded) < len(values) + 2 * half:
        return np.full_like(values, np.median(values))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    return np.asarray(np.median(windows, axis=1))


def persistence(values: Array) -> float:
    """Correlation of neighbouring deviations, 0..1, from that of their differences: levels do not count."""
    import numpy as np

    change = np.clip(np.diff(values), -6, 6)
    power = float((change * change).sum())
    if len(change) < 3 or not power:
        return 0.0
    return float(np.clip(1 + 2 * float((change[1:] * change[:-1]).sum()) / power, 0.0, 1.0))


def _whitened(values: Array, memory: float) -> Array:
    import numpy as np

    result = values.copy()
    result[1:] -= memory * values[:-1]
    # The noise of what is left: 1 − memory², from differences never less than half of it.
    return np.asarray(result / np.sqrt(max(1 - memory**2, 0.5)))
