"""Checks, series and state diffs → which component was lost, with the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

COMPONENTS: Final = (
    "weights", "optimizer", "lr-schedule", "rng", "data-order", "grad-scaler", "experts", "embedding",
    "buffers", "iteration", "checkpoint", "performance", "memory", "nondeterminism", "crash", "unknown",
)  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """What was lost.

    Args:
        component: one of :data:`COMPONENTS`.
        evidence: sentences that a person can check, the decisive one first.
    """

    component: str
    evidence: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.component not in COMPONENTS:
            raise ValueError(f"component {self.component!r}")
