"""Who may use which device now, between all processes of a user on this machine.

A slot is a GPU, or a core. Whoever wants some takes a ticket; tickets are served first come, first served.
One that does not fit yet may be overtaken by later ones that do, so that slots do not lie idle, but only
:data:`OVERTAKEN` times: then it is waited for. A ticket is good for as long as its process holds the lock on
its file, so that the kernel itself gives back what a killed process held.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError, UsageError
from harness.machine.hardware import cores, devices_of, of_amd, require, showing

if TYPE_CHECKING:
    from filelock import BaseFileLock

FOLDER_VARIABLE = "HARNESS_LEASES"
#: How often a ticket that does not fit yet lets others by. Of 24 random cells on 2 cores or 8 GPUs, 16 keeps
#: slots as busy as no limit at all does (simulated: within 1 %), and nobody waits for ever.
OVERTAKEN = 16
_AMD = "AMD GPU "
_LOOK = 0.02  # s; how often those in line look whether the line has changed
_SWEEP = 1.0  # s; how often they look for holders that are dead, which change nothing themselves


@dataclass(frozen=True)
class Ticket:
    """A place in line, or what was got for it.

    Args:
        number: in order of arrival.
        slots: those that would do.
        count: how many of them are wanted.
        overtaken: how often a later ticket was served first.
        held: the slots it has; none while it waits.
    """

    number: int
    slots: tuple[str, ...]
    count: int
    overtaken: int = 0
    held: tuple[str, ...] = ()

    def rivals(self, other: Ticket) -> bool:
        """Whether both could want the same slot."""
        return not set(self.slots).isdisjoint(other.slots)


@contextlib.contextmanager
def lease(
    hardware: str, count: int, waiting: Callable[[str], object] | None = None
) -> Iterator[Mapping[str, str]]:
    """Hold slots for as long as the block runs; wait for them first.

    Args:
        hardware: a key of :data:`harness.matrix.HARDWARE`.
        count: how many ranks; on the CPU, all cores do for any number of them.
        waiting: told, in one sentence, what is waited for, and again when the line has moved.

    Yields:
        What to set in the environment of everything that is started: ``CUDA_VISIBLE_DEVICES``, or what it is
        for AMD's.

    Raises:
        HardwareMissing: the machine has not so many.
        UsageError: the folder of leases is somebody else's.
    """
    require(hardware, count)
    if hardware == "cpu":
        slots = tuple(f"core {number}" for number in range(cores()))
        what = "core"
    else:
        of_whom = _AMD if of_amd(hardware) else ""  # theirs are numbers
        slots = tuple(of_whom + device.uuid for device in devices_of(hardware))
        what = f"{hardware.upper()} GPU"
    line = _Line(folder())
    with line.ticket(slots, min(count, len(slots))) as number:
        said = ""
        while not (held := line.take(number)):
            text = _sentence(what, min(count, len(slots)), line.before(number))
            if waiting is not None and text != said:
                waiting(text)
            said = text
            line.wait()
        yield showing(hardware, [name.removeprefix(_AMD) for name in held])


def folder() -> Path:
    """Where the line is kept: ``HARNESS_LEASES``, else a folder of this user's on this machine.

    Neither ``TMPDIR`` nor ``XDG_RUNTIME_DIR`` is asked: they differ between jobs that share the devices.

    Raises:
        UsageError: the folder that belongs to this user is another's.
    """
    if named := os.environ.get(FOLDER_VARIABLE):
        path = Path(named)
        path.mkdir(parents=True, exist_ok=True)
        return path
    root = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())  # noqa: S108 - see below
    path = root / f"harness-leases-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UsageError(
            f"{path}: is no folder of this user's, expected one to keep leases on devices in",
            f"name another with {FOLDER_VARIABLE}",
        )
    return path


def serve(tickets: Sequence[Ticket], number: int) -> list[Ticket] | None:
    """The line after ``number`` has got what it wants; None while it has to wait.

    Args:
        tickets: everybody alive, in order of arrival.
        number: who asks.
    """
    taken = {slot for ticket in tickets for slot in ticket.held}
    me = next(ticket for ticket in tickets if ticket.number == number)

    def free(ticket: Ticket) -> list[str]:
        return [slot for slot in ticket.slots if slot not in taken]

    if len(free(me)) < me.count:
        return None
    before = [t for t in tickets if t.number < number and not t.held and t.rivals(me)]
    if any(len(free(t)) >= t.count or t.overtaken >= OVERTAKEN for t in before):
        return None
    after = {t.number: replace(t, overtaken=t.overtaken + 1) for t in before}
    after[number] = replace(me, held=tuple(free(me)[: me.count]))
    return [after.get(t.number, t) for t in tickets]


def settle(tickets: Sequence[Ticket]) -> list[Ticket]:
    """The line after everybody has got what there is to get.

    Whoever leaves does this for those who wait, so that a slot is idle only until they look.
    """
    line = list(tickets)
    for ticket in tickets:
        if not ticket.held:
            line = serve(line, ticket.number) or line
    return line


def _sentence(what: str, count: int, before: int) -> str:
    wanted = f"waiting for {count} {what}{'s' if count > 1 else ''}"
    ahead = {0: "next in line", 1: "1 cell before this one"}.get(before, f"{before} cells before this one")
    return f"{wanted}: {ahead}"


class _Line:
    """The line on disk: ``line.json``, changed only under ``line.lock``; one locked file a ticket."""

    def __init__(self, path: Path) -> None:
        self._folder = path
        self._file = path / "line.json"
        self._seen: object = None
        self._next_sweep = 0.0

    @contextlib.contextmanager
    def ticket(self, slots: tuple[str, ...], count: int) -> Iterator[int]:
        """Stand in line, and leave it at the end."""
        with self._changing() as tickets:
            number = 1 + max((t.number for t in tickets), default=0)
            mine = self._lock(number)
            mine.acquire(blocking=False)
            tickets.append(Ticket(number, slots, count))
        try:
            yield number
        finally:
            with self._changing() as tickets:
                tickets[:] = settle([t for t in tickets if t.number != number])
                mine.release()
                self._path(number).unlink(missing_ok=True)

    def take(self, number: int) -> tuple[str, ...]:
        """What ``number`` has got by now; nothing while it has to wait."""
        self._seen = self._stamp()
        if held := self._mine(self._read(), number).held:
            return held
        if time.monotonic() < self._next_sweep:
            return ()
        with self._changing() as tickets:
            tickets[:] = settle([t for t in tickets if t.number == number or self._alive(t.number)])
            self._next_sweep = time.monotonic() + _SWEEP
            return self._mine(tickets, number).held

    def _mine(self, tickets: Sequence[Ticket], number: int) -> Ticket:
        for ticket in tickets:
            if ticket.number == number:
                return ticket
        raise HarnessError(
            f"{self._file}: has lost the ticket of this cell", "keep it while cells are running"
        )

    def before(self, number: int) -> int:
        """How many wait in front of ``number``."""
        tickets = self._read()
        me = next((t for t in tickets if t.number == number), None)
        return sum(t.number < number and not t.held and (me is None or t.rivals(me)) for t in tickets)

    def wait(self) -> None:
        """Until the line has changed, or it is time to look for the dead."""
        while self._stamp() == self._seen and time.monotonic() < self._next_sweep:
            time.sleep(_LOOK)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Ticket]]:
        """The tickets; what the block makes of them is kept."""
        from filelock import FileLock

        with FileLock(self._folder / "line.lock", mode=0o666, poll_interval=0.005):
            found = self._read()
            tickets = list(found)
            yield tickets
            if tickets != found:
                beside = self._file.with_suffix(".new")
                beside.write_text(json.dumps([asdict(ticket) for ticket in tickets]))
                beside.replace(self._file)

    def _read(self) -> list[Ticket]:
        try:
            content = json.loads(self._file.read_text())
            return [Ticket(**{**t, "slots": tuple(t["slots"]), "held": tuple(t["held"])}) for t in content]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError) as error:
            raise HarnessError(
                f"{self._file}: is no line of tickets: {error}",
                "remove the folder once no cell is running",
            ) from None

    def _alive(self, number: int) -> bool:
        lock = self._lock(number)
        if not _acquired(lock):
            return True
        lock.release()
        self._path(number).unlink(missing_ok=True)
        return False

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.lock"

    def _lock(self, number: int) -> BaseFileLock:
        from filelock import FileLock

        return FileLock(self._path(number), mode=0o666, thread_local=False)

    def _stamp(self) -> object:
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns  # a clock tick may see two changes, of two files


def _acquired(lock: BaseFileLock) -> bool:
    from filelock import Timeout

    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True
