"""Where a page says how a script keeps what was lost.

The page is for scripts of one's own: what a diagnosis of the trainer ``command`` names, it has a heading for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from harness.diagnosis.result import Diagnosis

#: In the repository of this package.
PAGE: Final = "docs/resume-bit-for-bit.md"
#: The heading for each component, as an address has it.
ANCHORS: Final[Mapping[str, str]] = {
    "rng": "random-streams",
    "data-order": "the-place-in-the-data",
    "lr-schedule": "the-schedule",
    "grad-scaler": "the-scaler",
    "optimizer": "the-optimizer",
    "weights": "the-weights",
    "experts": "the-weights",
    "embedding": "the-weights",
    "buffers": "averages-and-buffers",
    "iteration": "the-step",
    "checkpoint": "one-file",
    "nondeterminism": "the-same-bits-twice",
    "unknown": "what-to-log",
}
#: For a schedule that takes the stop for its length, whichever component that is told as.
STOP_AT_K: Final = f"{PAGE}#stop-at-k"


def with_recipes(found: Diagnosis) -> Diagnosis:
    """The same, with the headings for what it names if it has none; of several candidates all of theirs."""
    if found.recipes:
        return found
    named = [*(one.component for one in found.candidates), found.component]
    anchors = dict.fromkeys(ANCHORS[component] for component in named if component in ANCHORS)
    return replace(found, recipes=tuple(f"{PAGE}#{anchor}" for anchor in anchors))
