"""What some classes of faults need and the native trainer has not: added from outside, rightly saved.

A clean run of such a case has the feature too; the fault is planted on top of it.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from harness.trainers.native.layers import Spec
from harness.trainers.native.loop import Outcome, Trainer
from harness.trainers.native.optimizer import ShardedAdamW
from harness.trainers.native.state import TrainingState
from tests.faults.plants.patching import Method, instead_of

WINDOW = 3


def averaged_weights() -> None:
    """An exponential moving average of the weights, used for validation.

    Its decay grows with the number of updates, min(0.999, (1 + n) / (10 + n)). State:
    ``buffer.ema.num_updates`` and ``buffer.ema.<parameter>``.
    """

    @instead_of(Trainer, "__init__")
    def init(original: Method, self: Trainer, *args: Any) -> None:
        original(self, *args)
        held = self.state.buffers
        held["ema.num_updates"] = (Spec("ema.num_updates", (), (), 1), torch.zeros(()))
        for optimizer in self.state.optimizers:
            optimizer.averages = optimizer.flat.float().clone()  # type: ignore[attr-defined]
            for slot in optimizer.slots:
                spec = slot.spec
                part = optimizer.averages[slot.start : slot.stop]  # type: ignore[attr-defined]
                held[f"ema.{spec.name}"] = (spec, part.view_as(slot.parameter)[: spec.rows])

    @instead_of(Trainer, "update")
    def update(original: Method, self: Trainer) -> Outcome:
        outcome: Outcome = original(self)
        count = self.state.buffers["ema.num_updates"][1]
        count += 1
        decay = min(0.999, float((1 + count) / (10 + count)))
        for optimizer in self.state.optimizers:
            optimizer.averages.lerp_(optimizer.flat.float(), 1 - decay)  # type: ignore[attr-defined]
        return outcome

    @instead_of(Trainer, "evaluate")
    def evaluate(original: Method, self: Trainer) -> dict[str, float]:
        trained = [optimizer.flat.clone() for optimizer in self.state.optimizers]
        for optimizer in self.state.optimizers:
            optimizer.flat.copy_(optimizer.averages)  # type: ignore[attr-defined]
        found: dict[str, float] = original(self)
        for optimizer, flat in zip(self.state.optimizers, trained, strict=True):
            optimizer.flat.copy_(flat)
        return found


def accumulation_over_iterations() -> None:
    """The optimizer steps after every third iteration; gradients add up in between (float32, DP 1).

    State: ``optimizer.accumulated.<parameter>``.
    """

    @instead_of(Trainer, "update")
    def update(original: Method, self: Trainer) -> Outcome:
        if (self.state.iteration + 1) % WINDOW == 0:
            outcome: Outcome = original(self)
            return outcome
        self.finalize_grads()
        squares, zeros = 0.0, 0
        for optimizer in self.state.optimizers:
            squares += optimizer.sum_of_squares(optimizer.grads)
            zeros += optimizer.zeros()
        return Outcome(math.sqrt(squares), zeros, skipped=False)

    @instead_of(TrainingState, "_shards")
    def shards(original: Method, optimizer: ShardedAdamW) -> dict[str, torch.Tensor]:
        return {**original(optimizer), "accumulated": optimizer.grads}
