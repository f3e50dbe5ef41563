"""What the shape of a loss says behind a resume: the same model on other batches, or another model.

A model that lost weights shows it in the level of its loss; what it still has answers the same batches
with the same ups and downs. A loss that keeps its level and has other ups and downs comes of the same
model, and of other data or other random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from harness.metrics import Series

#: Values behind the resume that are looked at, and the fewest that say anything.
_MOST: Final = 12
_FEWEST: Final = 8
#: How far training must have come before k, in deviations of one step from the next: else a model that lost
#: all of its weights would have the same loss.
_PROGRESS: Final = 4.0
#: Correlation, from step to step, below which two losses do not go up and down together.
_TOGETHER: Final = 0.5


def other_batches(metric: str, continuous: Mapping[str, Series], run: Mapping[str, Series]) -> str:
    """A sentence, where a resumed loss keeps the level of the uninterrupted one and not its ups and downs.

    Args:
        metric: the loss.
        continuous: the uninterrupted run's curves.
        run: the resumed run's.
    """
    import numpy as np

    whole, resumed = continuous.get(metric), run.get(metric)
    if whole is None or resumed is None:
        return ""
    steps = np.intersect1d(whole.steps, resumed.steps)[:_MOST]
    if len(steps) < _FEWEST:
        return ""
    before = whole.values[whole.steps < steps[0]]
    theirs = whole.values[np.isin(whole.steps, steps)]
    mine = resumed.values[np.isin(resumed.steps, steps)]
    if len(before) < _FEWEST or not all(np.isfinite(line).all() for line in (before, theirs, mine)):
        return ""
    noise = float(np.std(np.diff(np.concatenate([before[-_FEWEST:], theirs])))) / np.sqrt(2)
    fresh, level = float(np.median(before[:3])), float(np.median([*before[-4:], *theirs[:4]]))
    above = mine - theirs
    pair = noise * np.sqrt(2)
    if not noise or fresh - level < _PROGRESS * noise:
        return ""
    if above[0] > 3 * pair or float(above.mean()) > 2 * pair / np.sqrt(len(above)):
        return ""
    ups, downs = np.diff(theirs), np.diff(mine)
    if not ups.std() or not downs.std():
        return ""
    together = float(np.corrcoef(ups, downs)[0, 1])
    if together >= _TOGETHER:
        return ""
    return (
        f"the loss goes on at its level and not with its ups and downs (correlation {together:.2f} from step "
        f"to step, {len(steps)} steps): the same model, on other batches or with other random numbers"
    )
