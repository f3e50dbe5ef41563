"""The folder of one cell's results: held by one run at a time, replaced by the next one.

``results/<hardware>/<track>/<case>/`` holds ``verdict.json``, one folder per phase (``logs/``,
``tensorboard/``, ``provenance.json``) and ``checkpoints/<phase>/``.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError

#: In every folder that a run of the harness made; what has none is never emptied.
MARKER = ".harness-cell"


@dataclass(frozen=True)
class ResultsFolder:
    """Where things go in one cell's results.

    Args:
        path: the cell's folder; absolute.
    """

    path: Path

    @property
    def verdict(self) -> Path:
        """The verdict's file."""
        return self.path / "verdict.json"

    def phase(self, name: str) -> Path:
        """The folder of one phase."""
        return self.path / name

    def checkpoints(self, name: str) -> Path:
        """Where the phase ``name`` saves."""
        return self.path / "checkpoints" / name

    def remove_checkpoints(self) -> None:
        """Free the disk."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)


@contextlib.contextmanager
def claim(
    root: Path, hardware: str, track: str, case: str, *, waiting: Callable[[str], None]
) -> Iterator[ResultsFolder]:
    """Empty the cell's folder and keep others off it until the block ends.

    Args:
        waiting: told once, in one sentence, when another run has the folder.

    Raises:
        UsageError: there is a folder of that name which no run of the harness made.
    """
    from filelock import FileLock, Timeout

    folder = (root / hardware / track / case).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{case}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting(f"another run of {hardware}/{track}/{case} holds {folder}; waiting for it to end")
        lock.acquire()
    try:
        _empty(folder)
        yield ResultsFolder(folder)
    finally:
        lock.release()


def _empty(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise UsageError(
            f"{folder}: is not empty, and no run of the harness made it",
            "name another folder with --results",
        )
    if folder.exists():
        # Renamed first: whoever looks sees the old results or the new ones, never half of them.
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        shutil.rmtree(old)
    folder.mkdir()
    (folder / MARKER).touch()
