"""Which series left its course first, and which part of the training state that speaks for.

What decides a step is decided in an order: which samples, at which rate, at which scale; then the loss
(weights, buffers, random numbers), then the gradients, then what the optimizer makes of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.checks.bounds import is_bounded
from harness.diagnosis.result import number
from harness.metrics.known import Tells, about

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.metrics import Series

#: In the order of cause.
_ORDER: tuple[Tells, ...] = (
    "data", "rate", "scale", "loss", "gradient", "parameters", "other", "validation",
)  # fmt: skip
#: What can be behind a series that is the first to leave its course, likeliest first.
IMPLIED: Mapping[Tells, tuple[str, ...]] = {
    "data": ("data-order",),
    "rate": ("lr-schedule",),
    "scale": ("grad-scaler",),
    "loss": ("iteration", "data-order", "rng", "buffers", "experts", "embedding", "weights"),
    "gradient": ("optimizer", "grad-scaler"),
    "parameters": ("lr-schedule", "grad-scaler", "weights", "experts", "embedding", "optimizer"),
    "validation": ("data-order", "buffers"),
    "other": (),
}
_ENOUGH = 3  # values in a row that must agree before two stretches of a curve count as the same
_ALIKE = 1e-6  # relative
#: Kinds of checks that compared values of a curve of training, one with another.
BY_VALUE = ("exact", "tolerance", "envelope")


@dataclass(frozen=True)
class Deviation:
    """A series that is not what it should be.

    Args:
        metric, kind: which, and what it tells.
        step: the first iteration at which it is off.
        expected, actual: the values there; None where there is none.
    """

    metric: str
    kind: Tells
    step: int
    expected: float | None
    actual: float | None

    @property
    def relative(self) -> float | None:
        """|actual − expected| / |expected|."""
        if self.expected is None or self.actual is None or not self.expected:
            return None
        return abs(self.actual - self.expected) / abs(self.expected)

    @property
    def known(self) -> bool:
        """Whether there are two values; what was not logged says nothing of training."""
        return self.expected is not None and self.actual is not None

    @property
    def values(self) -> str:
        """``0.0002 instead of 0.01 (ratio 0.02)``."""
        if self.actual is None and self.expected is not None:
            return f"it was not logged there, expected {number(self.expected)}"
        if self.expected is None and self.actual is not None:
            return f"{number(self.actual)} where nothing was expected"
        if self.actual is None:
            return "its values are not known"
        said = f"{number(self.actual)} instead of {number(self.expected)}"
        if self.kind in ("rate", "scale") and self.expected and self.actual is not None:
            said += f" (ratio {self.actual / self.expected:.3g})"
        return said


@dataclass(frozen=True)
class Compared:
    """A series that was compared value by value.

    Args:
        metric, kind: which, and what it tells.
        steps: the iterations at which both sides have a value, ascending.
        off: the first iteration at which it is not what it should be; None where it is right.
    """

    metric: str
    kind: Tells
    steps: tuple[int, ...]
    off: int | None

    def right(self, first: int, last: int) -> bool:
        """Whether it has a value in ``first..last``, and none up to ``last`` that is off."""
        return (self.off is None or self.off > last) and any(first <= step <= last for step in self.steps)


def kind_of(metric: str) -> Tells:
    """What a metric tells, by its name."""
    return about(metric).tells


def deviations(
    checks: Iterable[Check],
    expected: Mapping[str, Series] | None = None,
    actual: Mapping[str, Series] | None = None,
) -> list[Deviation]:
    """What failed, by iteration and then in the order of cause; time and memory are not among it.

    Args:
        checks: of curves; passed ones are no matter.
        expected, actual: where the values are taken from; without them, the worst of each check.
    """
    found = []
    for check in checks:
        if check.passed or check.metric is None or check.first_bad_step is None or is_bounded(check.metric):
            continue
        step = check.first_bad_step
        if expected is not None and actual is not None:
            mine, theirs = actual.get(check.metric), expected.get(check.metric)
            if mine is not None and theirs is not None and check.kind == "exact":
                step = min(step, _first_apart(mine, theirs, step))  # before the steps that are missing
            a, b = _at(theirs, step), _at(mine, step)
        elif check.worst is not None and check.worst.step == step:
            values = (check.worst.expected, check.worst.actual)
            a, b = (value if isinstance(value, (int, float)) else None for value in values)
        else:
            a = b = None
        found.append(Deviation(check.metric, kind_of(check.metric), step, a, b))
    return sorted(found, key=lambda d: (d.step, _ORDER.index(d.kind), d.metric))


def compared(
    checks: Iterable[Check],
    off: Iterable[Deviation],
    expected: Mapping[str, Series],
    actual: Mapping[str, Series],
) -> list[Compared]:
    """The series that were compared, what is off or not; time and memory are not among them.

    Args:
        checks: of these two runs, passed or not.
        off: what they found.
        expected, actual: the two runs.
    """
    import numpy as np

    since = {deviation.metric: deviation.step for deviation in off}
    found = []
    for check in checks:
        name = check.metric
        if name is None or check.kind not in BY_VALUE or is_bounded(name):
            continue
        if name not in expected or name not in actual or (not check.passed and name not in since):
            continue
        both = np.intersect1d(expected[name].steps, actual[name].steps)
        found.append(Compared(name, kind_of(name), tuple(int(s) for s in both), since.get(name)))
    return found


def _at(series: Series | None, step: int) -> float | None:
    if series is None:
        return None
    found = series.values[series.steps == step]
    return float(found[-1]) if found.size else None


def _first_apart(mine: Series, theirs: Series, otherwise: int) -> int:
    import numpy as np

    both, a, b = np.intersect1d(mine.steps, theirs.steps, return_indices=True)
    apart = both[mine.values[a] != theirs.values[b]]
    return int(apart[0]) if apart.size else otherwise


def same_at_common_steps(actual: Series, expected: Series, start: int) -> bool | None:
    """Whether two series are alike from ``start`` on, where both have a value; None where neither has."""
    import numpy as np

    both, a, b = np.intersect1d(actual.steps, expected.steps, return_indices=True)
    kept = both >= start
    if not kept.any():
        return None
    return bool(np.allclose(actual.values[a][kept], expected.values[b][kept], rtol=_ALIKE, atol=0.0))


def first_step(series: Mapping[str, Series], after: int | None = None) -> int | None:
    """The first iteration that a run logged, or the first behind ``after``."""
    steps = [line.steps if after is None else line.steps[line.steps > after] for line in series.values()]
    return min((int(found.min()) for found in steps if found.size), default=None)


def number_of(k: int, series: Mapping[str, Series]) -> int:
    """The number of the k-th iteration as the run counts: from 1, or from 0 where a curve begins 0, 1."""
    return k - any({0, 1} <= set(line.steps[:2].tolist()) for line in series.values())


def last_step(series: Mapping[str, Series]) -> int | None:
    """The last iteration that a run logged."""
    return max((int(line.steps.max()) for line in series.values() if line.steps.size), default=None)


def same_as(actual: Series, expected: Series, start: int) -> int | None:
    """The iteration of ``expected`` whose values, from it on, are those of ``actual`` from ``start`` on.

    None where there is no such iteration, several, or it is ``start`` itself; and where the values do
    not move, since they then say nothing of where they are.
    """
    import numpy as np

    mine = actual.values[actual.steps >= start]
    if mine.size < _ENOUGH:
        return None
    found = []
    for at in range(expected.values.size):
        length = min(mine.size, expected.values.size - at)
        if length < _ENOUGH:
            break
        theirs = expected.values[at : at + length]
        if np.allclose(theirs, mine[:length], rtol=_ALIKE, atol=0.0) and np.ptp(theirs) > 0:
            found.append(int(expected.steps[at]))
    return found[0] if len(found) == 1 and found[0] != start else None


def ratios(actual: Series, expected: Series, start: int) -> tuple[float, float] | None:
    """The lowest and highest actual / expected over common iterations from ``start`` on."""
    import numpy as np

    _, a, b = np.intersect1d(actual.steps[actual.steps >= start], expected.steps, return_indices=True)
    over = expected.values[b]
    if not over.size or not over.all():
        return None
    found = actual.values[actual.steps >= start][a] / over
    return float(found.min()), float(found.max())


def moves(line: Series, start: int) -> bool:
    """Whether its values are not all the same from ``start`` on."""
    return len({*line.values[line.steps >= start].tolist()}) > 1


def in_step(actual: Series, expected: Series, start: int) -> bool:
    """Whether one is a constant times the other from ``start`` on: the same movement, of another size."""
    over = ratios(actual, expected, start)
    return over is not None and over[1] - over[0] <= 1e-3 * abs(over[1])


def ordinal(step: int, k: int) -> str:
    """Where an iteration is: ``the first after the resume``, ``the 11th after the resume``."""
    behind = step - k
    if behind < 1:
        return "before the resume"
    named: Sequence[str] = ("first", "second", "third")
    if behind <= len(named):
        return f"the {named[behind - 1]} after the resume"
    ending = "th" if 11 <= behind % 100 <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(behind % 10, "th")
    return f"the {behind}{ending} after the resume"
