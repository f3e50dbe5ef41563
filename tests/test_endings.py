"""A resumed run that trains on where the uninterrupted one stopped of itself."""

from __future__ import annotations

import numpy as np
import pytest

from harness.checks import Check
from harness.diagnosis.endings import trained_on
from harness.metrics import Series

FAILED = [Check("resume: came to iteration 40", None, "continuous", "present", passed=False)]
VALUES = 1 / np.arange(1, 41)


def line(first: int, last: int, scale: float = 1.0) -> dict[str, Series]:
    steps = np.arange(first, last + 1)
    return {"loss": Series("loss", steps, scale * VALUES[first - 1 : last])}


def test_what_decides_when_to_stop_was_lost() -> None:
    found = trained_on(FAILED, line(1, 25), line(21, 40))
    assert found is not None
    assert found.component == "buffers"
    assert found.evidence[0] == (
        "the resumed run trains on to iteration 40; the uninterrupted one stopped of itself at 25"
    )


@pytest.mark.parametrize(
    ("continuous", "resumed"),
    [
        (line(1, 25), line(21, 40, 1.1)),  # other values: something else was lost
        (line(1, 40), line(21, 30)),  # its data may have come to an end
        (line(1, 25), line(26, 40)),  # nothing that both logged
        (line(1, 25), {}),
    ],
)
def test_nothing_is_said_where_that_is_not_all(
    continuous: dict[str, Series], resumed: dict[str, Series]
) -> None:
    assert trained_on(FAILED, continuous, resumed) is None
    assert trained_on([], line(1, 25), line(21, 40)) is None
