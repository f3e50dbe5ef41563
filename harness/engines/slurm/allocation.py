"""An allocation: nodes that are this cell's until it gives them back."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Final

from harness.engines.base import Wanted
from harness.engines.slurm import programs
from harness.errors import NotAllocated, NotRun, UsageError
from harness.machine.processes import born
from harness.text import one_line

#: What the names of our jobs begin with: ``harness clean`` finds them by it.
MARK: Final = "harness-"
_LOOK: Final = 0.2  # s; how often the queue is asked while it changes fast
_LONGER: Final = 5.0  # s; and while one waits
_LEAVING: Final = 60.0  # s that a job may take to leave the queue once it was cancelled
#: How Slurm calls a job that was ended by none of those who ran it.
_TAKEN: Final = {
    "CANCELLED": "was cancelled",
    "PREEMPTED": "was preempted",
    "NODE_FAIL": "lost a node",
    "TIMEOUT": "came to its time limit",
    "DEADLINE": "came to its deadline",
    "REQUEUED": "was requeued",
    "REVOKED": "was revoked",
}


@dataclass(frozen=True)
class Taken:
    """How a job ended that those who ran it did not end.

    Args:
        why: as a clause; empty: it did not.
        others: whether its nodes were wanted for others.
    """

    why: str = ""
    others: bool = False


class Allocation:
    """Of one job.

    Args:
        job: its number.
        hosts: its nodes.
        name: of the job; empty: it is another's, in which this process runs, and stays.
    """

    def __init__(self, job: str, hosts: tuple[str, ...], name: str = "") -> None:
        self.job, self.hosts, self.name = job, hosts, name
        #: What Slurm is asked by.
        self.asked = job

    @classmethod
    def around(cls) -> Allocation | None:
        """The one that this process runs in; None outside of any."""
        job = os.environ.get("SLURM_JOB_ID", "")
        if not job:
            return None
        found = cls(job, programs.hosts(os.environ.get("SLURM_JOB_NODELIST", "")))
        array, task = (os.environ.get(f"SLURM_ARRAY_{name}", "") for name in ("JOB_ID", "TASK_ID"))
        if array and task:  # the number of one of the tasks is that of all of them
            found.asked = f"{array}_{task}"
        return found

    @classmethod
    def asked_for(cls, wanted: Wanted, nodes: int, note: Callable[[str], object] | None) -> Allocation:
        """A new one, waited for.

        Raises:
            UsageError: Slurm refuses it, with its words.
            KeyboardInterrupt: it is cancelled, and has left the queue.
        """
        name = f"{MARK}{uuid.uuid4().hex[:12]}"
        words = ["salloc", f"--nodes={nodes}", "--exclusive", "--no-shell", f"--job-name={name}"]
        words += [f"--time={wanted.where.minutes}", "--no-kill", "--mem=0", f"--comment={comment()}"]
        if wanted.hardware != "cpu":
            words.append(f"--gpus-per-node={max(1, wanted.ranks // wanted.nodes)}")
        words += list(wanted.where.options)
        try:
            with tempfile.TemporaryFile() as said:
                _wait(words, said, name, nodes, note)
            found = programs.ask("squeue", "-h", "-n", name, "-o", "%A %N").strip()
            job, _, nodelist = found.partition(" ")
            if not job:
                said_so = f"job {name} left the queue as soon as it had come to its nodes"
                raise NotRun(said_so, "run it again")  # noqa: TRY301 - the cleanup below is for this too
            return cls(job, programs.hosts(nodelist.strip()), name)
        except BaseException as error:
            cancel(name)
            if type(error) is UsageError:  # of a program that did not answer: no verdict on the trainer
                raise NotAllocated(error.message, error.advice) from None
            raise

    def give_back(self) -> None:
        """Cancel it, and wait until it has left the queue; what is another's stays."""
        if self.name:
            cancel(self.name)

    def taken(self, seconds: float = 0.0) -> Taken:
        """Why it is no longer there; nothing where nobody took it away.

        Args:
            seconds: for which its end is waited for: steps are ended before their job is.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                found = programs.fields(programs.ask("scontrol", "show", "job", "-o", self.asked))
            except UsageError:
                return Taken()
            state = found.get("JobState", "")
            # Within its time of grace a job that is preempted runs.
            if state == "RUNNING" and found.get("PreemptTime", "None") not in ("None", "Unknown"):
                state = "PREEMPTED"
            if state == "PENDING" and found.get("Restarts", "0") != os.environ.get(
                "SLURM_RESTART_COUNT", "0"
            ):
                state = "REQUEUED"
            if state not in ("RUNNING", "COMPLETING") or time.monotonic() > end:
                return Taken(_TAKEN.get(state, ""), others=state in ("PREEMPTED", "REQUEUED", "REVOKED"))
            time.sleep(_LOOK)


def cancel(name: str) -> bool:
    """End all jobs of a name; whether they have left the queue, which is waited for."""
    programs.tell("scancel", "-Q", f"--name={name}")
    end = time.monotonic() + _LEAVING
    while time.monotonic() < end:
        with contextlib.suppress(UsageError):  # a controller that is busy is asked again
            if not programs.ask("squeue", "-h", "-n", name, "-o", "%A").strip():
                return True
        time.sleep(_LOOK)
        if time.monotonic() > end - _LEAVING + 10:  # whoever caught the first signal does not catch this
            programs.tell("scancel", "-Q", f"--name={name}", "--signal=KILL", "--full")
    return False


def _wait(
    words: list[str], said: IO[bytes], name: str, nodes: int, note: Callable[[str], object] | None
) -> None:
    process = subprocess.Popen(
        words,
        env=programs.environment(),
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # an interrupt from the keyboard is ours to handle
    )
    told, look = "", time.monotonic() + 1.0
    try:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK)
            if note is not None and time.monotonic() > look:
                look = time.monotonic() + _LONGER
                with contextlib.suppress(UsageError):
                    line = programs.ask("squeue", "-h", "-n", name, "-o", "%A: %T, %r").strip()
                    if line and line != told and "RUNNING" not in line:
                        told = line
                        note(f"waiting for {nodes} nodes: job {line}")
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
    if process.returncode:
        said.seek(0)
        lines = [line for line in said.read().decode(errors="replace").splitlines() if "error" in line]
        what = (
            one_line(lines[-1].removeprefix("salloc: error: ")) if lines else f"status {process.returncode}"
        )
        raise NotAllocated(
            f"salloc gives no {nodes} nodes: {what}",
            "one is more than a phase has, so that no rank comes back to its node; --no-rotation: none, "
            "and --slurm-option passes words on",
        )


def comment() -> str:
    """Whose it is: found again when that process is gone."""
    return f"harness {socket.gethostname()} {os.getpid()} {born(os.getpid())}"
