"""The reference backend: ``torch.distributed`` with gloo (cpu) or NCCL (cuda)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from harness.trainers.native.comm.reductions import ordered_sum, reduce_parts
from harness.trainers.native.comm.world import Group, Groups, Pipe


@dataclass(frozen=True)
class TorchGroup:
    """:class:`Group` on a process group."""

    ranks: tuple[int, ...]
    rank: int
    size: int
    pg: Any
    cuda: bool

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        if self.cuda:
            out = x.clone()
            kind = dist.ReduceOp.SUM if op == "sum" else dist.ReduceOp.MAX
            dist.all_reduce(out, op=kind, group=self.pg)
            return out
        gathered = self.all_gather(x.reshape(1, -1))  # [g, x.numel()]
        return reduce_parts(gathered.unbind(0), op).view(x.shape)

    def all_gather(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        out = x.new_empty((x.shape[0] * self.size, *x.shape[1:]))
        dist.all_gather_into_tensor(out, x, group=self.pg)
        return out

    def reduce_scatter(self, x: Tensor) -> Tensor:
        rows = x.shape[0] // self.size
        if self.cuda:
            out = x.new_empty((rows, *x.shape[1:]))
            dist.reduce_scatter_tensor(out, x.contiguous(), group=self.pg)
            return out
        return self.reduce_scatter_uneven(x, [rows] * self.size)

    def all_to_all(self, x: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        out = x.new_empty((sum(receive), *x.shape[1:]))
        dist.all_to_all_single(out, x.contiguous(), list(receive), list(send), group=self.pg)
        return out

    def all_gather_uneven(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        copies = torch.cat([x] * self.size)
        return self.all_to_all(copies, [x.shape[0]] * self.size, counts)

    def reduce_scatter_uneven(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        mine = counts[self.rank]
        received = self.all_to_all(x, counts, [mine] * self.size)  # [g*mine, …]
        return ordered_sum(received.split([mine] * self.size))

    def barrier(self) -> None:
        dist.barrier(group=self.pg)


@dataclass
class TorchPipe:
    """:class:`Pipe` on a process group for each lane, which keeps NCCL in order."""

    lanes: tuple[Any, Any]
    device: torch.device
    pending: list[tuple[Any, Tensor]] = field(default_factory=list)

    def send(self, x: Tensor, destination: int, lane: int) -> None:
        x = x.contiguous()
        work = dist.isend(x, destination, group=self.lanes[lane])
        self.pending.append((work, x))

    def receive(self, shape: Sequence[int], dtype: torch.dtype, source: int, lane: int) -> Tensor:
        out = torch.empty(tuple(shape), dtype=dtype, device=self.device)
        dist.recv(out, source, group=self.lanes[lane])
        return out

    def flush(self) -> None:
        for work, _ in self.pending:
            work.wait()
        self.pending.clear()


class TorchWorld:
    """:class:`World` on the default process group, which must be there already."""

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size, self.device = rank, size, device
        self._groups = Groups(rank, self._new)

    def group(self, ranks: Sequence[int]) -> Group | None:
        return self._groups.of(ranks)

    def _new(self, ranks: tuple[int, ...]) -> Group | None:
        pg = dist.group.WORLD if len(ranks) == self.size else dist.new_group(list(ranks))
        if self.rank not in ranks:
            return None
        return TorchGroup(ranks, ranks.index(self.rank), len(ranks), pg, self.device.type == "cuda")

    def pipe(self) -> Pipe:
        everyone = list(range(self.size))
        return TorchPipe((dist.new_group(everyone), dist.new_group(everyone)), self.device)

    def close(self) -> None:
        return
