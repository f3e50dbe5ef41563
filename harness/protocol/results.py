"""The folder of one cell's results: held by one run at a time, replaced by the next one.

``results/<hardware>/<track>/<case>/`` holds ``verdict.json``, one folder per phase (``logs/``,
``tensorboard/``, ``provenance.json``) and ``checkpoints/<phase>/``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import NotRun, UsageError
from harness.protocol import claims
from harness.text import one_line
from harness.verdict import Run
from harness.verdict.sweep import JOB, MARKER, VERDICT

__all__ = ["MARKER", "ResultsFolder", "claim"]

_LOCK = ".harness-lock"
_WAITING = "another run of {} holds {}; waiting for it to end"


@dataclass(frozen=True)
class ResultsFolder:
    """Where things go in one cell's results.

    Args:
        path: the cell's folder; absolute.
        suffix: of the folders of phases, where several have one name.
        run: the id of the run that has claimed it; empty where nobody had to.
    """

    path: Path
    suffix: str = ""
    run: str = ""

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

    def still_ours(self) -> None:
        """Look whether another run has come, which no lock kept off: not every file system has them.

        Raises:
            NotRun: its results stand here now, and nothing may be written among them.
        """
        found = _marker(self.path)
        if self.run and found.get("id", self.run) != self.run:
            whose = f" of job {one_line(found['job'])}" if "job" in found else ""
            raise NotRun(f"{self.path}: another run{whose} has claimed it meanwhile", "its verdict counts")

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
        shared: whether other machines have it too: then it is claimed by a file alone, without a lock.

    Raises:
        UsageError: there is something of that name which no run of the harness made.
        NotRun: this run is a job's that was started again meanwhile, and the later start has it.
    """
    folder = (root / hardware / track / case).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check(folder)
    locks = [folder.parent / f".{case}.lock"]
    if folder.is_symlink():  # two links may point to one folder
        locks.append(folder.resolve() / _LOCK)
    by_file = folder.parent / f".{case}.claim"
    with contextlib.ExitStack() as held:
        for path in () if shared else locks:
            held.enter_context(
                _locked(path, lambda: waiting(_WAITING.format(f"{hardware}/{track}/{case}", folder)))
            )
        held.enter_context(claims.claimed(by_file, waiting, locked=not shared))
        _check(folder)
        began = {"id": run.id, "started": run.started, **_job()}
        _refuse_the_late(folder, began)
        _empty(folder)
        (folder / MARKER).write_text(f"{json.dumps(began)}\n", encoding="utf-8")
        yield ResultsFolder(folder, run=run.id)


def _job() -> dict[str, str | int]:
    """Whose run this is, on a cluster."""
    number, dot, again = os.environ.get(JOB, "").partition(".")
    return {"job": number, "restart": int(again)} if dot and again.isdigit() else {}


def _refuse_the_late(folder: Path, began: Mapping[str, object]) -> None:
    """A node that was given up may go on for a while, where its job runs on another one already."""
    found, ours = _marker(folder), began.get("restart")
    theirs = found.get("restart")
    if ours is None or found.get("job") != began.get("job") or not isinstance(theirs, int):
        return
    if isinstance(ours, int) and theirs > ours:
        raise NotRun(f"{folder}: job {began['job']} has been started again, and has it", "its verdict counts")


def _marker(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / MARKER).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


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
