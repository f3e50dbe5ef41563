"""Samples that come twice, never, or in another order after the resume."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.trainers.native import loop
from harness.trainers.native.arguments import Arguments
from harness.trainers.native.checkpoint import Checkpointer
from harness.trainers.native.data import Data, Sampler
from harness.trainers.native.loop import Trainer
from harness.trainers.native.state import TrainingState
from tests.faults.plants.patching import Method, after_load, instead_of


def _put(sampler: Sampler, **position: int) -> None:
    """Move the sampler without touching the count of consumed samples."""
    sampler.restore({**sampler.state(), **position})


def starts_at_zero() -> None:
    """The sampler does not look at the number of consumed samples."""
    after_load(lambda state: _put(state.data.train.sampler, epoch=0, position=0))


def offset_in_every_epoch() -> None:
    """Every epoch after the resume begins where the resumed one was taken up."""
    after_load(_remember_offset)

    @instead_of(Sampler, "take")
    def take(original: Method, self: Sampler, count: int) -> list[int]:
        taken: list[int] = []
        for _ in range(count):
            epoch = self.epoch
            one = original(self, 1)
            if self.epoch != epoch and getattr(self, "offset", 0) % self.size:
                _put(self, position=self.offset % self.size)  # type: ignore[attr-defined]
                one = [int(self._order[self.position])]
                self.position += 1
            taken += one
        return taken


def _remember_offset(state: TrainingState) -> None:
    sampler = state.data.train.sampler
    sampler.offset = sampler.position  # type: ignore[attr-defined]


def validation_starts_again() -> None:
    """Only the training sampler's position is taken up."""

    def again(state: TrainingState) -> None:
        if state.data.valid is not None:
            state.data.valid.sampler.restore({"consumed": 0, "epoch": 0, "position": 0})

    after_load(again)


def accumulation_ignored() -> None:
    """The data is moved forward by one micro-batch for each past iteration."""

    def forward(state: TrainingState) -> None:
        args, sampler = state.data.args, state.data.train.sampler
        consumed = sampler.consumed
        sampler.restore({"consumed": 0, "epoch": 0, "position": 0})
        sampler.take(state.iteration * args.micro_batch_size * args.data_parallel_size)
        sampler.consumed = consumed

    after_load(forward)


def replicas_keep_their_own() -> None:
    """Each replica saves the samples that it took itself, and looks for its own number again."""

    @instead_of(TrainingState, "_scalars")
    def scalars(original: Method, self: TrainingState, **parts: bool) -> dict[str, float | int]:
        found: dict[str, float | int] = original(self, **parts)
        share = self.data.train.sampler.consumed // self.data.args.data_parallel_size
        return {**found, "data.train.consumed": share}

    def join(state: TrainingState) -> None:
        sampler = state.data.train.sampler
        consumed = sampler.consumed * state.data.args.data_parallel_size
        sampler.restore({"consumed": 0, "epoch": 0, "position": 0})
        sampler.take(consumed)

    after_load(join)


def same_shuffle() -> None:
    """The sampler's epoch is 0 again: the first epoch's order, from the right position."""
    after_load(lambda state: _put(state.data.train.sampler, epoch=0))


def next_epoch_skipped() -> None:
    """At an epoch's end the exhausted iterator is restored into the next epoch, which is empty.

    Training is bounded by epochs: the run ends early by as many iterations, with exit 0.
    """

    @instead_of(Trainer, "run")
    def run(original: Method, self: Trainer, heartbeat: Any) -> None:
        @instead_of(self.checkpointer, "load")
        def load(original: Method) -> bool:
            loaded: bool = original()
            sampler = self.state.data.train.sampler
            if loaded and sampler.position == sampler.size:
                _put(sampler, epoch=sampler.epoch + 1)
                lost = sampler.size // self.args.global_batch_size
                stop = max(self.state.iteration, self.args.stop - lost)
                self.args = replace(self.args, harness_exit_iters=stop)
            return loaded

        original(self, heartbeat)


def ramp_restarts() -> None:
    """The batch size's ramp counts the samples of this process only."""
    began = [0]
    after_load(lambda state: began.__setitem__(0, state.data.train.sampler.consumed))

    @instead_of(loop, "batch_size")
    def batch_size(original: Method, args: Arguments, consumed: int) -> int:
        size: int = original(args, consumed - began[0])
        return size


def saved_before_counted() -> None:
    """The training position is noted for the checkpoint before the batch that it trains on."""

    @instead_of(Data, "__init__")
    def init(original: Method, self: Data, *args: Any) -> None:
        original(self, *args)
        self.train.sampler.noted = self.train.sampler.state()  # type: ignore[attr-defined]

    @instead_of(Data, "batch")
    def batch(original: Method, self: Data, split: Any, samples: int) -> Any:
        before = Sampler.state(split.sampler)
        found = original(self, split, samples)
        split.sampler.noted = before
        return found

    @instead_of(Checkpointer, "save")
    def save(original: Method, self: Checkpointer) -> None:
        sampler = self.state.data.train.sampler
        now = sampler.state()
        sampler.restore(sampler.noted)  # type: ignore[attr-defined]
        original(self)
        sampler.restore(now)

    def note(state: TrainingState) -> None:
        state.data.train.sampler.noted = state.data.train.sampler.state()  # type: ignore[attr-defined]

    after_load(note)
