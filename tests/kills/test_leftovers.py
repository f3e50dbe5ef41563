"""Where a resumed run has gone on, by the first step that it logs and by what was there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.metrics import Series
from harness.protocol.leftovers import gone_on_from
from harness.trainers.killed import UNNUMBERED, Left

N, INTERVAL = 20, 5
WHOLE = Left(frozenset({5, 10}), {15: "cut off"}, committed=10, files=True)
ALONE = Left(frozenset({UNNUMBERED}), files=True)
NOTHING = Left(frozenset(), {5: "cut off"}, files=True)


def curve(first: int, last: int, every: int = 1) -> dict[str, Series]:
    steps = np.arange(first, last + 1, every)
    return {"loss": Series("loss", steps, np.sqrt(steps + 1.0))}


@pytest.mark.parametrize(
    ("left", "logged", "at", "passed"),
    [
        (WHOLE, curve(11, 20), 10, True),
        (WHOLE, curve(10, 20), 10, True),  # logs its last step again
        (WHOLE, curve(16, 20), 15, True),  # which is torn: whoever asks knows
        (WHOLE, curve(6, 20), 10, False),  # an older one, though a newer was whole
        (WHOLE, curve(1, 20), 10, False),
        (WHOLE, curve(13, 20), 10, False),  # where no checkpoint is
        (NOTHING, curve(1, 20), 0, True),
        (NOTHING, curve(6, 20), 5, True),  # torn again
        (ALONE, curve(16, 20), 15, True),
        (ALONE, curve(1, 20), 5, False),
        (ALONE, curve(13, 20), 5, False),
        (replace(ALONE, sure=False), curve(1, 20), 0, True),
        (replace(ALONE, odd={UNNUMBERED: "cut off"}), curve(1, 20), 0, True),
    ],
)
def test_the_first_step_tells_which_checkpoint_was_taken(
    left: Left, logged: dict[str, Series], at: int, passed: bool
) -> None:
    found, went_on = gone_on_from(logged, left, curve(1, N), n=N, interval=INTERVAL)
    assert (found, went_on.check.passed) == (at, passed)


@pytest.mark.parametrize(("first", "at", "passed"), [(10, 10, True), (0, 10, False), (15, 15, True)])
def test_steps_may_be_counted_from_0(first: int, at: int, passed: bool) -> None:
    found, went_on = gone_on_from(curve(first, N - 1), WHOLE, curve(0, N - 1), n=N, interval=INTERVAL)
    assert (found, went_on.check.passed) == (at, passed)
