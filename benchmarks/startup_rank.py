"""One rank of :mod:`benchmarks.bench_startup`: join, reduce once, note the time."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist


def reduce_once(folder: str, rank: int) -> None:
    """The first collective of everybody."""
    one = torch.ones(1)
    dist.all_reduce(one)
    assert int(one) == dist.get_world_size()
    Path(folder, f"done_{rank}").write_text(str(time.monotonic()))
    dist.destroy_process_group()


def run(
    argv: Sequence[str],
    rank: int,
    world_size: int,
    folder: str,
    rendezvous: str,
    heartbeat: Callable[[int], None],
) -> None:
    """As the harness starts it."""
    torch.set_num_threads(1)
    store = dist.FileStore(rendezvous, world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    reduce_once(argv[0], rank)
    heartbeat(0)
    del folder


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    reduce_once(sys.argv[1], int(os.environ["RANK"]))
