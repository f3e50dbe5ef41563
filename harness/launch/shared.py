"""A folder that several machines share: what one has written, another sees later.

Over NFS a file that was just written is not there for another machine, or is shorter, until its caches are
revalidated. So whoever has read too early lists anew, and opens anew, until names and sizes agree. No time of
a file is compared with a clock: they are of different machines.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

#: Seconds that a folder is waited for; NFS forgets what it knows of a folder after 60 s at the latest.
WAIT: Final = 90.0
_VARIABLE: Final = "HARNESS_SHARED_WAIT"
_LOOK: Final = 0.25  # s between two looks
_SOME: Final = 100  # files
#: Files of a phase that are compared: a cache of data may lie there too.
_MOST: Final = 100_000

#: Bytes of each file, by its path.
Listing = Mapping[str, int]


def listing(
    folders: Iterable[str | Path], *, meanwhile: Callable[[], object] | None = None
) -> dict[str, int]:
    """What is below some folders, as this machine sees it: bytes by path, of regular files.

    Args:
        folders: which.
        meanwhile: called now and then: over a network many files take long.
    """
    found: dict[str, int] = {}
    for top in folders:
        for here, below, names in os.walk(top):
            below.sort()
            for name in sorted(names):
                path = os.path.join(here, name)
                with contextlib.suppress(OSError):
                    if stat.S_ISREG(os.stat(path).st_mode):
                        found[path] = _size(path)
                if meanwhile is not None and len(found) % _SOME == 0:
                    meanwhile()
                if len(found) >= _MOST:
                    return found
    return found


def _size(path: str) -> int:
    """As the server says: what is opened is asked for anew."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def together(listings: Iterable[Listing]) -> dict[str, int]:
    """What some machines see, each of which may lag behind another: of each file the longest."""
    found: dict[str, int] = {}
    for one in listings:
        for path, size in one.items():
            found[path] = max(size, found.get(path, 0))
    return found


def lacking(wanted: Listing, seen: Listing) -> list[str]:
    """Paths that are not seen as they should be, a clause each."""
    found = []
    for path, size in wanted.items():
        if path not in seen:
            found.append(f"{path} is not there")
        elif seen[path] < size:
            found.append(f"{path} has {seen[path]} of {size} bytes")
    return found


def wait_for_folders(
    folders: Iterable[str | Path],
    *,
    seconds: float | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> list[str]:
    """Wait until folders that another machine has made are there; those that are not, in the end."""
    end = time.monotonic() + (patience() if seconds is None else seconds)
    left = [str(path) for path in folders]
    while left := [path for path in left if not os.path.isdir(path)]:
        if time.monotonic() > end:
            return left
        if meanwhile is not None:
            meanwhile()
        time.sleep(_LOOK)
    return []


def wait_for(
    wanted: Listing,
    folders: Iterable[str | Path],
    *,
    seconds: float | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> list[str]:
    """Wait until this machine sees all of ``wanted``; what it does not see in the end.

    Args:
        wanted: what others see.
        folders: where that is.
        seconds: how long at most; None: ``HARNESS_SHARED_WAIT``, or :data:`WAIT`.
        meanwhile: called between two looks.
    """
    folders = list(folders)
    end = time.monotonic() + (patience() if seconds is None else seconds)
    while True:
        left = lacking(wanted, listing(folders, meanwhile=meanwhile))
        if not left or time.monotonic() > end:
            return left
        if meanwhile is not None:
            meanwhile()
        time.sleep(_LOOK)


def patience() -> float:
    """Seconds: ``HARNESS_SHARED_WAIT``, or :data:`WAIT`."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(os.environ.get(_VARIABLE, WAIT)))
    return WAIT
