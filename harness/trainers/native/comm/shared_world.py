"""The backend of ranks on one host: collectives and messages through memory that they share.

Nothing well kept does this for us: gloo talks to its own host over sockets (since 2025 it has one
shared-memory path, for all-reduce on x86, which spins and fixes no order of sums), MPI wants to start the
ranks itself and spins too, and torch is all that this trainer may ask for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.trainers.native.comm.shared_group import SharedGroup
from harness.trainers.native.comm.shared_memory import Memory
from harness.trainers.native.comm.shared_pipe import SharedPipe, pipes_end
from harness.trainers.native.comm.turns import ask_for_short_turns
from harness.trainers.native.comm.world import Group, Groups, Pipe


class SharedWorld:
    """:class:`World` of ranks that were forked on this host, for tensors in host memory.

    Args:
        rendezvous: path that all ranks were given, in a folder of their own.
    """

    def __init__(self, rank: int, size: int, rendezvous: str) -> None:
        self.rank, self.size, self.device = rank, size, torch.device("cpu")
        ask_for_short_turns()
        self._memory = Memory(rank, size, rendezvous)
        self._end = pipes_end(size)
        self._groups = Groups(rank, self._new)
        self._pipe: Pipe | None = None

    def group(self, ranks: Sequence[int]) -> Group | None:
        return self._groups.of(ranks)

    def _new(self, ranks: tuple[int, ...]) -> Group | None:
        begin = self._end
        self._end += SharedGroup.length(len(ranks))
        member = self.rank in ranks
        group = SharedGroup(self._memory, begin, ranks, ranks.index(self.rank)) if member else None
        self._memory.wait()  # the first member has made the barrier
        return group

    def pipe(self) -> Pipe:
        self._pipe = self._pipe or SharedPipe(self._memory, self.rank, self.size)
        return self._pipe

    def close(self) -> None:
        """Nothing: a peer may still read, and the kernel frees the memory after the last one."""
