"""How it shows that *another* rank has gone, or that a launcher ended this one: never the cause of a failure.

Standard library only: the ranks import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from harness.errors import Raised

#: How a broken or aborted connection to another rank shows in gloo, NCCL and torch's stores. A
#: rank that ends with one of these was told of a failure; it is not where the failure happened.
_MARKS: Final = (
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "connection was likely closed",
    "connection aborted",
    "software caused connection abort",
    "broken pipe",
    "remote process",
    "remote worker",
    "ncclremoteerror",
    "ncclcommabort",
    "communicator was aborted",
    "process group has been aborted",
    "processgroup aborted",
    "group aborted",
    "application timeout caused pair closure",
    "monitoredbarrier",
    "timed out waiting",
    "wait timeout",
    "collective operation timeout",
    "socket timeout",
    "socket closed",
    "got 0 bytes",
    "sendbytes failed",
    "recvvalue failed",
    "failed to recv",
    "heartbeatmonitor",
)
_KINDS: Final = ("DistNetworkError", "DistStoreError", "BrokenPipeError", "ConnectionError")
#: What a process raises that is told to end.
_ENDED: Final = ("SignalException", "KeyboardInterrupt", "RendezvousConnectionError")
#: No port is free, or no address is there: the machine's fault and nobody's who has gone.
_NOT_A_PEER: Final = ("address already in use", "eaddrinuse", "failed to listen")


def of_peer(kinds: Iterable[str], message: str) -> bool:
    """Whether an exception of one of these classes, or any text, tells of another rank's end."""
    said = message.lower()
    if any(mark in said for mark in _NOT_A_PEER):
        return False
    names = {kind.rpartition(".")[2] for kind in kinds}
    return bool(names.intersection(_KINDS)) or any(mark in said for mark in _MARKS)


OWN, MIXED, PEER = range(3)


def suspicion(chain: Sequence[tuple[Iterable[str], str]]) -> int:
    """Whether a chain of exceptions began in this rank.

    Args:
        chain: classes and message of each, the one that was raised last first.

    Returns:
        OWN: none tells of a peer; PEER: the first that was raised does; MIXED: another one does, while the
        first was handled, which may be either.
    """
    told = [of_peer(kinds, message) for kinds, message in chain]
    if not any(told):
        return OWN
    return PEER if told[-1] else MIXED


def suspicion_of(raised: Raised) -> int:
    """The same, of what a log tells; what a launcher's signal raises is a peer's, too."""
    chain = list(raised.chain())
    if any(one.kind.rpartition(".")[2] in _ENDED for one in chain):
        return PEER
    return suspicion([((one.kind,), one.message) for one in chain])
