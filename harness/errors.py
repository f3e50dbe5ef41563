"""Every way to fail: one class each, with its exit code and one sentence of advice.

The message says where, what was found and what was expected; ``advice`` says what to do.
Raised where the failure is understood, printed once by the command line or the pytest plugin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

EXIT_PASSED = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOTHING = 3
EXIT_CRASHED = 4
EXIT_INTERRUPTED = 130


class HarnessError(Exception):
    """Base of all errors that the harness raises on purpose.

    Args:
        message: where, what was found, what was expected; one line.
        advice: what to do about it; one sentence, or empty for the class's own.
    """

    exit_code = EXIT_USAGE
    default_advice = ""

    def __init__(self, message: str, advice: str = "") -> None:
        self.message = " ".join(message.split())
        self.advice = " ".join((advice or self.default_advice).split())
        super().__init__(self.message, self.advice)

    def __str__(self) -> str:
        return f"{self.message} — {self.advice}" if self.advice else self.message


class UsageError(HarnessError):
    """A command line that names something that does not exist or does not fit."""


class CaseError(HarnessError):
    """A case file that is broken, or asks for something that cannot be run."""


class GoldenError(HarnessError):
    """A golden file that cannot be read, or that holds values no run can be compared with."""

    default_advice = "restore it from git, or record it again with -- --golden-update"


class MetricsError(HarnessError):
    """An event file or a JSON-lines file that cannot be read to its end."""


class NothingLogged(MetricsError):
    """A phase that ran to its end, and no metric is to be found anywhere."""


class CheckpointError(HarnessError):
    """A checkpoint that is torn, unreadable, or that would have to execute code to be read."""


class QuarantineError(HarnessError):
    """A quarantine file that cannot be read, or that holds an entry nobody could be held to."""

    default_advice = "an entry has cell, reason, owner, expires (a date) and green_nights (a number)"


class AlarmError(HarnessError):
    """Somebody who had to be told could not be told."""


class VerdictError(HarnessError, ValueError):
    """A ``verdict.json`` that cannot be read, or is none."""

    default_advice = "run the cell again"


class Unforeseen(HarnessError):
    """What nobody had thought of: a disk that is full, a folder that is gone, a fault of our own."""

    exit_code = EXIT_CRASHED


class HardwareMissing(HarnessError):
    """The machine does not have what the cell needs."""


class NotAllocated(UsageError):
    """Nodes that a cluster does not give, as they were asked for."""


class NotRun(HarnessError):
    """A cell whose machines were taken away before it had ended: neither passed nor failed."""

    exit_code = EXIT_NOTHING


class NothingToDo(HarnessError):
    """A selection that selects nothing."""

    exit_code = EXIT_NOTHING


@dataclass(frozen=True)
class Frame:
    """One frame of a traceback, as a log tells it; ``source``: its line of code, empty where none is told."""

    file: str
    line: int
    function: str
    source: str = ""


@dataclass(frozen=True)
class Raised:
    """An exception, as a log tells it.

    Args:
        kind: the name of its class, with its module where the log has it.
        message: what it says, in one line.
        frames: outermost first.
        cause: the one that was raised before it, and led to it.
        link: how: ``caused by`` or ``while handling``.
    """

    kind: str
    message: str
    frames: tuple[Frame, ...] = ()
    cause: Raised | None = None
    link: str = ""

    def chain(self) -> Iterator[Raised]:
        """It and those before it; the one that was raised first is the last."""
        one: Raised | None = self
        while one is not None:
            yield one
            one = one.cause

    def words(self) -> str:
        """``ValueError: what it says``, without what led to it."""
        return f"{self.kind}: {self.message}" if self.message else self.kind


class TrainerFailed(HarnessError):
    """A rank died, hung, or ended with an error; every other rank has been ended.

    Args:
        phase: ``continuous``, ``interrupted`` or ``resumed``.
        rank: the rank that failed first; None when it cannot be told.
        reason: what happened to it, e.g. ``was killed by SIGKILL after iteration 17``.
        log_tail: the last lines of that rank's log.
        log: path of that log.
        raised: the exception that ended it, as its log tells it; None where none did.
        evidence: what else its logs tell, a sentence each.
    """

    exit_code = EXIT_CRASHED

    def __init__(
        self,
        *,
        phase: str,
        rank: int | None,
        reason: str,
        log_tail: str = "",
        log: str = "",
        raised: Raised | None = None,
        evidence: tuple[str, ...] = (),
    ) -> None:
        self.phase = phase
        self.rank = rank
        self.reason = reason
        self.log_tail = log_tail
        self.log = log
        self.raised = raised
        self.evidence = evidence
        who = f"rank {rank}" if rank is not None else "the trainer"
        super().__init__(f"{phase}: {who} {reason}", f"its log: {log}" if log else "")
