"""How soon a rank that was woken runs, on a machine with other work.

Ranks wait asleep, and all wait for the slowest: beside busy processes, a step is mostly the time from being
woken to running. Linux gives a process that asks for short turns its processor sooner, and no more of it
(``sched_setattr``, from Linux 6.12 on). Asking needs no privilege. To spin before sleeping, or to yield,
was slower there: what is spun away is taken from the rank's own share.
"""

from __future__ import annotations

import ctypes
import platform
import struct

#: ns. Shorter than the kernel's own (1.4 ms on two cores), which busy processes have; 0.1 ms was no better.
TURN = 300_000

_CALLS = {"x86_64": (314, 315), "aarch64": (274, 275)}  # sched_setattr, sched_getattr
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, deadline, period
_FAIR = (0, 3)  # SCHED_OTHER, SCHED_BATCH: where the runtime is the length of a turn
_RESET_ON_FORK = 1


def turn() -> int:
    """Length of this thread's turns (ns); 0 where the kernel knows of none to choose."""
    found = _attributes()
    return found[5] if found and found[1] in _FAIR else 0


def ask_for_short_turns() -> None:
    """Make this thread's turns :data:`TURN` long, if they are longer; not those of what it starts later.

    Policy and niceness stay as they are. Where it cannot be asked for, nothing happens.
    """
    found = _attributes()
    if found is None or found[1] not in _FAIR or found[5] <= TURN:
        return
    _, policy, flags, nice, priority, _, deadline, period = found
    flags |= _RESET_ON_FORK
    words = (_ATTRIBUTES.size, policy, flags, nice, priority, TURN, deadline, period)
    _libc().syscall(_CALLS[platform.machine()][0], 0, _ATTRIBUTES.pack(*words), 0)


def _attributes() -> tuple[int, ...] | None:
    if platform.system() != "Linux" or platform.machine() not in _CALLS:
        return None
    buffer = ctypes.create_string_buffer(_ATTRIBUTES.size)
    if _libc().syscall(_CALLS[platform.machine()][1], 0, buffer, _ATTRIBUTES.size, 0):
        return None
    return _ATTRIBUTES.unpack(buffer.raw)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
