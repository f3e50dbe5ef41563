"""Series: one metric's values by step."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Series:
    """One metric's values by step.

    Args:
        name: the metric.
        steps: int64, in the order they were logged: repeated and backward steps are kept, checks
            judge them. Read-only from here on.
        values: float64, same length; NaN and infinities are kept, checks judge them too.
    """

    name: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]

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

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        span = f"steps {self.steps[0]}..{self.steps[-1]}" if len(self) else "no steps"
        return f"Series({self.name!r}, {len(self)} values, {span})"

    @functools.cached_property
    def clean(self) -> bool:
        """Whether its steps only go up and its values are finite."""
        import numpy as np

        return bool(np.all(self.steps[1:] > self.steps[:-1]) and np.isfinite(self.values).all())

    def at(self, first: int, last: int) -> Series:
        """What was logged at the steps ``first..last``, both included, in the same order."""
        if len(self) and self.steps[0] >= first and self.steps.min() >= first and self.steps.max() <= last:
            return self
        inside = (self.steps >= first) & (self.steps <= last)
        return Series(self.name, self.steps[inside], self.values[inside])

    def followed_by(self, later: Series) -> Series:
        """This series and then ``later``, as one run would have logged them."""
        import numpy as np

        return Series(
            self.name,
            np.concatenate([self.steps, later.steps]),
            np.concatenate([self.values, later.values]),
        )


def join(before: Mapping[str, Series], after: Mapping[str, Series]) -> dict[str, Series]:
    """The curves of a run that was stopped and went on."""
    return {
        name: before[name].followed_by(later) if name in before and name in after else later
        for name, later in {**before, **after}.items()
    }
