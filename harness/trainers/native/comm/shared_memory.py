"""Memory that the ranks of one host share, and the C library's ways to wait in it.

The memory is one anonymous file (``memfd``): it has no name on any file system, so nothing is left behind
however the ranks end, and no mount's size limits it. It is as long as addresses go; only pages that were
written exist. Barriers and semaphores are POSIX's, shared between processes: they sleep in the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import time

PAGE = mmap.ALLOCATIONGRANULARITY
BARRIER = SEMAPHORE = 128  # bytes kept for each; the C libraries need at most 32
_LENGTH = 1 << 60
_PATIENCE = 300.0  # s; for rank 0 to come, which was forked along with this one
_LAST = -1  # PTHREAD_BARRIER_SERIAL_THREAD: what one of those who waited is told
_HOLE = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE

_address = ctypes.c_void_p
_c = ctypes.CDLL(None, use_errno=True)  # CDLL: this rank's other threads go on while one waits
_c.pthread_barrier_wait.argtypes = [_address]
_c.pthread_barrier_init.argtypes = [_address, _address, ctypes.c_uint]
_c.sem_init.argtypes = [_address, ctypes.c_int, ctypes.c_uint]
for _name in ("sem_post", "sem_wait", "sem_trywait"):
    getattr(_c, _name).argtypes = [_address]
_c.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Memory:
    """The file, as one rank holds it. Making it is collective over all ranks of the phase.

    Args:
        rendezvous: path that all ranks were given, in a folder of their own. For a moment there is a
            link beside it, by which the others find the file that rank 0 made.
    """

    def __init__(self, rank: int, size: int, rendezvous: str) -> None:
        link = rendezvous + ".memory"
        if rank == 0:
            self.fd = os.memfd_create("harness")
            os.ftruncate(self.fd, _LENGTH)
            self._everyone = self.map(0, PAGE)
            init_barrier(address(self._everyone), size)
            os.symlink(f"/proc/{os.getpid()}/fd/{self.fd}", link)
        else:
            self.fd = _open(link)
            self._everyone = self.map(0, PAGE)
        self.wait()
        if rank == 0:
            os.unlink(link)

    def map(self, offset: int, length: int) -> mmap.mmap:
        """The bytes from ``offset`` on; both are multiples of PAGE. Zero at first."""
        return mmap.mmap(self.fd, length, offset=offset)

    def wait(self) -> None:
        """Return when all ranks have called it."""
        wait_barrier(address(self._everyone))

    def free(self, offset: int, length: int) -> None:
        """Give the pages back; they read as zero from now on."""
        if _c.fallocate(self.fd, _HOLE, offset, length):
            raise _failure("fallocate", ctypes.get_errno())


def _open(link: str) -> int:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return os.open(link, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{link}: timed out waiting {_PATIENCE:.0f} s for rank 0") from None
            time.sleep(0.001)


def whole_pages(size: int) -> int:
    """``size`` bytes, rounded up to pages; at least one."""
    return max(1, -(-size // PAGE)) * PAGE


def address(memory: mmap.mmap) -> int:
    """Where the mapping begins in this process."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def init_barrier(at: int, count: int) -> None:
    """Make a barrier of ``count`` waiters at an address; once, by one process."""
    shared = ctypes.create_string_buffer(BARRIER)
    status = _c.pthread_barrierattr_init(shared) or _c.pthread_barrierattr_setpshared(shared, 1)
    status = status or _c.pthread_barrier_init(at, shared, count)
    if status:
        raise _failure("pthread_barrier_init", status)


def wait_barrier(at: int) -> None:
    """Sleep until ``count`` have come. What they wrote before, this process can read after."""
    status = _c.pthread_barrier_wait(at)
    if status not in (0, _LAST):
        raise _failure("pthread_barrier_wait", status)


def init_semaphore(at: int) -> None:
    """Make a semaphore of value 0 at an address; once, by one process."""
    if _c.sem_init(at, 1, 0):
        raise _failure("sem_init", ctypes.get_errno())


def post(at: int) -> None:
    """Add one, and wake who waits for it."""
    if _c.sem_post(at):
        raise _failure("sem_post", ctypes.get_errno())


def take(at: int) -> None:
    """Sleep until there is one, and subtract it."""
    while _c.sem_wait(at):
        if ctypes.get_errno() != errno.EINTR:  # a signal's handler has run, nothing else
            raise _failure("sem_wait", ctypes.get_errno())


def try_take(at: int) -> bool:
    """Subtract one if there is one."""
    return not _c.sem_trywait(at)


def _failure(call: str, number: int) -> OSError:
    return OSError(number, f"{call}: {os.strerror(number)}")
