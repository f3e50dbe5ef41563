"""Series, and their readers: TensorBoard event files, JSON lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
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
            judge them.
        values: float64, same length.
    """

    name: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
