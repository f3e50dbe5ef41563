"""Weights that are not those that were saved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from harness.trainers.native.checkpoint import Checkpointer
from harness.trainers.native.optimizer import ShardedAdamW
from harness.trainers.native.state import Entry, TrainingState
from tests.faults.plants.patching import Method, forget, instead_of


def gather_skipped() -> None:
    """The parameters are made whole by the next forward pass, so a save holds other ranks' parts as
    they were one step ago; after a load, which should make them whole, nobody does.
    """
    before: dict[int, torch.Tensor] = {}
    loading = [False]

    @instead_of(ShardedAdamW, "publish")
    def publish(original: Method, self: ShardedAdamW) -> None:
        if loading[0]:
            self.flat[self.begin : self.end].copy_(self.master)
            return
        before[id(self)] = self.flat.clone()
        original(self)

    @instead_of(Checkpointer, "save")
    def save(original: Method, self: Checkpointer) -> None:
        fresh = {id(o): o.flat.clone() for o in self.state.optimizers}
        for o in self.state.optimizers:
            if id(o) in before:
                o.flat.copy_(before[id(o)])
                o.flat[o.begin : o.end].copy_(fresh[id(o)][o.begin : o.end])
        original(self)
        for o in self.state.optimizers:
            o.flat.copy_(fresh[id(o)])

    @instead_of(Checkpointer, "load")
    def load(original: Method, self: Checkpointer) -> bool:
        loading[0] = True
        loaded: bool = original(self)
        loading[0] = False
        return loaded


def rebuilt_from_bf16() -> None:
    """After a load the half-precision weights come from a bfloat16 copy, not from the masters."""
    loading = [False]

    @instead_of(ShardedAdamW, "publish")
    def publish(original: Method, self: ShardedAdamW) -> None:
        original(self)
        if loading[0]:
            self.flat.copy_(self.flat.bfloat16())

    @instead_of(Checkpointer, "load")
    def load(original: Method, self: Checkpointer) -> bool:
        loading[0] = True
        loaded: bool = original(self)
        loading[0] = False
        return loaded


def masters_not_saved() -> None:
    """The float32 masters are in no checkpoint; a load makes them from the bfloat16 weights."""
    forget(r"^optimizer\.master\.")

    @instead_of(TrainingState, "_restore_optimizer")
    def restore(original: Method, self: TrainingState, optimizer: ShardedAdamW, value: Any) -> None:
        original(self, optimizer, value)
        optimizer.master.copy_(optimizer.flat[optimizer.begin : optimizer.end])


def even_vocabulary() -> None:
    """A load cuts the vocabulary into even parts, though the saved ones are padded and uneven."""
    loading = [False]

    @instead_of(TrainingState, "_entry")
    def entry(original: Method, self: TrainingState, *which: Any) -> Entry:
        found: Entry = original(self, *which)
        vocabulary = self.data.args.vocab_size
        if not loading[0] or found.offset[0] == 0 or found.shape[0] != vocabulary:
            return found
        first = vocabulary // self.layout.tp * self.layout.tp_rank
        return replace(found, offset=(first, *found.offset[1:]))

    @instead_of(Checkpointer, "load")
    def load(original: Method, self: Checkpointer) -> bool:
        loading[0] = True
        loaded: bool = original(self)
        loading[0] = False
        return loaded
