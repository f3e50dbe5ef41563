"""Worker processes that end with whoever started them, by whatever signal that ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread


def spawned(workers: int, prepare: Callable[..., object] | None = None, *args: object) -> ProcessPoolExecutor:
    """A pool of ``workers`` new processes, in each of which ``prepare(*args)`` is called first.

    A worker waits for work at a pipe that its fellows hold open too, so that by itself it never learns that
    nobody will give it any: after a SIGTERM or SIGKILL of the process that made the pool it would stay.
    """
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(prepare, args))


def _begin(prepare: Callable[..., object] | None, args: tuple[object, ...]) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare(*args)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # what it has started ends by the pipes that close with it
