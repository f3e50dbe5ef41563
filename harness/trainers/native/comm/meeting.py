"""Where the ranks of a phase find each other: over a file of one machine, or a port of the first node's."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from torch._C._distributed_c10d import FileStore
from torch.distributed import Store, TCPStore

_TCP: Final = "tcp:"
_WAIT: Final = timedelta(minutes=5)


def store(rendezvous: str, rank: int, world_size: int) -> Store:
    """The store of all ranks.

    Args:
        rendezvous: the path of a file; or ``tcp:<descriptor>:<port>:<address>``, where rank 0 has
            inherited the descriptor of a socket that is bound and listens.
    """
    if on_one_machine(rendezvous):
        return FileStore(rendezvous, world_size)
    descriptor, port, address = rendezvous.removeprefix(_TCP).split(":", 2)
    serves = rank == 0
    return TCPStore(
        address,
        int(port),
        world_size,
        serves,
        timeout=_WAIT,
        wait_for_workers=False,
        master_listen_fd=int(descriptor) if serves else None,
    )


def on_one_machine(rendezvous: str) -> bool:
    """Whether all ranks share this machine's memory and its files."""
    return not rendezvous.startswith(_TCP)
