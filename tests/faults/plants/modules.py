"""Buffers, embeddings and experts that are lost."""

from __future__ import annotations

from typing import Any

from harness.checkpoints.components import TIED_COPY, TIED_SOURCE
from harness.trainers.native.checkpoint import Checkpointer
from harness.trainers.native.state import Entry, TrainingState
from tests.faults.plants.patching import Method, after_load, forget, forget_on_load, instead_of


def scale_not_recomputed() -> None:
    """The maxima come back, the scale that follows from them stays what a new module has."""

    def stale(state: TrainingState) -> None:
        for name, (_, buffer) in state.buffers.items():
            if name.endswith(".fp8.scale"):
                buffer.fill_(1.0)

    after_load(stale)


def counter_reset() -> None:
    """The number of updates of the averaged weights is not taken up."""
    forget_on_load(r"^buffer\.ema\.num_updates$")


def head_dropped() -> None:
    """The output layer is taken for tied: it is not saved, and loaded as the embedding."""
    head, source = f"model.{TIED_COPY}", f"model.{TIED_SOURCE}"

    @instead_of(TrainingState, "entries")
    def entries(original: Method, self: TrainingState, **parts: bool) -> dict[str, Entry]:
        return {key: entry for key, entry in original(self, **parts).items() if key != head}

    @instead_of(TrainingState, "restore")
    def restore(original: Method, self: TrainingState, values: Any, **parts: bool) -> None:
        original(self, {**values, head: values[source]}, **parts)


def copy_not_synchronised() -> None:
    """The last stage's copy of the embedding is not brought up to date by a load."""
    forget_on_load(r"^model\.output_layer\.weight$")


def bias_not_saved() -> None:
    """The router's expert bias is in no checkpoint."""
    forget(r"^buffer\..*\.expert_bias$")


def one_ranks_experts() -> None:
    """Only the first expert-parallel rank writes its experts; the others keep theirs as made."""
    pattern = r"\.experts\."

    @instead_of(Checkpointer, "__init__")
    def init(original: Method, self: Checkpointer, args: Any, state: TrainingState) -> None:
        original(self, args, state)
        if state.layout.ep_rank > 0:
            forget(pattern)
