"""The folder of one cell's results: held by one run at a time, replaced by the next one.

``results/<hardware>/<track>/<case>/`` holds ``verdict.json``, one folder per phase (``logs/``,
``tensorboard/``, ``provenance.json``) and ``checkpoints/<phase>/``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.protocol import claims
from harness.verdict import Run
from harness.verdict.sweep import MARKER, VERDICT

__all__ = ["MARKER", "ResultsFolder", "claim"]

_LOCK = ".harness-lock"
_WAITING = "another run of {} holds {}; waiting for it to end"


@dataclass(frozen=True)
class ResultsFolder:
    """Where things go in one cell's results.

    Args:
        path: the cell's folder; absolute.
        suffix: of the folders of phases, where several have one name.
    """

    path: Path
    suffix: str = ""

    @property
    def verdict(self) -> Path:
        """The verdict's file."""
        return self.path / VERDICT

    def phase(self, name: str) -> Path:
        """The folder of one phase."""
        return self.path / f"{name}{self.suffix}"

    def checkpoints(self, name: str) -> Path:
        """Where the phase ``name`` saves."""
        return self.path / "checkpoints" / f"{name}{self.suffix}"

    def remove_checkpoints(self) -> None:
        """Free the disk."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)


@contextlib.contextmanager
def claim(
    root: Path,
    hardware: str,
    track: str,
    case: str,
    *,
    run: Run,
    waiting: Callable[[str], None],
    shared: bool = False,
) -> Iterator[ResultsFolder]:
    """Empty the cell's folder and keep others off it until the block ends.

    The folder may be a link (to a scratch disk): then what it points to is emptied, and the link stays.

    Args:
        run: the invocation; its id and its start are written into the folder before anything else.
        waiting: told once, in one sentence, when another run has the folder.
        shared: whether other machines have it too: then it is claimed by a file, and not by a lock.

    Raises:
        UsageError: there is something of that name which no run of the harness made.
    """
    folder = (root / hardware / track / case).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check(folder)
    locks = [folder.parent / f".{case}.lock"]
    if folder.is_symlink():  # two links may point to one folder
        locks.append(folder.resolve() / _LOCK)
    by_file = folder.parent / f".{case}.claim"
    with contextlib.ExitStack() as held:
        if shared:
            held.enter_context(claims.claimed(by_file, waiting))
        else:
            claims.wait_for(by_file, waiting)
        for path in () if shared else locks:
            held.enter_context(
                _locked(path, lambda: waiting(_WAITING.format(f"{hardware}/{track}/{case}", folder)))
            )
        _check(folder)
        _empty(folder)
        began = json.dumps({"id": run.id, "started": run.started})
        (folder / MARKER).write_text(f"{began}\n", encoding="utf-8")
        yield ResultsFolder(folder)


@contextlib.contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check(folder: Path) -> None:
    """Refuse what is not ours to empty."""
    advice = "name another folder with --results"
    if folder.is_symlink() and not folder.exists():
        raise UsageError(
            f"{folder}: is a link to {os.readlink(folder)}, which is not there",
            "make that folder, or remove the link",
        )
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder}: is no folder, expected the results of a cell", advice)
    if (folder / MARKER).exists():
        return
    if any(path.name != _LOCK for path in folder.iterdir()):
        raise UsageError(f"{folder}: is not empty, and no run of the harness made it", advice)


def _empty(folder: Path) -> None:
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        if old.is_symlink():
            old.unlink()
        shutil.rmtree(old, ignore_errors=True)
        if folder.is_symlink() or not _renamed(folder, old):
            _empty_in_place(folder)
            return
        shutil.rmtree(old)
    folder.mkdir()


def _renamed(folder: Path, old: Path) -> bool:
    """Whoever looks sees the old results or the new ones, never half of them; False for a disk's own root."""
    try:
        folder.rename(old)
    except OSError:
        return False
    return True


def _empty_in_place(folder: Path) -> None:
    """The verdict first, so that nobody takes it for that of what is left; the marker stays."""
    (folder / VERDICT).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name in (MARKER, _LOCK):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
