"""The words for what can be lost, and the answer of a diagnosis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: The words for what can be lost, and what each of them means.
COMPONENTS: Final[Mapping[str, str]] = {
    "weights": "the model's weights",
    "optimizer": "the optimizer's state: moments, step counts or master weights",
    "lr-schedule": "the position of the learning-rate schedule",
    "rng": "a random number stream",
    "data-order": "the place in the data",
    "grad-scaler": "the loss scale of the gradient scaler",
    "experts": "experts, or their router",
    "embedding": "the embedding, or the head tied to it",
    "buffers": "buffers: state that is neither weight nor optimizer",
    "iteration": "the iteration count",
    "checkpoint": "the checkpoint itself: missing, torn, or not the one that the tracker names",
    "performance": "speed",
    "memory": "memory",
    "nondeterminism": "nothing for certain: the same run does not repeat its own bits",
    "crash": "the run: a rank died or hung",
    "unknown": "something that the evidence does not name",
}
#: Components of a training state in the order of cause: what is named where nothing else decides.
CAUSES: Final = (
    "checkpoint", "iteration", "data-order", "lr-schedule", "grad-scaler", "rng", "buffers", "experts",
    "embedding", "weights", "optimizer", "unknown",
)  # fmt: skip
#: What a tensor of the model can be called; the optimizer holds moments of each.
PARAMETERS: Final = ("weights", "experts", "embedding")


@dataclass(frozen=True)
class Candidate:
    """A component that may have been lost, where the evidence leaves several.

    Args:
        component: one of :data:`COMPONENTS`.
        speaks_for, against: sentences that a person can check; ``for`` and ``against`` in ``verdict.json``.
    """

    component: str
    speaks_for: tuple[str, ...] = ()
    against: tuple[str, ...] = ()

    def sentence(self) -> str:
        """``weights (for: …; against: …)``."""
        sides = (("for", self.speaks_for), ("against", self.against))
        said = "; ".join(f"{side}: {', '.join(sentences)}" for side, sentences in sides if sentences)
        return f"{self.component} ({said})" if said else self.component


@dataclass(frozen=True)
class Diagnosis:
    """What was lost.

    Args:
        component: one of :data:`COMPONENTS`.
        evidence: sentences that a person can check, the decisive one first.
        candidates: what may have been lost, likeliest first; empty where ``component`` is certain.
        entry: the entry of the saved state that says most of what was lost, ``optimizer.step.*`` where
            all of a kind was never saved; empty where none is known.
        recipes: headings of this project's documentation that say how a script keeps it: ``docs/….md#…``.
    """

    component: str
    evidence: tuple[str, ...]
    candidates: tuple[Candidate, ...] = ()
    entry: str = ""
    recipes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.component not in COMPONENTS:
            raise ValueError(f"component {self.component!r}")


@dataclass(frozen=True)
class Finding:
    """One thing that speaks for one component.

    Args:
        component: one of :data:`COMPONENTS`.
        sentence: what was seen.
        entry: the entry of the saved state in which it was seen, where it is one.
    """

    component: str
    sentence: str
    entry: str = ""


def number(value: float | None) -> str:
    """A number as a sentence holds it."""
    if value is None:
        return "nothing"
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"
