"""The whole training state under global names, as the checkpoint formats and the state diff see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.errors import CheckpointError
from harness.trainers.native.data import Data, Sampler
from harness.trainers.native.layers import Spec
from harness.trainers.native.optimizer import MOMENTS, ShardedAdamW, Slot
from harness.trainers.native.parallel import Layout, Parallel
from harness.trainers.native.rng import Streams
from harness.trainers.native.schedules import LossScaler, ParamScheduler

#: Gives the tensor of a global key, or raises CheckpointError.
_Value = Callable[[str], Tensor]
_GROUP_FIELDS = ("lr", "max_lr", "min_lr", "weight_decay", "eps", "beta1", "beta2")


@dataclass(frozen=True)
class Entry:
    """A part of one global tensor: ``local`` sits at ``offset`` in a tensor of ``shape``.

    ``owner``: this rank writes it where equal copies exist.
    """

    local: Tensor
    shape: tuple[int, ...]
    offset: tuple[int, ...]
    owner: bool = True

    @staticmethod
    def whole(value: Tensor, *, owner: bool = True) -> Entry:
        """A tensor that is not cut."""
        return Entry(value, tuple(value.shape), (0,) * value.dim(), owner)


@dataclass(kw_only=True)
class TrainingState:
    """Everything that a resumed run must find again.

    Args:
        parallel: which part of the whole is this rank's.
        optimizers: the weights, their moments and step counts.
        buffers: what the model knows beside its weights, and its place in the whole, by global name.
        scheduler: learning rates and weight decay.
        scaler: the loss scale.
        streams: of random numbers.
        data: how far the samplers have come.
        iteration: the last one that was done.
    """

    parallel: Parallel
    optimizers: list[ShardedAdamW]
    buffers: dict[str, tuple[Spec, Tensor]]
    scheduler: ParamScheduler
    scaler: LossScaler
    streams: Streams
    data: Data
    iteration: int = 0

    @property
    def layout(self) -> Layout:
        """Sizes of the parallel dimensions, and where this rank stands in them."""
        return self.parallel.layout

    # -- out ---------------------------------------------------------------------------------

    def entries(self, *, optim: bool = True, rng: bool = True) -> dict[str, Entry]:
        """This rank's part of the state, by global key; collective over replicas.

        Tensors may be views of live ones: copy before training goes on.
        """
        out: dict[str, Entry] = {}
        for optimizer in self.optimizers:
            self._model_entries(optimizer, out)
            if optim:
                self._optimizer_entries(optimizer, out)
        for name, (spec, value) in self.buffers.items():
            out[f"buffer.{name}"] = Entry(value, spec.shape, spec.offset, spec.owner)
        lead = self.layout.rank == 0
        for key, number in self._scalars(optim=optim).items():
            everywhere = key.startswith("optimizer.group.")
            # float64: a rate rounded to float32 here would move the last bits of the resumed run
            kind = torch.float64 if isinstance(number, float) else torch.int64
            out[key] = Entry.whole(torch.tensor(number, dtype=kind), owner=lead or everywhere)
        if rng:
            for key, state in self._rng().items():
                out[key] = Entry.whole(state)
        return out

    def _entry(self, optimizer: ShardedAdamW, slot: Slot, flat: Tensor) -> Entry:
        spec = slot.spec
        local = flat[slot.start : slot.stop].view_as(slot.parameter)[: spec.rows]
        owner = spec.owner and optimizer.group.rank == 0
        return Entry(local, spec.shape, spec.offset, owner)

    def _model_entries(self, optimizer: ShardedAdamW, out: dict[str, Entry]) -> None:
        for slot in optimizer.slots:
            out[f"model.{slot.spec.name}"] = self._entry(optimizer, slot, optimizer.flat)

    def _optimizer_entries(self, optimizer: ShardedAdamW, out: dict[str, Entry]) -> None:
        for name, shard in self._shards(optimizer).items():
            whole = optimizer.gather(shard)  # [p]
            for slot in optimizer.slots:
                out[f"optimizer.{name}.{slot.spec.name}"] = self._entry(optimizer, slot, whole)
        for slot, count in zip(optimizer.slots, optimizer.steps(), strict=True):
            owner = slot.spec.owner and optimizer.group.rank == 0 and not self._cut(slot)
            value = torch.tensor(count, dtype=torch.float32)
            out[f"optimizer.step.{slot.spec.name}"] = Entry.whole(value, owner=owner)

    @staticmethod
    def _cut(slot: Slot) -> bool:
        # The count is one number for a parameter that many ranks hold parts of: the first writes it.
        return any(slot.spec.offset)

    @staticmethod
    def _shards(optimizer: ShardedAdamW) -> dict[str, Tensor]:
        shards = {name: optimizer.moments[name] for name in MOMENTS}
        return {"master": optimizer.master, **shards} if optimizer.has_masters else shards

    def _groups(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for optimizer in self.optimizers:
            for group in optimizer.adam.param_groups:
                yield f"optimizer.group.{group['name']}", group

    def _samplers(self) -> Iterator[tuple[str, Sampler]]:
        for name, split in (("train", self.data.train), ("valid", self.data.valid)):
            if split is not None:
                yield f"data.{name}", split.sampler

    def _scalars(self, *, optim: bool) -> dict[str, float | int]:
        out: dict[str, float | int] = {"iteration": self.iteration}
        if optim:
            for prefix, group in self._groups():
                beta1, beta2 = group["betas"]
                values = {**group, "beta1": beta1, "beta2": beta2}
                out |= {f"{prefix}.{name}": float(values[name]) for name in _GROUP_FIELDS}
            out |= {f"scheduler.{k}": float(v) for k, v in self.scheduler.state().items()}
            out |= {f"grad_scaler.{k}": float(v) for k, v in self.scaler.state().items()}
        for prefix, sampler in self._samplers():
            out |= {f"{prefix}.{k}": v for k, v in sampler.state().items()}
        return out

    def rng_key(self, stream: str, dp_rank: int) -> str:
        """Global key of the stream of this rank's replica number ``dp_rank``."""
        return f"rng.{stream}.{self.layout.tp_rank}_{self.layout.pp_rank}_{dp_rank}"

    def _rng(self) -> dict[str, Tensor]:
        return {
            self.rng_key(stream, self.layout.dp_rank): state for stream, state in self.streams.state().items()
        }

    # -- in ----------------------------------------------------------------------------------

    def restore(self, values: dict[str, Tensor], *, optim: bool = True, rng: bool = True) -> None:
        """Take up the state from tensors by global key, shaped as :meth:`entries` gives them.

        Raises:
            CheckpointError: a key is missing, or contradicts the arguments.
        """

        def value(key: str) -> Tensor:
            if key not in values:
                raise CheckpointError(f"checkpoint: {key} is missing", "it was saved by another model")
            return values[key]

        for optimizer in self.optimizers:
            self._restore_model(optimizer, value)
            if optim:
                self._restore_optimizer(optimizer, value)
        for name, (_, buffer) in self.buffers.items():
            buffer.copy_(value(f"buffer.{name}"))
        for prefix, sampler in self._samplers():
            sampler.restore({k: int(value(f"{prefix}.{k}")) for k in sampler.state()})
        self.iteration = int(value("iteration"))
        if optim:
            self._restore_schedules(value)
        if rng:
            self._restore_rng(values)

    def _restore_model(self, optimizer: ShardedAdamW, value: _Value) -> None:
        for slot in optimizer.slots:
            rows = slot.spec.rows
            target = optimizer.flat[slot.start : slot.stop].view_as(slot.parameter)
            target[:rows].copy_(value(f"model.{slot.spec.name}"))

    def _restore_optimizer(self, optimizer: ShardedAdamW, value: _Value) -> None:
        for name, shard in self._shards(optimizer).items():
            whole = torch.zeros(optimizer.size, device=shard.device)  # [p]
            for slot in optimizer.slots:
                part = whole[slot.start : slot.stop].view_as(slot.parameter)
                part[: slot.spec.rows].copy_(value(f"optimizer.{name}.{slot.spec.name}"))
            shard.copy_(whole[optimizer.begin : optimizer.end])
        optimizer.set_steps([float(value(f"optimizer.step.{slot.spec.name}")) for slot in optimizer.slots])

    def _restore_schedules(self, value: _Value) -> None:
        for prefix, group in self._groups():
            group["max_lr"] = float(value(f"{prefix}.max_lr"))
            group["min_lr"] = float(value(f"{prefix}.min_lr"))
            group["betas"] = (float(value(f"{prefix}.beta1")), float(value(f"{prefix}.beta2")))
            group["eps"] = float(value(f"{prefix}.eps"))
        state = self.scheduler.state()
        self.scheduler.restore({k: float(value(f"scheduler.{k}")) for k in state})
        self.scaler.restore({k: float(value(f"grad_scaler.{k}")) for k in self.scaler.state()})

    def _restore_rng(self, values: dict[str, Tensor]) -> None:
        for stream, generator in self.streams.generators.items():
            key = self.rng_key(stream, self.layout.dp_rank)
            # More replicas than saved: replicas draw alike, so the first one's stream is theirs.
            saved = values.get(key, values.get(self.rng_key(stream, 0)))
            if saved is None:
                generator.manual_seed(generator.initial_seed() + self.iteration)
            else:
                generator.set_state(saved.cpu())
