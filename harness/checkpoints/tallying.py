"""Two tensors read and compared block by block, by as many threads as there are cores.

Reading and comparing a block both leave Python's lock alone, so that one core reads while another
compares: on two cores that is the speed of reading.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from harness.checkpoints.entries import BLOCK_BYTES, Block, Buffer, Entry, Reader, blocks, itemsize
from harness.checkpoints.numbers import Tally

#: More threads than this gain nothing from one disk, and each holds blocks.
MOST_THREADS = 4
#: More than all that is computed of a block at a time, and no more than glibc's limit of what it keeps.
_KEPT = 16 << 20
#: A tensor of fewer blocks is done before a thread has started.
_FEW = 4


class Tallying:
    """Compares tensors; keeps threads and a few open files. Use as a context manager."""

    def __init__(self, threads: int | None = None) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._threads = threads or min(MOST_THREADS, cores)
        self._held = ExitStack()
        self._workers = [_Worker() for _ in range(self._threads)]
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Tallying:
        _keep_memory()
        for worker in self._workers:
            self._held.enter_context(worker.reader)
        return self

    def __exit__(self, *_: object) -> None:
        # Threads first: what they read from is open until they have ended.
        if self._pool is not None:
            self._pool.shutdown()
        self._held.close()

    @property
    def bytes_read(self) -> int:
        """Bytes read of both sides so far."""
        return sum(worker.reader.bytes_read for worker in self._workers)

    def tally(self, a: Entry, b: Entry) -> Tally:
        """Differences of two complete entries of one dtype and shape.

        Raises:
            CheckpointError: a file is torn.
        """
        # Never all of the blocks at once: what a file says of its shapes is not to be believed yet.
        following = _InTurn(_numbered(a))
        if self._threads == 1 or a.nbytes <= _FEW * BLOCK_BYTES:
            return self._workers[0].tally(a, b, following)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, "state-diff")
        # Each takes the next block when it is done with one: the disk is read nearly in order.
        running = [self._pool.submit(worker.tally, a, b, following) for worker in self._workers]
        whole = Tally()
        for done in running:
            whole.merge(done.result())
        return whole


def _keep_memory() -> None:
    """Have glibc keep what arrays of a block's size leave, instead of giving it back after each block.

    The size of what it gets back, of what it had mapped by itself, is the size of what it keeps from then on.
    Nothing is written into it. Without this, comparing what is apart takes twice as long in a new process.
    """
    import numpy as np

    np.empty(_KEPT, "u1")


class _Worker:
    """What one thread reads with and into."""

    def __init__(self) -> None:
        self.reader = Reader()
        self._buffers = Buffer(), Buffer()

    def tally(self, a: Entry, b: Entry, following: _InTurn) -> Tally:
        tally = Tally()
        for base, block in following:
            one: Any = self.reader.block(a, block, self._buffers[0])
            two: Any = self.reader.block(b, block, self._buffers[1])
            tally.add(a.dtype, base, one, two)
        return tally


class _InTurn:
    """Blocks for several threads, each to one of them."""

    def __init__(self, blocks: Iterator[tuple[int, Block]]) -> None:
        self._blocks, self._lock = blocks, threading.Lock()

    def __iter__(self) -> _InTurn:
        return self

    def __next__(self) -> tuple[int, Block]:
        with self._lock:
            return next(self._blocks)


def _numbered(entry: Entry) -> Iterator[tuple[int, Block]]:
    """Blocks, each with the flat index of its first element."""
    base, shape = 0, entry.shape or (1,)
    for block in blocks(entry.shape, itemsize(entry.dtype)):
        yield base, block
        base += (block.stop - block.start) * math.prod(shape[len(block.lead) + 1 :])
