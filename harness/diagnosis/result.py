"""The words for what can be lost, and the answer of a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

COMPONENTS: Final = (
    "weights", "optimizer", "lr-schedule", "rng", "data-order", "grad-scaler", "experts", "embedding",
    "buffers", "iteration", "checkpoint", "performance", "memory", "nondeterminism", "crash", "unknown",
)  # fmt: skip
#: What a tensor of the model can be called; the optimizer holds moments of each.
PARAMETERS: Final = ("weights", "experts", "embedding")


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


@dataclass(frozen=True)
class Finding:
    """One thing that speaks for one component.

    Args:
        component: one of :data:`COMPONENTS`.
        sentence: what was seen.
    """

    component: str
    sentence: str


def number(value: float | None) -> str:
    """A number as a sentence holds it."""
    if value is None:
        return "nothing"
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"
