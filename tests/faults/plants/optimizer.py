"""Adam's own state, and the gradients on their way to it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from harness.trainers.native.checkpoint import Checkpointer
from harness.trainers.native.loop import Trainer
from harness.trainers.native.optimizer import MOMENTS
from harness.trainers.native.state import TrainingState
from tests.faults.plants.patching import Method, after_load, forget, instead_of

_DEFAULT_LR, _DEFAULT_BETAS = 1e-3, (0.9, 0.999)  # of torch's AdamW


def first_group_only() -> None:
    """Rate and betas come back in the first parameter group; the others get AdamW's defaults."""

    def default(state: TrainingState) -> None:
        for group in state.scheduler.groups[1:]:
            group["lr"], group["betas"] = _DEFAULT_LR, _DEFAULT_BETAS

    after_load(default)


def second_gets_the_firsts() -> None:
    """The experts' optimizer is given the state of the dense one."""

    def mix(state: TrainingState) -> None:
        dense, expert = state.optimizers
        for name in MOMENTS:
            source, target = dense.moments[name], expert.moments[name]
            times = -(-target.numel() // source.numel())
            target.copy_(source.repeat(times)[: target.numel()])

    after_load(mix)


def step_count_dropped() -> None:
    """The step counts are in no checkpoint, and begin at 0."""
    forget(r"^optimizer\.step\.")


def converted_without_step() -> None:
    """A converter between two formats carries the moments over and no step counts."""

    @instead_of(Checkpointer, "_read_torch")
    def convert(original: Method, self: Checkpointer, *where: Any) -> dict[str, Tensor]:
        values: dict[str, Tensor] = original(self, *where)
        counts = {k: v.new_zeros(()) for k, v in values.items() if k.startswith("optimizer.step.")}
        return values | counts


def partial_gradients_lost() -> None:
    """Gradients of an unfinished accumulation window are in no checkpoint."""
    forget(r"^optimizer\.accumulated\.")


def first_microbatch_flag() -> None:
    """A flag of the process, not saved, has its second micro-batch overwrite the first's gradient."""

    @instead_of(Trainer, "__init__")
    def init(original: Method, self: Trainer, *args: Any) -> None:
        original(self, *args)
        pipeline, optimizers = self.pipeline, self.state.optimizers
        fresh = [True]

        @instead_of(pipeline, "train")
        def train(original: Method, batches: Any, scale: float) -> Any:
            if fresh[0] and len(batches) > 1:
                fresh[0] = False
                losses = original(batches[:1], scale)
                for optimizer in optimizers:
                    optimizer.grads.zero_()
                return losses + original(batches[1:], scale)
            return original(batches, scale)
