"""What changes with progress: learning rate, weight decay, batch size, loss scale."""

from __future__ import annotations

import math
from typing import Any

from harness.errors import CheckpointError
from harness.trainers.native.arguments import Arguments


class ParamScheduler:
    """Megatron-LM's optimizer-parameter scheduler; progress is counted in samples.

    ``groups`` are the optimizer's parameter groups; each carries its own ``max_lr`` and ``min_lr``
    (the decoupled rate is only that). :meth:`step` sets ``lr`` and ``weight_decay`` in them.
    """

    def __init__(self, args: Arguments, groups: list[dict[str, Any]]) -> None:
        size = args.global_batch_size
        self.groups, self.style = groups, args.lr_decay_style
        self.decay_steps = args.lr_decay_iters * size
        fraction = args.lr_warmup_fraction
        self.warmup_steps = (
            fraction * self.decay_steps if fraction is not None else args.lr_warmup_iters * size
        )
        self.init_lr = args.lr_warmup_init
        self.wd = (args.start_weight_decay or 0.0, args.end_weight_decay or 0.0)
        self.wd_style = args.weight_decay_incr_style
        self.wd_steps = args.train_iters * size
        self.override = args.override_opt_param_scheduler
        self.use_checkpoint = args.use_checkpoint_opt_param_scheduler
        self.num_steps = 0
        self.step(0)

    def lr(self, group: dict[str, Any]) -> float:
        """Learning rate of a parameter group at the present number of steps."""
        high, low, n = group["max_lr"], group["min_lr"], self.num_steps
        if self.warmup_steps > 0 and n <= self.warmup_steps:
            return float(self.init_lr + (high - self.init_lr) * n / self.warmup_steps)
        if self.style == "constant":
            return float(high)
        if n > self.decay_steps:
            return float(low)
        ratio = (n - self.warmup_steps) / (self.decay_steps - self.warmup_steps)
        rest = 1.0 - ratio if self.style == "linear" else 0.5 * (math.cos(math.pi * ratio) + 1.0)
        return float(low + rest * (high - low))

    def weight_decay(self) -> float:
        """Weight decay of the groups that decay."""
        start, end = self.wd
        if self.wd_style == "constant" or self.num_steps > self.wd_steps:
            return end
        ratio = self.num_steps / self.wd_steps
        rest = ratio if self.wd_style == "linear" else 0.5 * (1.0 - math.cos(math.pi * ratio))
        return start + rest * (end - start)

    def step(self, increment: int) -> None:
        """Advance by ``increment`` samples and write the rates into the groups."""
        self.num_steps += increment
        decay = self.weight_decay()
        for group in self.groups:
            group["lr"] = self.lr(group)
            group["weight_decay"] = decay if group["decays"] else 0.0

    def state(self) -> dict[str, float]:
        """What a resume needs; the numbers that follow from the arguments are kept to compare."""
        return {
            "num_steps": self.num_steps,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
            "start_wd": self.wd[0],
            "end_wd": self.wd[1],
        }

    def restore(self, state: dict[str, float]) -> None:
        """Continue from a checkpoint; numbers that the arguments contradict are an error.

        ``--override-opt-param-scheduler`` prefers the arguments and
        ``--use-checkpoint-opt-param-scheduler`` the checkpoint, as in Megatron-LM.
        """
        mine = self.state()
        for name in ("warmup_steps", "decay_steps", "start_wd", "end_wd"):
            if mine[name] == state[name] or self.override:
                continue
            if not self.use_checkpoint:
                raise CheckpointError(
                    f"scheduler {name}: {state[name]} in the checkpoint, {mine[name]} by arguments",
                    "pass --override-opt-param-scheduler or --use-checkpoint-opt-param-scheduler",
                )
        if self.use_checkpoint and not self.override:
            self.warmup_steps, self.decay_steps = state["warmup_steps"], int(state["decay_steps"])
            self.wd = (state["start_wd"], state["end_wd"])
        self.num_steps = 0
        self.step(int(state["num_steps"]))


def batch_size(args: Arguments, consumed: int) -> int:
    """Global batch size after ``consumed`` samples, under ``--rampup-batch-size``."""
    if not args.rampup_batch_size:
        return args.global_batch_size
    start, increment, samples = args.rampup_batch_size
    if consumed >= samples or start >= args.global_batch_size:
        return args.global_batch_size
    increments = (args.global_batch_size - start) // increment
    per_increment = samples / increments
    return int(start + int(consumed / per_increment) * increment)


class LossScaler:
    """Megatron-LM's dynamic loss scale for fp16, or a constant one."""

    def __init__(self, args: Arguments) -> None:
        self.dynamic = args.fp16 and not args.loss_scale
        initial = args.initial_loss_scale if args.fp16 else 1.0
        self.scale = args.loss_scale or initial
        self.minimum, self.window = args.min_loss_scale, args.loss_scale_window
        self.hysteresis = args.hysteresis
        self.growth_tracker = 0
        self.hysteresis_tracker = self.hysteresis

    def update(self, *, found_inf: bool) -> None:
        """After a step: halve on overflow past the hysteresis, double after a quiet window."""
        if not self.dynamic:
            return
        if found_inf:
            self.growth_tracker = 0
            self.hysteresis_tracker -= 1
            if self.hysteresis_tracker <= 0:
                self.scale = max(self.scale * 0.5, self.minimum)
            return
        self.growth_tracker += 1
        if self.growth_tracker == self.window:
            self.growth_tracker = 0
            self.hysteresis_tracker = self.hysteresis
            self.scale *= 2.0

    def state(self) -> dict[str, float]:
        """Scale and both trackers."""
        return {
            "scale": self.scale,
            "growth_tracker": self.growth_tracker,
            "hysteresis_tracker": self.hysteresis_tracker,
        }

    def restore(self, state: dict[str, float]) -> None:
        """Continue where :meth:`state` left off."""
        self.scale = state["scale"]
        self.growth_tracker = int(state["growth_tracker"])
        self.hysteresis_tracker = int(state["hysteresis_tracker"])
