"""Which process a number means: another one may get it."""

from __future__ import annotations

import contextlib
from pathlib import Path


def born(pid: int) -> str:
    """When a process of this machine was started, in ticks since it was itself; empty where there is none."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""
