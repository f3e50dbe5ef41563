"""Which signals mean what: a cluster or a library may have its own use of one. Standard library only."""

from __future__ import annotations

import os
import signal
from typing import Final

from harness.errors import UsageError

#: By which ranks are asked for their stacks; NCCL and schedulers have taken SIGUSR1 for themselves.
STACKS: Final = "HARNESS_STACK_SIGNAL"
#: Which is an interrupt, beside SIGTERM: what ``--signal`` of Slurm's sends before a job is taken away.
PREEMPTION: Final = "HARNESS_PREEMPT_SIGNAL"
#: No handler can be set for them, or a crash's own would be lost.
_NOT: Final = ("SIGKILL", "SIGSTOP", "SIGCHLD", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT")


class TakenAway(KeyboardInterrupt):
    """The signal of :data:`PREEMPTION` came: an interrupt; how the cell would have ended, nobody knows."""


def stacks() -> signal.Signals:
    """The signal of :data:`STACKS`; SIGUSR1 where nothing is said. Raises UsageError."""
    found = _named(STACKS) or signal.SIGUSR1
    if found in (signal.SIGTERM, signal.SIGINT):
        raise UsageError(f"{STACKS}: found {found.name}, which ends a rank", "take USR1 or USR2")
    return found


def preemption() -> signal.Signals | None:
    """The signal of :data:`PREEMPTION`; None where nothing is said. Raises UsageError."""
    return _named(PREEMPTION)


def check() -> None:
    """Raise UsageError where a variable names no signal, one that cannot be taken, or both the same."""
    if preemption() == stacks():
        raise UsageError(
            f"{PREEMPTION}: found {stacks().name}, by which ranks are asked for their stacks",
            f"name another there, or in {STACKS}",
        )


def _named(variable: str) -> signal.Signals | None:
    said = os.environ.get(variable, "")
    if not said:
        return None
    name = said.upper() if said.upper().startswith("SIG") else f"SIG{said.upper()}"
    found = getattr(signal, name, None)
    if not isinstance(found, signal.Signals) or name in _NOT:
        raise UsageError(f"{variable}: found {said!r}, expected the name of a signal, as USR2")
    return found
