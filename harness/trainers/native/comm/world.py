"""What the native trainer asks of a backend: a :class:`World` with its communicators and its messages.

Every collective has one meaning on every backend: reductions add in the order of the group's ranks
(0 + 1 + 2 …), accumulating in float32 for 16-bit tensors. On CPU that makes the bits a property of
the layout alone, not of a backend's ring or tree. On CUDA the reductions are NCCL's own; there
``NCCL_ALGO=Ring`` fixes the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

#: Lanes of point-to-point traffic. Within (source, destination, lane) messages arrive in order.
FORWARD, BACKWARD = 0, 1


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
        """Element-wise ``sum`` or ``max`` over the group. ``[…] → […]``."""

    def all_gather(self, x: Tensor) -> Tensor:
        """The rows of all members, as many of each. ``[n, …] → [g*n, …]``."""

    def reduce_scatter(self, x: Tensor) -> Tensor:
        """This member's rows of the sum over the group, as many for each. ``[g*n, …] → [n, …]``."""

    def all_to_all(self, x: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        """``send[i]`` rows to member ``i``, ``receive[i]`` from it, ordered by source.

        ``[sum(send), …] → [sum(receive), …]``.
        """

    def all_gather_uneven(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows of all members, ``counts[i]`` of member ``i``. ``[n, …] → [sum(counts), …]``."""

    def reduce_scatter_uneven(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """This member's rows of the sum, ``counts[i]`` for member ``i``. ``[sum(counts), …] → [n, …]``."""

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


class Pipe(Protocol):
    """Point-to-point traffic between pipeline stages."""

    def send(self, x: Tensor, destination: int, lane: int) -> None:
        """Hand over ``x`` without waiting for the receiver; ``x`` must not be changed afterwards."""

    def receive(self, shape: Sequence[int], dtype: torch.dtype, source: int, lane: int) -> Tensor:
        """Wait for the next tensor of this lane from the global rank ``source``."""

    def flush(self) -> None:
        """Wait until everything sent has been taken over."""


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


class Groups:
    """The communicators that one rank has made: one for each set of ranks, however often it is asked for.

    Args:
        me: global rank of this process.
        new: makes the communicator of two ranks or more; collective over all ranks of the phase.
    """

    def __init__(self, me: int, new: Callable[[tuple[int, ...]], Group | None]) -> None:
        self._me, self._new = me, new
        self._made: dict[tuple[int, ...], Group | None] = {}

    def of(self, ranks: Sequence[int]) -> Group | None:
        """As :meth:`World.group`."""
        key = tuple(ranks)
        if key not in self._made:
            self._made[key] = self._make(key)
        return self._made[key]

    def _make(self, ranks: tuple[int, ...]) -> Group | None:
        if len(ranks) == 1:  # needs no communicator
            return Alone(ranks) if ranks[0] == self._me else None
        return self._new(ranks)
