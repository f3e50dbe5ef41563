"""Series: one metric's values by step."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


#: From here on not every whole number is a float64.
WHOLE = 2.0**53


@dataclass(frozen=True, eq=False)
class Series:
    """One metric's values by step.

    Args:
        name: the metric.
        steps: int64, in the order they were logged: repeated and backward steps are kept, checks
            judge them. Read-only from here on.
        values: float64, same length; NaN and infinities are kept, checks judge them too.
        rest: what whole numbers beyond 2**53 have more than their float64, as Python's integers, same
            length; None where no value has anything.
    """

    name: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    rest: NDArray[np.object_] | None = None

    def __post_init__(self) -> None:
        import numpy as np

        # A view: the caller's own array stays as writable as it was.
        steps = np.asarray(self.steps, np.int64).view()
        values = np.asarray(self.values, np.float64).view()
        if steps.ndim != 1 or steps.shape != values.shape:
            raise ValueError(f"{self.name}: steps {steps.shape} and values {values.shape}")
        steps.flags.writeable = values.flags.writeable = False
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "values", values)
        if self.rest is not None:
            rest = np.asarray(self.rest, object).view()
            if rest.shape != values.shape:
                raise ValueError(f"{self.name}: values {values.shape} and rest {rest.shape}")
            rest.flags.writeable = False
            object.__setattr__(self, "rest", rest if rest.any() else None)

    @classmethod
    def of(cls, name: str, steps: Iterable[int], numbers: Sequence[float]) -> Series:
        """Python's numbers as a series; whole ones stay exact, however large.

        Raises:
            OverflowError: a whole number that is larger than any float.
        """
        import numpy as np

        values = np.fromiter(map(float, numbers), np.float64, len(numbers))
        rest = None
        if (np.abs(values) >= WHOLE).any():
            rest = np.zeros(len(numbers), object)
            for i, number in enumerate(numbers):
                if type(number) is int:
                    rest[i] = number - int(values[i])
        return cls(name, np.fromiter(steps, np.int64, len(numbers)), values, rest)

    @classmethod
    def known_clean(cls, name: str, steps: NDArray[np.int64], values: NDArray[np.float64]) -> Series:
        """A series of whose steps and values the caller knows that they are :attr:`clean`."""
        found = cls(name, steps, values)
        found.__dict__["clean"] = True  # where cached_property keeps what it has found
        return found

    def numbers(self) -> list[float]:
        """The values as Python's numbers: floats, and integers where floats are not all that was logged."""
        found: list[float] = self.values.tolist()
        return found if self.rest is None else whole_numbers(self.values, self.rest)

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        span = f"steps {self.steps[0]}..{self.steps[-1]}" if len(self) else "no steps"
        return f"Series({self.name!r}, {len(self)} values, {span})"

    @functools.cached_property
    def clean(self) -> bool:
        """Whether its steps only go up and its values are finite."""
        import numpy as np

        # count_nonzero: on the hundred values of a short run, two thirds of the time of all().
        if np.count_nonzero(self.steps[1:] <= self.steps[:-1]):
            return False
        return np.count_nonzero(np.isfinite(self.values)) == len(self.values)

    def at(self, first: int, last: int) -> Series:
        """What was logged at the steps ``first..last``, both included, in the same order."""
        if len(self) and self.steps[0] >= first and self.steps.min() >= first and self.steps.max() <= last:
            return self
        return self.kept((self.steps >= first) & (self.steps <= last))

    def kept(self, mask: NDArray[np.bool_]) -> Series:
        """What ``mask`` is true for, in the same order."""
        rest = None if self.rest is None else self.rest[mask]
        return Series(self.name, self.steps[mask], self.values[mask], rest)

    def once(self) -> Series:
        """Without what was logged again for a step with the same value; where one is another, all of it.

        A trainer logs some again in its last words. What is logged again as another value is for the checks.
        """
        if self.clean:
            return self
        import numpy as np

        known: dict[int, tuple[int, object]] = {}
        kept = np.ones(len(self), bool)
        bits = self.values.view(np.int64)
        for i, step in enumerate(self.steps.tolist()):
            value = int(bits[i]), None if self.rest is None else self.rest[i]
            if known.setdefault(step, value) != value:
                return self
            kept[i] = known[step] is value
        return self if kept.all() else self.kept(kept)

    def rounded(self, decimals: int) -> Series:
        """With as many decimals, as somebody may have written them down."""
        import numpy as np

        return Series(self.name, self.steps, np.round(self.values, decimals), self.rest)

    def followed_by(self, later: Series) -> Series:
        """This series and then ``later``, as one run would have logged them."""
        import numpy as np

        return Series(
            self.name,
            np.concatenate([self.steps, later.steps]),
            np.concatenate([self.values, later.values]),
            None if self.rest is later.rest is None else np.concatenate([_rest(self), _rest(later)]),
        )


def whole_numbers(values: NDArray[np.float64], rest: NDArray[np.object_] | None) -> list[float]:
    """float64 ``[n]`` and what whole numbers have more (``[n]``, or None), as Python's numbers.

    Those from 2**53 on are integers: every float is a whole number there.
    """
    import numpy as np

    found: list[float] = values.tolist()
    for i in np.flatnonzero((np.abs(values) >= WHOLE) & np.isfinite(values)).tolist():
        found[i] = int(found[i]) + (0 if rest is None else rest[i])
    return found


def _rest(series: Series) -> NDArray[Any]:
    import numpy as np

    return np.zeros(len(series), object) if series.rest is None else series.rest


def join(before: Mapping[str, Series], after: Mapping[str, Series]) -> dict[str, Series]:
    """The curves of a run that was stopped and went on."""
    return {
        name: before[name].followed_by(later) if name in before and name in after else later
        for name, later in {**before, **after}.items()
    }
