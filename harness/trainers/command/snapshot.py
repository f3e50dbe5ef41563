"""Watch a folder that a script saves into, and keep what stood there at one iteration."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from harness.trainers.command import processes
from harness.trainers.command.checkpoint_names import Found, found, state_of
from harness.trainers.command.completeness import cut_off, lacking, uncommitted
from harness.trainers.command.names import Saves, read, staged
from harness.trainers.command.putting_back import is_begun, is_pointer, is_special, put_back, text_of

_SETTLED = 1.0  # s; for so long no file of a checkpoint must have changed, to be whole,
_PAUSES = 3  # and for so many times the longest pause that its writing has made
_FIRST = 5.0  # s at most that the first checkpoint of all is waited for: nothing tells what it consists of
_PATIENCE = 10.0  # s that what looks unfinished may stay as it is until it is taken for whole
_BESIDE = 0.3  # s; what changes again so long after the checkpoint beside it is the next one's
_LOGS = (".log", ".jsonl", ".csv", ".out", ".err")

Listing = dict[str, tuple[int, int, int, str]]
Parts = tuple[tuple[str, int, int], ...]


def listing(folder: Path) -> Listing:
    """What stands below a folder: size, time, file, and where a link leads, by name."""
    seen: Listing = {}
    for here, folders, names in os.walk(folder):
        for name in (*names, *folders):
            path = os.path.join(here, name)
            with contextlib.suppress(OSError):
                about = os.lstat(path)
                leads = os.readlink(path) if os.path.islink(path) else ""
                size = 0 if os.path.isdir(path) else about.st_size
                time = 0 if os.path.isdir(path) else about.st_mtime_ns
                seen[os.path.relpath(path, folder)] = (size, time, about.st_ino, leads)
    return seen


class Watch:
    """Looks for the checkpoint of an iteration, and copies what stands there when it is whole.

    Args:
        folder: where the command saves.
        k: the iteration.
        saves: when it does.
        root: the process that the command is.
        like: a folder that the same command has saved into, and has come to its end.
        end: the iteration that it ended at there.
    """

    def __init__(self, folder: Path, k: int, saves: Saves, root: int, like: Path, end: int) -> None:
        self.folder, self.k, self.saves, self.root = folder, k, saves, root
        #: Where what stood there is kept.
        self.copy = folder.with_name(f".{folder.name}.at-{k}")
        whole = found(like, end, Saves(saves.interval, end)) if like.is_dir() else {}
        self._like = whole.get(end, [])
        numbered = {path for paths in whole.values() for path in paths}
        #: What names checkpoints there, and has to be here as well.
        self._pointers = [
            path.name
            for path in (like.iterdir() if whole else ())
            if is_pointer(path) and path not in numbered
        ]
        self._last: Listing = {}
        self._mine: Parts = ()
        self._began = self._since = self._longest = self._quiet = 0.0
        self._taken: Listing | None = None
        self._taken_mine: Parts = ()
        self._whole = False  # whether the copy is

    @property
    def taken(self) -> bool:
        """Whether there is a copy."""
        return self._taken is not None

    @property
    def whole(self) -> bool:
        """Whether nothing was still to come when it was taken."""
        return self._whole

    def look(self, now: float) -> bool:
        """Look once; True when the checkpoint is whole, and kept as it is.

        Args:
            now: seconds, on a clock that only goes on.
        """
        self._began = self._began or now
        there, seen = found(self.folder, self.k, self.saves), listing(self.folder)
        parts = there.get(self.k, [])
        mine = state_of(parts)
        unchanged = seen == self._last or _but_logs(seen, self._last)
        self._last = seen
        if not mine and self._whole and max(there, default=0) > self.k:
            return True  # it is kept no longer, but here
        if not mine or mine != self._mine:
            self._longest = max(self._longest, now - self._since) if mine and self._mine else 0.0
            self._mine, self._since = mine, now
            return False
        quiet, self._quiet = now - self._since, now - self._since
        if uncommitted(parts):
            return False
        gone_on = self._whole and self._gone_on(there, seen, quiet)
        if self._taken_mine != mine or (not gone_on and self._changed(seen)):
            if unchanged or quiet >= _SETTLED:
                self._take(mine, alone=self._whole and max(there) > self.k)
                self._whole = self.taken and (quiet >= _PATIENCE or not self._unfinished(there, parts))
            return False
        self._whole = self._whole or quiet >= _PATIENCE or not self._unfinished(there, parts)
        if not self._whole:
            return False
        known = self._like or min(there) < self.k
        unknown = 0.0 if known else min(_FIRST, 2 * (self._since - self._began))
        return quiet >= (unknown if gone_on else max(_SETTLED, _PAUSES * self._longest, unknown))

    def _unfinished(self, there: Found, parts: list[Path]) -> str:
        """Why the checkpoint is not whole yet; "" when it is."""
        if why := cut_off(parts):
            return why
        if pointer := _points_before(self.folder, there, self.k):
            return f"{pointer} names an earlier one"
        before = max((i for i in there if 0 < i < self.k), default=None)
        if why := lacking(parts, there[before] if before is not None else self._like):
            return why
        for name in self._pointers:
            if not os.path.lexists(self.folder / name):
                return f"{name} is not there yet"
        number = {n for part in parts if (said := read(part.name)) for n in said.numbers}
        for name in self._last:
            base = os.path.basename(name)
            if staged(base) and (said := read(base)) and number & set(said.numbers):
                return f"{name} is being written"
        return ""

    def _gone_on(self, there: Found, seen: Listing, quiet: float) -> bool:
        """Whether the command is at a later checkpoint already, and a copy is there."""
        if self._taken is None:
            return False
        if max(there) > self.k:
            return True
        mine = {os.path.relpath(name, self.folder) for name, *_ in self._mine}
        return quiet >= _BESIDE and any(
            name in self._taken and self._taken[name] != about and name not in mine and not _is_log(name)
            for name, about in seen.items()
        )

    def _changed(self, seen: Listing) -> bool:
        return self._taken is not None and not (seen == self._taken or _but_logs(seen, self._taken))

    def _take(self, mine: Parts, *, alone: bool) -> None:
        """Copy what stands there, while nothing moves; nothing is, where something still writes into it.

        Args:
            alone: the checkpoint of ``k`` only: what stands beside it is a later one's by now.
        """
        ours = {Path(os.path.realpath(name)) for name, *_ in mine}
        if self._quiet < _PATIENCE and processes.writing(processes.tree(self.root)) & ours:
            return
        with processes.held(self.root):
            seen = listing(self.folder)
            if state_of(found(self.folder, self.k, self.saves).get(self.k, [])) == mine:
                if alone and self._taken is not None:
                    inside = {os.path.relpath(name, self.folder) for name, *_ in mine}
                    seen = {**self._taken, **{name: seen[name] for name in inside & seen.keys()}}
                _mirror(self.folder, self.copy, seen, self._taken or {})
                self._taken, self._taken_mine = seen, mine

    def take_its_place(self) -> None:
        """Let the copy take the place of the folder, without what is later in it."""
        if is_begun(self.copy, self.k, self.saves):
            older = self.copy.with_name(f"{self.copy.name}.older")
            turned_back(self.copy, older, self.k, self.saves, place=self.folder)
            _remove(self.copy)
            older.rename(self.copy)
        replace(self.folder, self.copy)


def _is_log(name: str) -> bool:
    return name.endswith(_LOGS) or "tfevents" in name


def _but_logs(one: Listing, other: Listing) -> bool:
    return all(_is_log(name) or one.get(name) == other.get(name) for name in one.keys() | other.keys())


def _points_before(folder: Path, there: Found, k: int) -> Path | None:
    """A file or link in ``folder`` that names checkpoints, and names the one before that of ``k`` only."""
    before = max((i for i in there if i < k), default=None)
    if before is None:
        return None
    names = {text for path in there[before] for text in (path.name, path.stem, str(before))}
    later = {text for i, paths in there.items() if i >= k for p in paths for text in (p.name, p.stem, str(i))}
    for path in sorted(folder.iterdir()):
        if not is_pointer(path) or any(path in paths for paths in there.values()):
            continue
        text = os.readlink(path) if path.is_symlink() else text_of(path)
        words = set((text or "").replace("/", " ").split())
        if words & names and not words & later:
            return path
    return None


def _mirror(folder: Path, copy: Path, seen: Listing, before: Mapping[str, object]) -> None:
    """Make ``copy`` as ``folder`` is, of which ``before`` was copied already."""
    for name in before.keys() - seen.keys():
        _remove(copy / name)
    copy.mkdir(parents=True, exist_ok=True)
    for name in sorted(seen):
        source, target = folder / name, copy / name
        if before.get(name) == seen[name] and os.path.lexists(target):
            continue
        if source.is_dir() and not source.is_symlink():
            if not target.is_dir() or target.is_symlink():
                _remove(target)
                target.mkdir(parents=True)
            continue
        _remove(target)
        if is_special(source):
            continue
        with contextlib.suppress(FileNotFoundError):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def turned_back(folder: Path, copy: Path, k: int, saves: Saves, *, place: Path) -> None:
    """Make ``copy`` what ``folder`` was at iteration ``k``, as far as names tell; raises CheckpointError."""
    _remove(copy)
    put_back(folder, copy, k, saves, place=place)


def replace(folder: Path, copy: Path) -> None:
    """Let ``copy`` take the place of ``folder``."""
    old = folder.with_name(f".{folder.name}.left")
    _remove(old)
    folder.rename(old)
    copy.rename(folder)
    _remove(old)
