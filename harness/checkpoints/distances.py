"""How far two states are apart where they are floats: for training that does not repeat its own bits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.checkpoints.checkpoint import open_checkpoint
from harness.checkpoints.entries import Entry, Reader
from harness.checkpoints.places import Places

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.checkpoints.compare import StateDiff

_FLOATS = {"float64": "f8", "float32": "f4", "float16": "f2", "Python float": "f8"}


def distances(difference: StateDiff, places: Places) -> Mapping[str, float]:
    """Root of the mean square of b − a, relative to that of a, of every float tensor that differs in values.

    NaN where that says nothing: infinities and NaN that are others, or a that is 0 all over.

    Args:
        difference: of the two checkpoints, made with the same places.

    Raises:
        CheckpointError: one of them cannot be read any more.
    """
    one, two = (open_checkpoint(Path(path), places) for path in (difference.a, difference.b))
    found = {}
    with Reader() as reader:
        for entry in difference.entries:
            a, b = one.entries.get(entry.name), two.entries.get(entry.name)
            if entry.reason == "values" and a is not None and b is not None and is_float(a.dtype):
                found[entry.name] = _distance(a, b, reader)
    return found


def is_float(dtype: str) -> bool:
    """Whether values of a dtype are rounded."""
    return dtype in _FLOATS or dtype == "bfloat16"


def _distance(a: Entry, b: Entry, reader: Reader) -> float:
    import numpy as np

    apart = size = 0.0
    for (_, one), (_, two) in zip(reader.stream(a), reader.stream(b), strict=True):
        x, y = (_as_float(bits, entry.dtype) for bits, entry in ((one, a), (two, b)))
        finite = np.isfinite(x) & np.isfinite(y)
        if not np.array_equal(x[~finite], y[~finite], equal_nan=True):
            return math.nan
        apart += float(np.square(y[finite] - x[finite]).sum())
        size += float(np.square(x[finite]).sum())
    return math.sqrt(apart / size) if size else math.nan


def _as_float(bits: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    flat = bits.reshape(-1)
    if dtype == "bfloat16":
        return (flat.astype("<u4") << 16).view("<f4").astype("f8")
    return flat.view(_FLOATS[dtype]).astype("f8")
