"""What a script that was killed has left: by names, by formats, and by what it leaves otherwise."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from harness.checkpoints import verify
from harness.errors import CheckpointError
from harness.trainers.command.checkpoint_names import (
    checkpoint,
    files,
    found,
    found_and_counted,
)
from harness.trainers.command.completeness import cut_off, lacking, uncommitted
from harness.trainers.command.names import AS_THEY_ARE, Counting, Saves, read, staged, temporary
from harness.trainers.command.putting_back import (
    is_pointer,
    is_special,
    paths_turned,
    text_of,
)
from harness.trainers.killed import UNNUMBERED, Left

_WORD = re.compile(r"[\w.=-]+")
#: Written when all of a checkpoint is there, in its own folder.
_COMMIT = re.compile(
    r"\.metadata|.*(?:manifest|complete|commit|done|success|finished|index)[^/]*", re.IGNORECASE
)
_PAUSE = 0.05  # s; what changes again after so long is the next save
_ENOUGH = 0.9
_LOGS = (".log", ".jsonl", ".csv", ".out", ".err")


def take_over(source: Path, target: Path) -> None:
    """Copy what stands in ``source``; what names a place in it names the same place in ``target``."""

    def special(here: str, names: list[str]) -> set[str]:
        return {name for name in names if is_special(Path(here, name))}

    shutil.copytree(source, target, symlinks=True, ignore=special, dirs_exist_ok=True)
    paths_turned(source, target)


@dataclass
class Uninterrupted:
    """What the same script has left that was not killed.

    Args:
        folder: where it has saved.
        n: the iteration that it came to.
        interval: iterations between two saves.
    """

    folder: Path
    n: int
    interval: int
    _counted: dict[int, list[Path]] = field(default_factory=dict)

    @property
    def saves(self) -> Saves:
        """When such a run saves."""
        return Saves(self.interval, self.n)

    @cached_property
    def parts(self) -> list[Path]:
        """Its last checkpoint; nothing where no name tells an iteration."""
        return found(self.folder, self.n, self.saves).get(self.n, [])

    @cached_property
    def counting(self) -> Counting:
        """How its names count."""
        return found_and_counted(self.folder, self.n, self.saves)[1] if self.parts else AS_THEY_ARE

    @cached_property
    def iterations(self) -> list[int]:
        """After which it saves, as far as it says so."""
        return sorted({*range(self.interval, self.n + 1, self.interval), self.n})

    @cached_property
    def pointers(self) -> tuple[str, ...]:
        """What names its last checkpoint there."""
        if not self.parts or not self.folder.is_dir():
            return ()
        words = self.words(self.parts, self.n)
        outside = [p for p in sorted(self.folder.iterdir()) if is_pointer(p) and p not in self.parts]
        return tuple(path.name for path in outside if words & said_by(path))

    @cached_property
    def commit(self) -> str:
        """The file of a checkpoint that is written last, and says that it is whole."""
        inside = [path for part in self.parts if part.is_dir() for path in part.rglob("*") if path.is_file()]
        last = max(inside, key=lambda path: path.stat().st_mtime_ns, default=None)
        return last.name if last is not None and _COMMIT.fullmatch(last.name) else ""

    def words(self, parts: Iterable[Path], iteration: int) -> set[str]:
        """By which a checkpoint is named."""
        names = {text for part in parts for text in (part.name, part.stem)}
        return {*names, str(iteration), str(self.counting.number(iteration))}

    def of(self, folder: Path, iteration: int) -> list[Path]:
        """The checkpoint of an iteration in another folder, which counts as this one does."""
        return found(folder, iteration, self.saves, also=self.folder).get(iteration, [])

    def begun(self, folder: Path, iteration: int) -> list[Path]:
        """The same, with what is marked as unfinished, or has a name of its own while it is written."""
        there, _ = found_and_counted(folder, iteration, self.saves, also=self.folder, unfinished=True)
        parts = list(there.get(iteration, []))
        number = self.counting.number(iteration)
        for here, folders, names in os.walk(folder):
            own = [name for name in (*folders, *names) if temporary(name)]
            parts += [Path(here, name) for name in own if number in _numbers(name)]
        return parts

    def named(self, folder: Path, iteration: int, parts: Iterable[Path]) -> bool:
        """Whether a pointer in ``folder`` names the checkpoint of an iteration, as far as it is there."""
        words = self.words([*parts, *self.of(self.folder, iteration)], iteration)
        there = [folder / name for name in self.pointers if os.path.lexists(folder / name)]
        return any(words & said_by(pointer) for pointer in there)


def _numbers(name: str) -> tuple[int, ...]:
    said = read(name)
    return said.numbers if said is not None else ()


def said_by(pointer: Path) -> set[str]:
    """The words of a link or a text that names a checkpoint; none of what is no text."""
    text = os.readlink(pointer) if pointer.is_symlink() else text_of(pointer)
    return set(_WORD.findall(text or ""))


def left(folder: Path, like: Uninterrupted) -> Left:
    """What a killed run has left in ``folder``."""
    there = files(folder)
    if not there:
        return Left()
    if not like.parts:
        return _unnumbered(folder, like)
    whole, torn, odd = set[int](), dict[int, str](), dict[int, str]()
    named = 0
    names = {name for _, folders, files in os.walk(folder) for name in (*folders, *files)}
    numbers = {number for name in names for number in _numbers(name)}
    words = {
        word for name in like.pointers if os.path.lexists(folder / name) for word in said_by(folder / name)
    }
    for iteration in like.iterations:
        number = like.counting.number(iteration)
        if number not in numbers and not any(str(number) in word for word in words):
            continue  # a folder may hold many, and each is looked for
        begun, parts = like.begun(folder, iteration), like.of(folder, iteration)
        if like.named(folder, iteration, begun):
            named = iteration
        if not begun and not parts:
            continue
        if not parts:
            torn[iteration] = f"{begun[0].name} is not finished, by its name"
            continue
        if why := _torn(folder, iteration, parts, like):
            torn[iteration] = why
            continue
        whole.add(iteration)
        same = like.of(like.folder, iteration) or like.parts
        if why := lacking(parts, same) or _smaller(parts, like.of(like.folder, iteration)):
            odd[iteration] = why
    sound = [i for i in whole if i not in odd and (not like.pointers or i <= named)]
    return Left(frozenset(whole), torn, odd, max(sound, default=0), files=True)


def _torn(folder: Path, iteration: int, parts: list[Path], like: Uninterrupted) -> str:
    """What is wrong with a checkpoint; "" where nothing is."""
    if why := uncommitted(parts) or cut_off(parts):
        return why
    gathered = folder.with_name(f".{folder.name}.{iteration}.left")
    try:
        verify(checkpoint(folder, iteration, gathered, like.saves, alone=True, also=like.folder), hashes=True)
    except CheckpointError as error:
        return error.message
    except OSError as error:
        return str(error)
    finally:
        shutil.rmtree(gathered, ignore_errors=True)
    return ""


def _smaller(parts: list[Path], same: list[Path], part_of: float = 1.0) -> str:
    """A file that has fewer bytes than the same one of another run's checkpoint, which has all.

    Args:
        part_of: so much of them is enough: of another iteration's, a text may be longer.
    """
    sizes = {path.name: path.stat().st_size for path in same if path.is_file()}
    for part in parts:
        if part.is_file() and part.stat().st_size < part_of * sizes.get(part.name, 0):
            return f"{part.name} has {part.stat().st_size} bytes, the uninterrupted run's {sizes[part.name]}"
    return ""


def _unnumbered(folder: Path, like: Uninterrupted) -> Left:
    """Of a folder in which no name tells an iteration: all that is there is one checkpoint, or several."""
    mine = [path for path in sorted(folder.rglob("*")) if path.is_file() and not temporary(path.name)]
    if not mine:
        return Left(torn={UNNUMBERED: "nothing is there under its own name"}, files=True)
    why = ""
    for path in mine:
        if path.name.endswith(_LOGS):
            continue
        why = why or _smaller([path], [like.folder / path.relative_to(folder)], _ENOUGH)
        try:
            verify(path, hashes=True)
        except CheckpointError as error:
            why = why or error.message
    # A script may keep two in turns, and take the one that is whole: what it goes on with will tell.
    odd = {UNNUMBERED: why} if why else {}
    # What is not there may be written at the end only.
    sure = not odd and not lacking(sorted(folder.iterdir()), sorted(like.folder.iterdir()))
    return Left(frozenset({UNNUMBERED}), odd=odd, files=True, sure=sure)


class FolderSaving:
    """A folder that a script saves into, looked at while it runs.

    Args:
        folder: which.
        like: what the same script has left that was not killed.
    """

    def __init__(self, folder: Path, like: Uninterrupted) -> None:
        self.folder, self.like = folder, like
        self._saves = 0
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._changed = 0.0

    @property
    def tracker(self) -> str:
        """A pointer beside the checkpoints, or the file of one that is written last."""
        return next(iter(self.like.pointers), "") or self.like.commit

    def begun(self, iteration: int) -> bool:
        """By names, those of unfinished ones too; where they tell nothing, by how often something changed."""
        like = self.like
        if not like.parts:
            return self._changes() * like.interval >= iteration
        if like.begun(self.folder, iteration):
            return True
        before = iteration - like.interval
        if before > 0 and not like.of(self.folder, before):
            return False
        return any(staged(name) for name in self._names())

    def written(self, iteration: int) -> bool:
        """By names, sizes and formats, in comparison with an uninterrupted run's."""
        like = self.like
        if not like.parts:
            return self.begun(iteration) and not cut_off(
                self.folder / name for name in self._names() if not temporary(name)
            )
        parts = like.of(self.folder, iteration)
        if not parts:
            return False
        same = like.of(like.folder, iteration)
        missing = lacking(parts, like.parts, but=like.commit)
        return not (missing or _smaller(parts, same) or cut_off(parts))

    def named(self, iteration: int) -> bool:
        """By the pointer, or by the file that is written last; where there is neither, by being written."""
        like = self.like
        parts = like.of(self.folder, iteration) if like.parts else []
        if like.pointers:
            return like.named(self.folder, iteration, parts)
        if like.commit:
            return any(path.name == like.commit for part in parts for path in part.rglob("*"))
        return self.written(iteration)

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.folder)
        except OSError:
            return []

    def _changes(self) -> int:
        """How many saves have begun: what changes after a pause is a new one."""
        seen = {}
        for name in self._names():
            if name.endswith(_LOGS):
                continue
            with contextlib.suppress(OSError):
                about = (self.folder / name).lstat()
                seen[name] = (about.st_ino, about.st_size, about.st_mtime_ns)
        if seen != self._seen:
            now = time.monotonic()
            if now - self._changed > _PAUSE:
                self._saves += 1
            self._seen, self._changed = seen, now
        return self._saves
