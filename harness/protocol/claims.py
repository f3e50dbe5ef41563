"""Who has a folder that several machines share: a file says so, since no lock can be trusted over NFS.

It is made by an exclusive create, which NFS does at once or not at all, and says which process of which
machine has it, in which job of Slurm. A run on one machine takes a lock first and this after it: a job that
comes later sees it then. Whoever finds it takes the folder over only where that one is known to
be gone: its job has left the queue, or was started again since (requeued), or its process is gone from here.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from harness.errors import HarnessError
from harness.machine.processes import born
from harness.verdict.sweep import JOB

_LOOK: Final = 2.0  # s
#: States of a job that has ended; in others, some of which are rare, it may still run.
_OVER: Final = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
    "REVOKED", "TIMEOUT",
)  # fmt: skip
_TORN: Final = 30.0  # s after which a file that says nothing is nobody's


@dataclass(frozen=True)
class Owner:
    """A process that has a folder.

    Args:
        host, pid, born: the process, and when it was started: another one may get its number.
        job: of Slurm; empty outside of any.
        restart: how often the job was requeued before.
        locked: whether it has the folder's lock too, which ends with the process.
    """

    host: str
    pid: int
    born: str = ""
    job: str = ""
    restart: int = 0
    locked: bool = False

    @classmethod
    def here(cls, environ: Mapping[str, str] | None = None, *, locked: bool = False) -> Owner:
        """This process."""
        env = os.environ if environ is None else environ
        job, _, count = env.get(JOB, "").partition(".")  # of a sweep's task, which has no more of Slurm's
        count = count or env.get("SLURM_RESTART_COUNT", "0")
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            born=born(os.getpid()),
            job=job or env.get("SLURM_JOB_ID", ""),
            restart=int(count) if count.isdigit() else 0,
            locked=locked,
        )

    @classmethod
    def read(cls, path: Path) -> Owner | None:
        """Of a file; None where it says nothing (yet)."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return cls(**json.loads(path.read_text()))
        return None

    def words(self) -> str:
        """For a sentence."""
        job = f", job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"

    def gone(self, me: Owner) -> bool:
        """Whether it cannot have the folder any more."""
        if self.locked and me.locked:
            return True  # or its lock would not be ours
        here = self.host == me.host and bool(self.born)
        if here and born(self.pid) != self.born:
            return True
        if self.job and self.job == me.job:
            return self.restart < me.restart
        return not here and bool(self.job) and _left(self.job, self.restart)


@contextlib.contextmanager
def claimed(path: Path, waiting: Callable[[str], object], *, locked: bool = False) -> Iterator[None]:
    """Hold the file ``path`` while the block runs; wait for whoever holds it.

    Args:
        waiting: told, once, who has it.
        locked: whether the folder's lock is held already.
    """
    me, told, torn = Owner.here(locked=locked), False, time.monotonic() + _TORN
    while not _made(path, me):
        owner = Owner.read(path)
        if (owner is None and path.exists() and time.monotonic() > torn) or (owner and owner.gone(me)):
            _put_aside(path, owner)
            continue
        if owner is not None and not told:
            told = True
            waiting(f"{owner.words()} has {path.parent}, waiting for its end; if it is gone: rm {path}")
        time.sleep(_LOOK)
    try:
        yield
    finally:
        if Owner.read(path) == me:
            path.unlink(missing_ok=True)


def _made(path: Path, me: Owner) -> bool:
    """Whether the file is ours now. It is linked there, whole: nobody ever sees one that says nothing yet."""
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    beside.write_text(json.dumps(asdict(me)))
    try:
        os.link(beside, path)
    except FileExistsError:
        return False
    except OSError:  # no links here: on a stick, say
        try:
            with path.open("x") as made:
                made.write(json.dumps(asdict(me)))
        except FileExistsError:
            return False
    finally:
        beside.unlink(missing_ok=True)
    return True


def _put_aside(path: Path, owner: Owner | None) -> None:
    """Take away the claim of one that is gone; that of whoever has taken it over meanwhile is put back."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        path.rename(aside)
        if Owner.read(aside) != owner:
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def _left(job: str, restart: int) -> bool:
    """Whether a job has left the queue, or was started again since; False where Slurm does not say."""
    from harness.engines.slurm import programs

    try:
        if not programs.ask("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").strip():
            return True
        found = programs.fields(programs.ask("scontrol", "show", "job", "-o", job))
    except HarnessError as error:
        return "Invalid job id" in str(error)
    over = found.get("JobState", "") in _OVER
    restarts = found.get("Restarts", "0")
    return over or (restarts.isdigit() and int(restarts) > restart)
