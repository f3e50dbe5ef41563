"""Random streams that do not go on where they stopped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from harness.trainers.native.checkpoint import Checkpointer
from harness.trainers.native.rng import COMMON
from harness.trainers.native.state import TrainingState
from tests.faults.plants.patching import Method, instead_of


def peers_stream() -> None:
    """Streams of a stage are saved as copies of one: one rank's is written, all restore it."""

    @instead_of(TrainingState, "rng_key")
    def key(_: Method, self: TrainingState, stream: str, __: int) -> str:
        return f"rng.{stream}.0_{self.layout.pp_rank}_0"

    @instead_of(TrainingState, "entries")
    def entries(original: Method, self: TrainingState, **parts: bool) -> dict[str, Any]:
        first = self.layout.ep_rank == 0
        return {
            key: replace(entry, owner=first) if key.startswith("rng.") else entry
            for key, entry in original(self, **parts).items()
        }


def iterator_draws() -> None:
    """Building the data iterator, after the load, draws its base seed from the common stream."""

    @instead_of(Checkpointer, "load")
    def load(original: Method, self: Checkpointer) -> bool:
        loaded: bool = original(self)
        generator = self.state.streams.generators[COMMON]
        torch.empty((), dtype=torch.int64).random_(generator=generator)
        return loaded


def reseeded() -> None:
    """An initialisation step after the load sets the seed again."""

    @instead_of(Checkpointer, "load")
    def load(original: Method, self: Checkpointer) -> bool:
        # Read before the load: restoring a stream brings back its initial seed too.
        seeds = {name: g.initial_seed() for name, g in self.state.streams.generators.items()}
        loaded: bool = original(self)
        for name, generator in self.state.streams.generators.items():
            generator.manual_seed(seeds[name])
        return loaded


def not_at_an_epoch_boundary() -> None:
    """Streams are restored only where an epoch is taken up in its middle."""

    @instead_of(TrainingState, "_restore_rng")
    def restore(original: Method, self: TrainingState, values: Any) -> None:
        sampler = self.data.train.sampler
        if sampler.position not in (0, sampler.size):
            original(self, values)
