"""Where among the nodes of a phase some of its ranks are, and where all meet. Standard library only."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: What a rendezvous begins with that is no file's path: ``tcp:<descriptor>:<port>:<address>``.
_TCP: Final = "tcp:"


@dataclass(frozen=True)
class Place:
    """One of the nodes.

    Args:
        node: its number, from 0; its ranks come in that order.
        nodes: how many there are.
        address: of the first one, where all meet; empty where there is one only.
        port: there; bound before it was told to anybody.
        listening: the descriptor of the bound socket, on the first node; below 0 on the others.
    """

    node: int = 0
    nodes: int = 1
    address: str = ""
    port: int = 0
    listening: int = -1

    def rendezvous(self, path: str) -> str:
        """What the ranks are given; on one machine the ``path`` of a file."""
        return f"{_TCP}{self.listening}:{self.port}:{self.address}" if self.nodes > 1 else path

    def variables(self, folder: Path) -> dict[str, str]:
        """For a command that is started on each node; torchrun takes ``PET_…`` for words it was not given.

        Args:
            folder: the phase's, which all nodes share.
        """
        if self.nodes == 1:
            return {}
        found = {
            "NNODES": str(self.nodes),
            "NODE_RANK": str(self.node),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }
        told = {f"PET_{name}": value for name, value in found.items()}
        return {**found, **told, "PET_LOG_DIR": str(self.logs(folder))}

    def logs(self, folder: Path) -> Path:
        """Where a launcher keeps what its ranks say: all number them from 0, so each node has a folder."""
        return folder / "logs" / f"node_{self.node}" if self.nodes > 1 else folder


def bound(address: str, *, listen: bool) -> socket.socket:
    """A socket on a port that nobody else gets while it is open.

    Args:
        listen: whether whoever inherits it serves on it. Else the port is only kept: a server of this machine
            that reuses addresses, as all of torch's do, can bind it, and no other gets it by chance.
    """
    family = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][0]
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    found.bind(("", 0))
    if listen:
        found.listen(2048)
        found.set_inheritable(True)
    return found
