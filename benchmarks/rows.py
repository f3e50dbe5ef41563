"""One row of the table of speed claims: two ways, measured side by side in the same run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any


def row(what: str, ours: Sequence[float], theirs: Sequence[float], goal: str) -> dict[str, Any]:
    """Medians of interleaved repeats, and the range of the ratio between those made side by side.

    Args:
        what: what was measured, with its size.
        ours, theirs: seconds, one each a repeat.
        goal: what the ratio has to be, e.g. ``<= 1.15``.
    """
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "what": what,
        "ours": round(statistics.median(ours), 4),
        "theirs": round(statistics.median(theirs), 4),
        "ratio": round(statistics.median(ratios), 3),
        "goal": goal,
        "repeats": len(ratios),
        "spread": f"{min(ratios):.3f} to {max(ratios):.3f}",
    }


def show(rows: Iterable[dict[str, Any]]) -> None:
    """Print each row as a line of JSON, as soon as there is one."""
    for found in rows:
        print(json.dumps(found), flush=True)
