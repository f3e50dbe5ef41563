"""Collectives through shared memory: every member writes into its slot, then reads the slots of all.

A collective is a *round*: every member copies its tensor into its own slot, all meet at the group's
barrier, every member takes what it needs out of the slots of all. A group has two sets of slots, used in
turn: who comes to the next barrier has done with the last one's slots, so one barrier a round is enough.
What does not fit into a slot goes in pieces, a round each. Reductions add from the first member's slot
on, as :func:`ordered_sum` does. Nobody spins, so that a rank that waits leaves its core to one that
works; how soon it runs again is for :mod:`turns`.

Cost for a group of ``n`` and ``b`` bytes a member, in processor time of a member, since that is the wall
clock where ranks outnumber cores (``benchmarks/bench_comm.py`` measures it against gloo)::

    every round        a barrier, ≈ 10 µs: sleep and wake up; copy in, take out, ≈ 30 µs of torch calls
    all_gather         reads n · b
    reduce_scatter     adds b
    all_to_all         reads what it receives, a torch call more for each source
    all_reduce         adds n · b; from _TOGETHER bytes on b, then reads b, for a second barrier

Pages of a slot exist once they are written: 2 · min(b, _SLOT) bytes a member and group.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from harness.trainers.native.comm.reductions import reduce_parts
from harness.trainers.native.comm.shared_memory import (
    BARRIER,
    Memory,
    address,
    init_barrier,
    wait_barrier,
    whole_pages,
)

_SLOT = 1 << 20  # bytes that a member can share in one round
_TOGETHER = 1 << 16  # bytes from which members share the work of an all_reduce
_KINDS = 512  # of rounds whose views are kept
_NO_ROW = torch.Size()  # a tensor of one dimension has rows of this shape


class SharedGroup:
    """:class:`Group` over slots of one :class:`Memory`. Making it is collective over all ranks.

    Args:
        begin: offset of this group's part of the file.
        ranks: global ranks of the members; this process is number ``rank`` of them.
    """

    def __init__(self, memory: Memory, begin: int, ranks: tuple[int, ...], rank: int) -> None:
        self.ranks, self.rank, self.size = ranks, rank, len(ranks)
        self._memory = memory.map(begin, SharedGroup.length(self.size))
        self._barrier = address(self._memory)
        if rank == 0:
            init_barrier(self._barrier, self.size)
        # Of each set and member: where its rows for each member begin, and how many elements it has.
        width = self.size + 1
        heads = memoryview(self._memory)[BARRIER:].cast("q")
        self._heads = [
            [heads[(i + turn * self.size) * width :][:width] for i in range(self.size)] for turn in (0, 1)
        ]  # [2, g, g+1]
        slots = torch.frombuffer(self._memory, dtype=torch.uint8)[_heads_length(self.size) :]
        self._slots = slots.view(2, self.size, _SLOT)  # [2, g, _SLOT]
        self._turn = 0
        self._views: dict[tuple[object, ...], list[Tensor]] = {}

    @staticmethod
    def length(size: int) -> int:
        """Bytes of the file that a group of ``size`` needs."""
        return _heads_length(size) + 2 * size * _SLOT

    # -- rounds ------------------------------------------------------------------------------

    def barrier(self) -> None:
        wait_barrier(self._barrier)

    def _known(self, key: tuple[object, ...], make: Callable[[], list[Tensor]]) -> list[Tensor]:
        if len(self._views) >= _KINDS:
            self._views.clear()
        views = self._views[key] = make()
        return views

    def _shaped(self, dtype: torch.dtype, shape: torch.Size) -> list[Tensor]:
        """The slots of this turn as ``g`` tensors of one shape."""
        key = (self._turn, dtype, shape)
        found = self._views.get(key)
        if found is None:
            size = shape.numel() * dtype.itemsize
            slots = self._slots[self._turn]  # [g, _SLOT]
            found = self._known(key, lambda: [slot[:size].view(dtype).view(shape) for slot in slots])
        return found

    def _rows(self, dtype: torch.dtype, row: torch.Size, turn: int | None = None) -> list[Tensor]:
        """The slots of this turn (or another) as ``g`` tensors of as many rows as they hold."""
        turn = self._turn if turn is None else turn
        key = (turn, dtype, row, "rows")
        found = self._views.get(key)
        if found is None:
            rows = _SLOT // max(1, row.numel() * dtype.itemsize)
            slots = self._slots[turn, :, : rows * row.numel() * dtype.itemsize]  # [g, n]
            found = self._known(key, lambda: [slot.view(dtype).view(rows, *row) for slot in slots])
        return found

    def _round(self, mine: Tensor, x: Tensor) -> None:
        mine.copy_(x.detach() if x.requires_grad else x)
        wait_barrier(self._barrier)
        self._turn ^= 1

    # -- collectives -------------------------------------------------------------------------

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        size = x.nbytes
        if size > _SLOT:
            pieces = x.reshape(-1).split(_SLOT // x.itemsize)
            return torch.cat([self.all_reduce(piece, op) for piece in pieces]).view(x.shape)
        if size >= _TOGETHER and self.size > 2:
            return self._all_reduce_together(x.reshape(-1), op).view(x.shape)
        views = self._shaped(x.dtype, x.shape)
        self._round(views[self.rank], x)
        return reduce_parts(views, op)

    def _all_reduce_together(self, x: Tensor, op: str) -> Tensor:
        # Each member reduces one share in place, where nobody else reads, then all collect the shares.
        views = self._shaped(x.dtype, x.shape)
        bounds = [x.shape[0] * i // self.size for i in range(self.size + 1)]
        low, high = bounds[self.rank], bounds[self.rank + 1]
        self._round(views[self.rank], x)
        views[self.rank][low:high] = reduce_parts([view[low:high] for view in views], op)
        wait_barrier(self._barrier)
        return torch.cat([view[bounds[i] : bounds[i + 1]] for i, view in enumerate(views)])

    def all_gather(self, x: Tensor) -> Tensor:
        if x.nbytes > _SLOT:
            return self.all_gather_uneven(x, [x.shape[0]] * self.size)
        views = self._shaped(x.dtype, x.shape)
        self._round(views[self.rank], x)
        return torch.cat(views)

    def reduce_scatter(self, x: Tensor) -> Tensor:
        rows = x.shape[0] // self.size
        if x.nbytes > _SLOT:
            return self.reduce_scatter_uneven(x, [rows] * self.size)
        views = self._shaped(x.dtype, x.shape)
        key = (self._turn, x.dtype, x.shape, "shares")
        shares = self._views.get(key)
        if shares is None:
            low = rows * self.rank
            shares = self._known(key, lambda: [view[low : low + rows] for view in views])
        self._round(views[self.rank], x)
        return reduce_parts(shares, "sum")

    def all_to_all(self, x: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        heads, row = self._heads[self._turn], x.shape[1:].numel()
        begins = list(accumulate(send, initial=0))
        heads[self.rank][:] = array("q", [begin * row for begin in begins])
        if x.numel() <= (capacity := _SLOT // x.itemsize):
            views = self._rows(x.dtype, x.shape[1:])
            self._round(views[self.rank].narrow(0, 0, begins[-1]), x)
        else:
            views = []
            self._round(self._rows(x.dtype, _NO_ROW)[self.rank], x.reshape(-1)[:capacity])
        if max(head[self.size] for head in heads) > capacity:
            return self._all_to_all_in_pieces(x, receive)
        parts = zip(views, heads, receive, strict=True)
        return torch.cat([view.narrow(0, head[self.rank] // max(1, row), n) for view, head, n in parts])

    def _all_to_all_in_pieces(self, x: Tensor, receive: Sequence[int]) -> Tensor:
        """All rounds of an exchange of which the first one has been made, and told who has how much."""
        heads, row = self._heads[self._turn ^ 1], x.shape[1:].numel()
        wanted = [
            (head[self.rank], head[self.rank] + n * row) for head, n in zip(heads, receive, strict=True)
        ]
        most = max(head[self.size] for head in heads)
        flat, capacity = x.reshape(-1), _SLOT // x.itemsize
        out = x.new_empty((sum(receive), *x.shape[1:]))
        parts = out.view(-1).split([n * row for n in receive])
        low = 0
        while True:
            views = self._rows(x.dtype, _NO_ROW, self._turn ^ 1)
            for view, part, (begin, end) in zip(views, parts, wanted, strict=True):
                first, last = max(begin, low), min(end, low + capacity)
                if first < last:
                    part[first - begin : last - begin] = view[first - low : last - low]
            low += capacity
            if low >= most:
                return out
            piece = flat[low : low + capacity]
            self._round(self._rows(x.dtype, _NO_ROW)[self.rank][: piece.shape[0]], piece)

    def all_gather_uneven(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        row, most = x.shape[1:].numel(), max(counts)
        if most * row * x.itemsize <= _SLOT:
            views = self._rows(x.dtype, x.shape[1:])
            self._round(views[self.rank].narrow(0, 0, counts[self.rank]), x)
            return torch.cat([view.narrow(0, 0, n) for view, n in zip(views, counts, strict=True)])
        out = x.new_empty((sum(counts), *x.shape[1:]))
        parts = out.view(-1).split([n * row for n in counts])
        flat, step = x.reshape(-1), _SLOT // x.itemsize
        for low in range(0, most * row, step):
            pieces = [part[low : low + step] for part in parts]
            sizes = [piece.shape[0] for piece in pieces]
            got = self.all_gather_uneven(flat[low : low + step], sizes)
            for piece, values in zip(pieces, got.split(sizes), strict=True):
                piece.copy_(values)
        return out

    def reduce_scatter_uneven(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        if x.nbytes <= _SLOT:
            views = self._rows(x.dtype, x.shape[1:])
            self._round(views[self.rank].narrow(0, 0, x.shape[0]), x)
            low, mine = sum(counts[: self.rank]), counts[self.rank]
            return reduce_parts([view.narrow(0, low, mine) for view in views], "sum")
        row, step = x.shape[1:].numel(), _SLOT // x.itemsize // self.size
        parts = x.reshape(-1).split([n * row for n in counts])
        got = []
        for low in range(0, max(counts) * row, step):
            pieces = [part[low : low + step] for part in parts]
            sizes = [piece.shape[0] for piece in pieces]
            got.append(self.reduce_scatter_uneven(torch.cat(pieces), sizes))
        return torch.cat(got).view(counts[self.rank], *x.shape[1:])


def _heads_length(size: int) -> int:
    return whole_pages(BARRIER + 2 * size * (size + 1) * 8)
