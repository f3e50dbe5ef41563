"""A phase that ended before its time, and what is said of it."""

from __future__ import annotations

from harness.diagnosis.result import Diagnosis
from harness.errors import CheckpointError, HarnessError, TrainerFailed


def crash(error: HarnessError) -> Diagnosis:
    """What ended the run before it could be judged."""
    cause = error.__cause__ if isinstance(error, TrainerFailed) else error
    said = [error.message]
    if isinstance(cause, CheckpointError):
        return Diagnosis("checkpoint", tuple(dict.fromkeys([cause.message, *said])))
    if isinstance(error, TrainerFailed):
        said += _told(error)
    return Diagnosis("crash", tuple(said))


def _told(error: TrainerFailed) -> list[str]:
    """What the logs say of it, beside the sentence itself."""
    said = list(error.evidence)
    if "SIGKILL" in error.reason and "perhaps" not in error.reason:
        said.append("perhaps out of memory: SIGKILL is what the kernel sends when there is none left")
    tail = error.log_tail.strip().splitlines()
    if error.rank is not None and error.raised is None and tail and tail[-1].strip() not in error.reason:
        said.append(f"its log ends with: {tail[-1].strip()}")
    if error.log:
        said.append(f"its log: {error.log}")
    return said
