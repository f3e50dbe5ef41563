"""Communication of the native trainer: one small interface, and its reference on ``torch.distributed``.

Every collective has one meaning on every backend: reductions add in the order of the group's ranks
(0 + 1 + 2 …), accumulating in float32 for 16-bit tensors. On CPU that makes the bits a property of
the layout alone, not of a backend's ring or tree. On CUDA the reductions are NCCL's own; there
``NCCL_ALGO=Ring`` fixes the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

#: Lanes of point-to-point traffic. Within (source, destination, lane) messages arrive in order.
FORWARD, BACKWARD = 0, 1

_HALVES = (torch.bfloat16, torch.float16)


def ordered_sum(parts: Sequence[Tensor]) -> Tensor:
    """Sum of equally shaped tensors, first to last; 16-bit floats accumulate in float32."""
    first = parts[0]
    if first.dtype in _HALVES:
        total = first.float()
        for part in parts[1:]:
            total += part
        return total.to(first.dtype)
    if len(parts) == 1:
        return first.clone()
    total = first + parts[1]
    for part in parts[2:]:
        total += part
    return total


def reduce_parts(parts: Sequence[Tensor], op: str) -> Tensor:
    """``sum`` (:func:`ordered_sum`) or ``max`` of equally shaped tensors."""
    if op == "sum":
        return ordered_sum(parts)
    total = parts[0].clone()
    for part in parts[1:]:
        torch.maximum(total, part, out=total)
    return total


class Group(Protocol):
    """What the trainer asks of a communicator.

    No method changes its argument; each returns a new, contiguous tensor on the same device. All
    members must call the same methods in the same order with equal dtypes.
    """

    @property
    def ranks(self) -> tuple[int, ...]:
        """Global ranks of the members."""

    @property
    def rank(self) -> int:
        """Index of this process in ``ranks``."""

    @property
    def size(self) -> int:
        """Number of members."""

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        """Element-wise ``sum`` or ``max`` over the group; shape of ``x``."""

    def all_gather(self, x: Tensor) -> Tensor:
        """Concatenation of all members' equally shaped ``x`` along dimension 0."""

    def reduce_scatter(self, x: Tensor) -> Tensor:
        """Sum over the group of this member's equal share of dimension 0."""

    def all_to_all(self, x: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        """Rows of ``x`` split by ``send``; returns ``sum(receive)`` rows ordered by source."""

    def all_gather_uneven(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Concatenation along dimension 0; member ``i`` contributes ``counts[i]`` rows."""

    def reduce_scatter_uneven(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Sum over the group of rows ``counts[:rank]`` … of ``x``; returns ``counts[rank]`` rows."""

    def barrier(self) -> None:
        """Return when every member has called it."""


@dataclass(frozen=True)
class Alone:
    """The group of one: every collective is the identity."""

    ranks: tuple[int, ...]
    rank: int = 0
    size: int = 1

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:  # noqa: ARG002 - interface
        return x.clone()

    def all_gather(self, x: Tensor) -> Tensor:
        return x.contiguous()

    def reduce_scatter(self, x: Tensor) -> Tensor:
        return x.contiguous()

    def all_to_all(self, x: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:  # noqa: ARG002 - interface
        return x.contiguous()

    def all_gather_uneven(self, x: Tensor, counts: Sequence[int]) -> Tensor:  # noqa: ARG002 - interface
        return x.contiguous()

    def reduce_scatter_uneven(self, x: Tensor, counts: Sequence[int]) -> Tensor:  # noqa: ARG002 - interface
        return x.contiguous()

    def barrier(self) -> None:
        return


@dataclass(frozen=True)
class TorchGroup:
    """A ``torch.distributed`` process group (gloo on CPU, NCCL on CUDA) behind :class:`Group`."""

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
        gathered = self.all_gather(x.reshape(1, -1))
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
        received = self.all_to_all(x, counts, [mine] * self.size)
        return ordered_sum(received.split([mine] * self.size))

    def barrier(self) -> None:
        dist.barrier(group=self.pg)


class Pipe(Protocol):
    """Point-to-point traffic between pipeline stages."""

    def send(self, x: Tensor, destination: int, lane: int) -> None:
        """Hand over ``x`` without waiting for the receiver; ``x`` must not be changed afterwards."""

    def receive(self, shape: Sequence[int], dtype: torch.dtype, source: int, lane: int) -> Tensor:
        """Wait for the next tensor of this lane from the global rank ``source``."""

    def flush(self) -> None:
        """Wait until everything sent has been taken over."""


@dataclass
class TorchPipe:
    """Point-to-point over ``torch.distributed``; one process group per lane keeps NCCL in order."""

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


class World(Protocol):
    """All ranks of a phase. Group creation is collective: same calls, same order, on every rank."""

    @property
    def rank(self) -> int:
        """Global rank of this process."""

    @property
    def size(self) -> int:
        """Number of ranks."""

    @property
    def device(self) -> torch.device:
        """Where this rank's tensors live."""

    def group(self, ranks: Sequence[int]) -> Group | None:
        """The communicator of these global ranks (ascending); None when this process is not a member."""

    def pipe(self) -> Pipe:
        """The point-to-point channel."""

    def close(self) -> None:
        """Leave; nothing may be used afterwards."""


class TorchWorld:
    """The reference world: ``torch.distributed`` with gloo (cpu) or NCCL (cuda)."""

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size, self.device = rank, size, device
        self._made: dict[tuple[int, ...], Group | None] = {}

    def group(self, ranks: Sequence[int]) -> Group | None:
        key = tuple(ranks)
        if key not in self._made:
            self._made[key] = make_group(key, self.rank, self._new)
        return self._made[key]

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


def make_group(
    ranks: tuple[int, ...], me: int, new: Callable[[tuple[int, ...]], Group | None]
) -> Group | None:
    """A group of one needs no communicator; ``new`` makes all others."""
    if len(ranks) == 1:
        return Alone(ranks) if ranks[0] == me else None
    return new(ranks)
