"""What Slurm says of the tasks of a sweep: one question for all of them, however many there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from harness.engines.slurm import programs
from harness.errors import UsageError

#: A task by the number of its array's job and its own; one that is no array's has the task -1.
Key = tuple[int, int]

#: The whole of ``123_[0-5,7,9-300%8]``, which is cut off after 64 characters otherwise.
_WHOLE: Final = {"SLURM_BITSTR_LEN": "0"}
_ID: Final = re.compile(r"(\d+)(?:_(?:(\d+)|\[([^\]]*)\]))?")
_UNKNOWN: Final = "Invalid job id"
_MOST_TASKS: Final = 100_000  # of one line; an array has never so many
#: States of a task that has ended; in any other it is still to come to one.
ENDED: Final = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
    "REVOKED", "TIMEOUT",
)  # fmt: skip
#: States in which a task was taken away, or never given: nobody can say how it would have ended.
TAKEN: Final = ("CANCELLED", "PREEMPTED", "REVOKED")


@dataclass(frozen=True)
class Task:
    """One that is in the queue.

    Args:
        state: Slurm's word.
        host: its first node; empty before it has one.
        elapsed: since when it runs, as Slurm writes it.
        reason: why it waits.
    """

    state: str
    host: str = ""
    elapsed: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Queue:
    """The tasks of one name.

    Args:
        there: those that have begun, or were requeued, one by one.
        waiting: those that have not, and why.
    """

    there: Mapping[Key, Task] = field(default_factory=dict)
    waiting: Mapping[Key, str] = field(default_factory=dict)

    def __contains__(self, key: Key) -> bool:
        return key in self.there or key in self.waiting

    def __len__(self) -> int:
        return len(self.there) + len(self.waiting)


def look(name: str) -> Queue:
    """The queue as it is now; raises UsageError where Slurm does not answer."""
    return parsed(programs.ask("squeue", "-h", "-n", name, "-o", "%i|%T|%N|%M|%r", env=_WHOLE))


def parsed(text: str) -> Queue:
    """Lines of ``squeue -o '%i|%T|%N|%M|%r'``."""
    there: dict[Key, Task] = {}
    waiting: dict[Key, str] = {}
    for line in text.splitlines():
        number, state, host, elapsed, reason = (*line.strip().split("|", 4), "", "", "", "")[:5]
        if state == "PENDING":
            waiting |= dict.fromkeys(keys(number), reason)
        else:
            there |= dict.fromkeys(keys(number), Task(state, host, elapsed, reason))
    return Queue(there, waiting)


def keys(number: str) -> Iterator[Key]:
    """``12_3``, ``12_[0-5,9%4]`` or ``12``, one by one."""
    found = _ID.match(number)
    if found is None:
        return
    job, task, several = int(found[1]), found[2], found[3]
    if several is None:
        yield job, int(task) if task is not None else -1
        return
    for part in several.partition("%")[0].split(","):
        first, _, rest = part.partition("-")
        last, _, step = rest.partition(":")
        if first.strip().isdigit():
            end = int(last) if last.isdigit() else int(first)
            every = int(step) if step.isdigit() and int(step) else 1
            for one in range(int(first), min(end, int(first) + _MOST_TASKS) + 1, every):
                yield job, one


def endings(wanted: Iterable[Key]) -> dict[Key, Task]:
    """How tasks have ended that are not in the queue any more; those that Slurm has forgotten are left out.

    One question, or two where there is a data base; asked of those only that have left no verdict.

    Raises:
        UsageError: Slurm does not answer.
    """
    numbers = [str(job) if task < 0 else f"{job}_{task}" for job, task in wanted]
    if not numbers:
        return {}
    try:
        text = programs.ask(
            "squeue", "-h", "-r", "-t", "all", "-j", ",".join(numbers), "-o", "%i|%T|%N|%M|%r"
        )
    except UsageError as error:
        if _UNKNOWN not in str(error):
            raise
        text = ""  # none of them is known any more
    found = parsed(text)
    known = {**dict.fromkeys(found.waiting, Task("PENDING")), **found.there}
    left = [number for number in numbers if next(keys(number)) not in known]
    return {**known, **(_recorded(left) if left else {})}


def _recorded(numbers: list[str]) -> dict[Key, Task]:
    """What the data base of the cluster says, where it has one."""
    try:
        text = programs.ask(
            "sacct", "-n", "-P", "-X", "-j", ",".join(numbers), "-o", "JobID,State,NodeList,Elapsed,Reason"
        )
    except UsageError:
        return {}
    found = {}
    for line in text.splitlines():
        number, state, host, elapsed, reason = (*line.split("|"), "", "", "", "", "")[:5]
        word = state.split()[0] if state.split() else ""  # CANCELLED by 1000
        for key in keys(number):
            if word in ENDED:
                found[key] = Task(word, "" if host == "None assigned" else host, elapsed, reason)
    return found
