"""AdamW on flat buffers: fp32 main gradients, fp32 masters, ZeRO-1 sharding over data parallelism.

Dense and expert parameters have an optimizer each, as in Megatron-LM, since their replicas lie on
different ranks. Each holds one flat gradient buffer (float32) and one flat parameter buffer (model
dtype), ``[p]``, of which the model's parameters are views; masters and moments are its shard, ``[p(/r)]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.trainers.native.arguments import Arguments
from harness.trainers.native.comm.world import Group
from harness.trainers.native.layers import Spec

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Slot:
    """A parameter's place in the flat buffers: elements ``[start, stop)``, ``real`` of them not padding."""

    parameter: nn.Parameter
    spec: Spec
    start: int
    stop: int
    real: int


class ShardedAdamW:
    """AdamW over one set of parameters that share their replicas.

    Args:
        group: ranks that hold replicas of these parameters.
        replicas: data-parallel size of the whole model; gradients are averaged over it.
    """

    def __init__(
        self,
        args: Arguments,
        parameters: dict[nn.Parameter, Spec],
        group: Group,
        replicas: int,
        kind: str,
    ) -> None:
        self.kind, self.group, self.replicas = kind, group, replicas
        self.sharded = args.use_distributed_optimizer
        self.slots: list[Slot] = []
        end = 0
        for parameter, spec in parameters.items():
            row = parameter.numel() // parameter.shape[0]
            slot = Slot(parameter, spec, end, end + parameter.numel(), spec.rows * row)
            self.slots.append(slot)
            end = slot.stop
        parts = group.size if self.sharded else 1
        self.size = -(-end // parts) * parts
        first = self.slots[0].parameter
        self.grads = torch.zeros(self.size, device=first.device)  # [p]
        self.flat = torch.zeros(self.size, dtype=first.dtype, device=first.device)  # [p]
        for slot in self.slots:
            self.flat[slot.start : slot.stop].copy_(slot.parameter.detach().flatten())
            slot.parameter.data = self.flat[slot.start : slot.stop].view_as(slot.parameter)
            slot.parameter.register_post_accumulate_grad_hook(self._accumulator(slot))
        length = self.size // parts
        self.begin = length * (group.rank if self.sharded else 0)
        self.end = self.begin + length
        shard = self.flat[self.begin : self.end]  # [p(/r)]
        # A float32 model is its own master: one copy, nothing to keep equal.
        self.has_masters = first.dtype != torch.float32
        self.master = shard.float() if self.has_masters else shard  # [p(/r)]
        self.moments = {name: torch.zeros_like(self.master) for name in MOMENTS}
        self.shard_grads = self.grads[self.begin : self.end]  # [p(/r)]
        self.pieces: list[tuple[Slot, nn.Parameter, int, int]] = []
        self.adam = self._build(args)
        self.owned = self._find_owned()

    def _accumulator(self, slot: Slot) -> Any:  # noqa: ANN401 - torch's hook type
        grads = self.grads[slot.start : slot.stop].view_as(slot.parameter)

        def accumulate(parameter: Tensor) -> None:
            if parameter.grad is not None:
                grads.add_(parameter.grad)
                parameter.grad = None

        return accumulate

    def _build(self, args: Arguments) -> torch.optim.AdamW:
        groups: dict[str, dict[str, Any]] = {}
        for slot in self.slots:
            low, high = max(slot.start, self.begin), min(slot.stop, self.end)
            decoupled = slot.spec.edge and args.decoupled_lr is not None
            name = self.kind + (".decoupled" if decoupled else "")
            name += "" if slot.spec.decay else ".no_decay"
            group = groups.setdefault(
                name,
                {
                    "params": [],
                    "name": name,
                    "decays": slot.spec.decay,
                    "lr": 0.0,
                    "max_lr": args.decoupled_lr if decoupled else args.lr,
                    "min_lr": self._min_lr(args, decoupled=decoupled),
                },
            )
            if low >= high:
                continue
            near, far = low - self.begin, high - self.begin
            piece = nn.Parameter(self.master[near:far])
            self.pieces.append((slot, piece, near, far))
            group["params"].append(piece)
        # torch refuses a group without parameters; this rank's shard may hold none of one.
        blank = torch.zeros(0, device=self.master.device)
        for group in groups.values():
            group["params"] = group["params"] or [nn.Parameter(blank.clone())]
        adam = torch.optim.AdamW(
            list(groups.values()),
            lr=0.0,
            betas=(args.adam_beta1, args.adam_beta2),
            eps=args.adam_eps,
            fused=True,
        )
        for _, piece, near, far in self.pieces:
            adam.state[piece] = {
                "step": torch.zeros((), device=self.master.device),
                **{name: self.moments[name][near:far] for name in MOMENTS},
            }
        return adam

    @staticmethod
    def _min_lr(args: Arguments, *, decoupled: bool) -> float:
        if decoupled and args.decoupled_min_lr is not None:
            return args.decoupled_min_lr
        return args.min_lr

    def main_grad(self, slot: Slot) -> Tensor:
        """View of a parameter's accumulated gradient (float32, the parameter's shape)."""
        return self.grads[slot.start : slot.stop].view_as(slot.parameter)

    def reduce_grads(self, scale: float) -> None:
        """Average over the replicas and multiply by ``scale``; leaves this rank's shard."""
        if self.group.size > 1:
            if self.sharded:
                self.shard_grads = self.group.reduce_scatter(self.grads)  # [p/r]
            else:
                self.shard_grads = self.group.all_reduce(self.grads)  # [p]
        else:
            self.shard_grads = self.grads[self.begin : self.end]  # [p]
        self.shard_grads.mul_(scale / self.replicas)

    def _find_owned(self) -> list[tuple[int, int]]:
        # Each real element of the whole model is counted by exactly one rank.
        if not self.sharded and self.group.rank > 0:
            return []
        owned = []
        for slot, _, near, far in self.pieces:
            real = min(far, slot.start + slot.real - self.begin)
            if slot.spec.owner and not slot.spec.tied_copy and real > near:
                owned.append((near, real))
        return owned

    def sum_of_squares(self, values: Tensor) -> float:
        """Σ v² of the owned elements of a shard-sized tensor, in float64: by parameter, then over them."""
        total = 0.0
        if self.owned:
            squares = values.double().square_()  # [p(/r)]
            sums = torch.stack([squares[near:far].sum() for near, far in self.owned])  # [len(self.owned)]
            for one in sums.tolist():  # not sum(): its rounding depends on Python's version
                total += one
        return total

    def zeros(self) -> int:
        """Number of owned gradient elements that are exactly zero."""
        return sum(
            far - near - int(torch.count_nonzero(self.shard_grads[near:far])) for near, far in self.owned
        )

    def step(self) -> None:
        """One AdamW step on the shard, then the parameters of all replicas are made whole."""
        for _, piece, near, far in self.pieces:
            piece.grad = self.shard_grads[near:far]
        self.adam.step()
        self.publish()

    def publish(self) -> None:
        """Masters → model dtype → every replica."""
        shard = self.flat[self.begin : self.end]  # [p(/r)]
        if self.has_masters:
            shard.copy_(self.master)
        if self.sharded:
            self.flat.copy_(self.group.all_gather(shard))

    def gather(self, shard: Tensor) -> Tensor:
        """The whole flat tensor from every rank's shard. ``[p(/r)] → [p]``."""
        return self.group.all_gather(shard) if self.sharded else shard

    def steps(self) -> list[float]:
        """Adam's step count of each parameter, in slot order, also of those sharded elsewhere."""
        counts = dict.fromkeys(range(len(self.slots)), 0.0)
        index = {id(slot): i for i, slot in enumerate(self.slots)}
        for slot, piece, _, _ in self.pieces:
            counts[index[id(slot)]] = float(self.adam.state[piece]["step"])
        mine = torch.tensor(list(counts.values()), dtype=torch.float64, device=self.flat.device)
        if self.sharded:
            mine = self.group.all_reduce(mine, "max")
        result: list[float] = mine.tolist()
        return result

    def set_steps(self, counts: Sequence[float]) -> None:
        """Restore Adam's step counts, in slot order."""
        by_slot = {id(slot): count for slot, count in zip(self.slots, counts, strict=True)}
        for slot, piece, _, _ in self.pieces:
            self.adam.state[piece]["step"].fill_(by_slot[id(slot)])


def build_optimizers(
    args: Arguments, specs: dict[nn.Parameter, Spec], dense: Group, expert: Group
) -> list[ShardedAdamW]:
    """The dense optimizer and, where there are experts, theirs."""
    replicas = args.data_parallel_size
    parts = [
        ("dense", {p: s for p, s in specs.items() if not s.expert}, dense),
        ("expert", {p: s for p, s in specs.items() if s.expert}, expert),
    ]
    return [
        ShardedAdamW(args, parameters, group, replicas, kind)
        for kind, parameters, group in parts
        if parameters
    ]
