"""Point-to-point traffic through shared memory: a channel for each (source, destination, lane).

A message is written into the shared file and announced by its place and size in the channel's list. It
goes into the channel's ring while there is room, and past it otherwise, so that to send is never to wait
for the receiver (a pipeline schedule that sends before it receives would not survive that). Either end
of a message costs a semaphore, a system call and one copy.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.trainers.native.comm.shared_memory import (
    PAGE,
    SEMAPHORE,
    Memory,
    address,
    init_semaphore,
    post,
    take,
    try_take,
    whole_pages,
)

_LANES = 2
_LIST = 1 << 14  # bytes of a channel's semaphores and list
_ENTRIES = (_LIST - 2 * SEMAPHORE) // 16  # messages under way at once, before a sender has to wait
_RING = 1 << 20
_ZONE = 1 << 36  # of the file, for the ring and what lies past it
_ALIGN = 64


class _Channel:
    """One direction of one lane between two ranks, as either end holds it.

    Two semaphores: messages announced, and messages taken. The list has ``(place, bytes)`` of each.
    """

    def __init__(self, memory: Memory, lists: mmap.mmap, number: int) -> None:
        self.memory = memory
        at = number * _LIST
        self.announced = address(lists) + at
        self.taken = self.announced + SEMAPHORE
        self.list = memoryview(lists)[at + 2 * SEMAPHORE : at + _LIST].cast("q")
        self.begin = PAGE + len(lists) + number * _ZONE
        self.count = 0  # messages sent, or received, through this end
        # The sender's: what is still there, as (number, place), and where the next one goes.
        self.ring: deque[tuple[int, int]] = deque()
        self.past: deque[int] = deque()
        self.done = self.head = 0
        self.far = _RING

    def reset(self) -> None:
        """Make the semaphores; once, by the receiver, before anybody sends."""
        init_semaphore(self.announced)
        init_semaphore(self.taken)

    def _place(self, size: int) -> int:
        while try_take(self.taken):
            self.done += 1
        while self.count - self.done >= _ENTRIES:
            take(self.taken)
            self.done += 1
        while self.ring and self.ring[0][0] < self.done:
            self.ring.popleft()
        while self.past and self.past[0] < self.done:
            self.past.popleft()
        size = max(1, -(-size // _ALIGN)) * _ALIGN
        tail = self.ring[0][1] if self.ring else 0
        if not self.ring:
            self.head = 0
        # A head that came around stays below the tail: where they meet, the ring is empty.
        room = _RING - self.head if not self.ring or self.head > tail else tail - self.head - 1
        if size > room and self.head > tail and size < tail:
            self.head, room = 0, size
        if size <= room:
            place, self.head = self.head, self.head + size
            self.ring.append((self.count, place))
            return place
        if not self.past:
            self.far = _RING
        place, self.far = self.far, self.far + whole_pages(size)
        self.past.append(self.count)
        return place

    def send(self, data: Any) -> None:  # noqa: ANN401 - any buffer of bytes
        size = len(data)
        place = self._place(size)
        written = 0
        while written < size:
            written += os.pwrite(self.memory.fd, data[written:], self.begin + place + written)
        entry = self.count % _ENTRIES * 2
        self.list[entry], self.list[entry + 1] = place, size
        self.count += 1
        post(self.announced)

    def receive(self, data: Any) -> None:  # noqa: ANN401 - any buffer of bytes
        take(self.announced)
        entry = self.count % _ENTRIES * 2
        place, size = self.list[entry], self.list[entry + 1]
        if size != len(data):
            raise AssertionError(f"received {size} bytes, expected {len(data)}: the schedules disagree")
        read = 0
        while read < size:
            read += os.preadv(self.memory.fd, [data[read:]], self.begin + place + read)
        if place >= _RING:
            self.memory.free(self.begin + place, whole_pages(size))
        self.count += 1
        post(self.taken)


class SharedPipe:
    """:class:`Pipe` over channels of one :class:`Memory`. Making it is collective."""

    def __init__(self, memory: Memory, rank: int, size: int) -> None:
        self._memory, self._rank, self._size = memory, rank, size
        self._lists = memory.map(PAGE, _lists_length(size))
        self._out: dict[tuple[int, int], _Channel] = {}
        self._in: dict[tuple[int, int], _Channel] = {}
        for source in range(size):
            for lane in range(_LANES):
                self._in[source, lane] = self._channel(source, rank, lane)
                self._in[source, lane].reset()
        memory.wait()

    def _channel(self, source: int, destination: int, lane: int) -> _Channel:
        number = (source * self._size + destination) * _LANES + lane
        return _Channel(self._memory, self._lists, number)

    def send(self, x: Tensor, destination: int, lane: int) -> None:
        channel = self._out.get((destination, lane))
        if channel is None:
            channel = self._out[destination, lane] = self._channel(self._rank, destination, lane)
        channel.send(_bytes(x))

    def receive(self, shape: Sequence[int], dtype: torch.dtype, source: int, lane: int) -> Tensor:
        out = torch.empty(tuple(shape), dtype=dtype)
        self._in[source, lane].receive(_bytes(out))
        return out

    def flush(self) -> None:
        """Nothing to wait for: a message sent is a copy already."""


def pipes_end(size: int) -> int:
    """Offset of the first byte of the file that no channel between ``size`` ranks uses."""
    return PAGE + _lists_length(size) + size * size * _LANES * _ZONE


def _lists_length(size: int) -> int:
    return whole_pages(size * size * _LANES * _LIST)


def _bytes(x: Tensor) -> Any:  # noqa: ANN401 - numpy's arrays are the buffers that torch can make
    return x.detach().contiguous().view(-1).view(torch.uint8).numpy()
