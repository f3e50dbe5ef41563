"""A small trainer for the tests of the launcher: real ranks that train nothing.

``argv`` is a list of words, each one thing to do in turn, by one rank (``word@rank``) or by all.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.errors import CheckpointError

PRELOADED: list[int] = []


def preload() -> None:
    """What the warm parent calls once."""
    import torch
    import torch.distributed

    torch.set_num_threads(1)
    PRELOADED.append(os.getpid())


def run(
    argv: list[str],
    rank: int,
    world_size: int,
    folder: str,
    rendezvous: str,
    heartbeat: Callable[[int], None],
) -> None:
    """Do what ``argv`` says."""
    done = 0
    for word in argv:
        action, _, who = word.partition("@")
        if not who or int(who) == rank:
            done = _do(action, done, rank, world_size, folder, rendezvous, heartbeat)


def _do(
    action: str,
    done: int,
    rank: int,
    world_size: int,
    folder: str,
    rendezvous: str,
    heartbeat: Callable[[int], None],
) -> int:
    verb, _, value = action.partition("=")
    if verb == "gloo":
        _connect(rank, world_size, rendezvous)
    elif verb == "step":  # step=5: five iterations, each with an all-reduce
        for _ in range(int(value)):
            done += 1
            _all_reduce(world_size)
            heartbeat(done)
    elif verb == "beat":
        done += 1
        heartbeat(done)
    elif verb == "say":
        print(value)
        print("err", value, file=sys.stderr)
    elif verb == "note":  # what this rank sees, for the test to read
        Path(folder, f"note_{rank}").write_text(f"{os.getppid()} {len(PRELOADED)} {os.getcwd()}")
    elif verb == "where":
        Path(folder, f"where_{rank}").write_text(rendezvous)
    elif verb == "sleep":
        time.sleep(float(value))
    elif verb == "kill":
        os.kill(os.getpid(), getattr(signal, value))
    elif verb == "raise":
        raise ValueError(value)
    elif verb == "checkpoint":
        raise CheckpointError(f"{value}: is torn", "save it again")
    elif verb == "exit":
        os._exit(int(value))
    elif verb == "sysexit":
        sys.exit(int(value))
    elif verb == "daemon":  # a process in a session of its own
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        Path(folder, f"daemon_{rank}").write_text(str(child.pid))
    return done


def _connect(rank: int, world_size: int, rendezvous: str) -> None:
    import torch.distributed as dist

    store = dist.FileStore(rendezvous, world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)


def _all_reduce(world_size: int) -> None:
    import torch
    import torch.distributed as dist

    total: Any = torch.ones(1)
    dist.all_reduce(total)
    assert total.item() == world_size
