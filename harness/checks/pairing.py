"""The steps of two series: what must be there exactly once, and finite, before values are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.checks.result import Against, Check, Kind, Worst
from harness.checks.wording import ranges
from harness.metrics.series import whole_numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.metrics import Series


@dataclass(frozen=True)
class Pair:
    """Two series over the same steps, which only go up; all values are finite.

    Args:
        metric: their name.
        against: what ``expected`` is.
        steps: int64, strictly increasing.
        expected, actual: float64, one value a step.
        expected_rest, actual_rest: what whole numbers beyond 2**53 have more, as in :class:`Series`.
    """

    metric: str
    against: Against
    steps: NDArray[np.int64]
    expected: NDArray[np.float64]
    actual: NDArray[np.float64]
    expected_rest: NDArray[np.object_] | None = None
    actual_rest: NDArray[np.object_] | None = None

    def __len__(self) -> int:
        return len(self.steps)

    def worst(self, at: int) -> Worst:
        """The deviation at position ``at``."""
        whole = self.whole(slice(at, at + 1))
        if whole is not None:
            return Worst(int(self.steps[at]), whole[0][0], whole[1][0])
        return Worst(int(self.steps[at]), float(self.expected[at]), float(self.actual[at]))

    def whole(self, part: slice = slice(None)) -> tuple[list[float], list[float]] | None:
        """Both sides as Python's numbers, where floats do not hold all of them; None where they do."""
        if self.expected_rest is None and self.actual_rest is None:
            return None
        rests = self.expected_rest, self.actual_rest
        one, two = (None if rest is None else rest[part] for rest in rests)
        return whole_numbers(self.expected[part], one), whole_numbers(self.actual[part], two)

    def passed(self, kind: Kind, message: str, at: int | None = None) -> Check:
        """The values hold; ``at`` is the position of the largest deviation."""
        worst = None if at is None else self.worst(at)
        return Check(self.name, self.metric, self.against, kind, passed=True, worst=worst, message=message)

    def failed(self, kind: Kind, message: str, *, first: int, worst: int) -> Check:
        """They do not, from position ``first`` on."""
        return Check(
            self.name, self.metric, self.against, kind, passed=False,
            first_bad_step=int(self.steps[first]), worst=self.worst(worst), message=message,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """The check's name."""
        return f"{self.against}: {self.metric}"


def pair(
    metric: str,
    expected: Series | None,
    actual: Series | None,
    *,
    against: Against,
    kind: Kind,
    first: int,
    last: int,
) -> Pair | Check:
    """Bring two series onto the same steps, or say why that is not possible.

    The steps that ``expected`` has in ``first..last`` must be in ``actual``, each once, in order, and
    nothing else: what a metric's interval is (every step, every validation) follows from it. A step of
    ``actual`` outside ``first..last`` is one too many, unless it is a golden's own: a golden that
    begins before ``first``, say with a validation at step 0, was recorded from a run that did.

    Returns:
        The pair, or the check that failed (or, with no step on either side, passed).
    """
    import numpy as np

    left, right = _steps(expected), _steps(actual)
    if expected and actual and _alike(expected, actual) and first <= left[0] and left[-1] <= last:
        # As it nearly always is; everything below would come to the same, more slowly.
        return Pair(metric, against, left, expected.values, actual.values, expected.rest, actual.rest)
    name = f"{against}: {metric}"
    inside = left[(left >= first) & (left <= last)]
    wanted = right
    if against == "golden" and right.size and not first <= right.min() <= right.max() <= last:
        wanted = right[((right >= first) & (right <= last)) | ~np.isin(right, left)]

    def failed(message: str, worst: Worst) -> Check:
        return Check(
            name, metric, against, kind, passed=False,
            first_bad_step=worst.step, worst=worst, message=message,
        )  # fmt: skip

    if not inside.size and not wanted.size:
        message = f"neither has a value at steps {first}..{last}"
        return Check(name, metric, against, "present", passed=True, message=message)
    other = "the golden" if against == "golden" else "the continuous run"
    again = inside[1:][inside[1:] <= inside[:-1]]
    if again.size:
        message = f"{other} has steps twice or backward: {ranges(again)}"
        return failed(message, Worst(int(again[0]), None, None))
    if not np.array_equal(inside, wanted):
        return failed(*_odd_steps(inside, wanted, expected, actual, other))
    assert expected is not None
    assert actual is not None
    result = Pair(
        metric, against, inside,
        _values(expected, inside, left), _values(actual, wanted, right),
        _rest(expected, inside, left), _rest(actual, wanted, right),
    )  # fmt: skip
    for values, whose in ((result.actual, "the run"), (result.expected, other)):
        finite = np.isfinite(values)
        if not finite.all():
            bad = np.flatnonzero(~finite)
            at = int(bad[0])
            message = f"{whose} has {_odd(values[bad])} at {ranges(inside[bad].tolist())}"
            return failed(message, result.worst(at))
    return result


def _alike(one: Series, other: Series) -> bool:
    """The same steps, which only go up, and nothing but finite values."""
    import numpy as np

    if not one.clean or not other.clean or len(one) != len(other):
        return False
    return not np.count_nonzero(one.steps != other.steps)


def _steps(series: Series | None) -> NDArray[np.int64]:
    import numpy as np

    return np.empty(0, np.int64) if series is None else series.steps


def _values(series: Series, kept: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.float64]:
    if kept.size == own.size:
        return series.values
    import numpy as np

    return series.values[np.isin(own, kept)]


def _rest(series: Series, kept: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.object_] | None:
    if kept.size == own.size or series.rest is None:
        return series.rest
    import numpy as np

    return series.rest[np.isin(own, kept)]


def _odd(values: NDArray[np.float64]) -> str:
    import numpy as np

    nans, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    parts = [what for what, count in (("NaN", nans), ("infinity", infinite)) if count]
    return " and ".join(parts)


def _odd_steps(
    wanted: NDArray[np.int64],
    found: NDArray[np.int64],
    expected: Series | None,
    actual: Series | None,
    other: str,
) -> tuple[str, Worst]:
    """What is wrong with the steps, and the first of it."""
    import numpy as np

    if actual is None:
        step = int(wanted[0])
        message = f"the run has no such metric; {other} has it at {ranges(wanted.tolist())}"
        return message, Worst(step, _value_at(expected, step), None)
    if expected is None:
        step = int(found[0])
        message = f"{other} has no such metric; the run has it at {ranges(found.tolist())}"
        return message, Worst(step, None, _value_at(actual, step))
    missing = np.setdiff1d(wanted, found)
    extra = np.setdiff1d(found, wanted)
    backward = found[1:][found[1:] <= found[:-1]]
    unique, counts = np.unique(found, return_counts=True)
    repeated = unique[counts > 1]
    if not repeated.size and not backward.size:
        repeated = backward
    said, steps = [], []
    for what, odd in (
        ("missing", missing), ("logged though not expected", extra), ("logged more than once", repeated),
    ):  # fmt: skip
        if odd.size:
            said.append(f"{what}: {ranges(odd.tolist())}")
            steps.append(int(odd[0]))
    if not said:
        said, steps = [f"logged out of order: {ranges(backward.tolist())}"], [int(backward.min())]
    step = min(steps)
    return "steps " + "; ".join(said), Worst(step, _value_at(expected, step), _value_at(actual, step))


def _value_at(series: Series | None, step: int) -> float | None:
    if series is None:
        return None
    found = series.values[series.steps == step]
    return float(found[-1]) if found.size else None
