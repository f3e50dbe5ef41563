"""Our jobs in the queue, and which of them nobody waits for any more."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from harness.engines.slurm import programs
from harness.engines.slurm.allocation import MARK
from harness.machine.processes import born


@dataclass(frozen=True)
class Job:
    """A job of this user's whose name is one of ours.

    Args:
        number, name, state, nodes: as Slurm has them.
        host, pid, born: the process that asked for it, and when that was started; empty if none is said.
    """

    number: str
    name: str
    state: str
    nodes: str
    host: str = ""
    pid: int = 0
    born: str = ""

    @property
    def orphan(self) -> bool | None:
        """Whether that process is gone; None where only another machine can tell."""
        if self.host != socket.gethostname() or not self.born:
            return None
        return born(self.pid) != self.born

    def words(self) -> str:
        """For a line."""
        whose = f"process {self.pid} on {self.host}" if self.host else "does not say whose"
        return f"job {self.number} {self.name}: {self.state} on {self.nodes or 'no node'}, {whose}"


def jobs() -> list[Job]:
    """All of this user's; raises UsageError where Slurm is not here, or does not answer."""
    programs.require()
    found = []
    for line in programs.ask("squeue", "-h", "--me", "-o", "%A|%j|%T|%N|%k").splitlines():
        number, name, state, nodes, comment = (*line.split("|", 4), "", "", "", "")[:5]
        if not name.startswith(MARK):
            continue
        words = comment.split()
        if len(words) == 4 and words[0] == "harness" and words[2].isdigit():
            found.append(Job(number, name, state, nodes, words[1], int(words[2]), words[3]))
        else:
            found.append(Job(number, name, state, nodes))
    return found
