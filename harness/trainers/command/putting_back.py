"""A folder as a run had left it that ended right after its checkpoint of an iteration, pointers included."""

from __future__ import annotations

import contextlib
import filecmp
import os
import re
import shutil
from pathlib import Path

from harness.trainers.command.checkpoint_names import checkpoint, found_and_counted
from harness.trainers.command.names import AS_THEY_ARE, Counting, Saves, read, temporary

#: What names a checkpoint: ``latest``, ``last_checkpoint``, ``latest_checkpointed_iteration.txt``.
_POINTER = re.compile(
    r"latest|last|current|newest|recent|resume|tracker|checkpoint|ckpt|iteration", re.IGNORECASE
)
#: Of one that holds a bare number, all that its name may say: else the number may be of anything.
_OF_A_CHECKPOINT = re.compile(
    r"(?:latest|last|current|newest|recent|most|resumed?|from|tracker|pointer|checkpoint(?:s|ed)?|ckpts?|"
    r"iteration|iter|it|global|step|epoch|update|saved?|number|num|no|id|index|model|train(?:ing)?|"
    r"txt|json|[-_. ])+",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\s*([0-9]{1,18})\s*")
_SHORT = 64 << 10  # bytes


def is_pointer(path: Path) -> bool:
    """Whether its name is that of a file which names a checkpoint."""
    return _POINTER.search(path.name) is not None


def is_special(path: Path) -> bool:
    """Whether it is a pipe, a socket or a device: those of a process, and no state."""
    return os.path.lexists(path) and not (path.is_symlink() or path.is_file() or path.is_dir())


def text_of(path: Path) -> str | None:
    """A short text; None for what is none."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.is_file() and path.stat().st_size <= _SHORT:
            text = path.read_bytes().decode()
            return None if "\0" in text else text
    return None


def put_back(source: Path, target: Path, k: int, saves: Saves, *, place: Path | None = None) -> None:
    """Copy into ``target`` what a run that ended right after its checkpoint of ``k`` had left.

    Later checkpoints (some scripts save when they are told to end) are left out, and what names one of them,
    a link or a text, names that of ``k``. What names a place in ``source`` names the same place in
    ``target``. A copy, not a link: a script may write into a file that it has found (``last.pt``), and
    ``source`` is looked at later.

    Args:
        place: where ``target`` is going to be, if not there.

    Raises:
        CheckpointError: there is no checkpoint of ``k``.
    """
    checkpoint(source, k, source.with_name(f".{source.name}.{k}"), saves)
    there, counting = found_and_counted(source, k, saves)
    begun, _ = found_and_counted(source, k, saves, unfinished=True)
    later = {path: i for i, paths in begun.items() if i > k for path in paths}
    same = {path for i, paths in there.items() if i <= k for path in paths}

    def left_out(here: str, entries: list[str]) -> set[str]:
        paths = {name: Path(here, name) for name in entries}
        return {
            name
            for name, path in paths.items()
            if path in later or _is_of_later(name, k, counting) or is_special(path)
        }

    shutil.copytree(source, target, ignore=left_out, symlinks=True, dirs_exist_ok=True)
    instead = {path: _counterpart(path, there[k]) for path in later}
    _Pointers(source, target, place or target, instead, counting, later, k).turn(
        {target / path.relative_to(source) for path in same}
    )


def paths_turned(source: Path, target: Path) -> None:
    """Let what names a place in ``source``, and was copied into ``target``, name the place there."""
    _Pointers(source, target, target, {}, AS_THEY_ARE, {}, 0).turn(set())


def is_begun(folder: Path, k: int, saves: Saves) -> bool:
    """Whether anything below ``folder`` is a checkpoint behind ``k``, or the beginning of one."""
    begun, counting = found_and_counted(folder, k, saves, unfinished=True)
    return max(begun, default=0) > k or any(
        _is_of_later(name, k, counting)
        for _, folders, names in os.walk(folder)
        for name in (*folders, *names)
    )


def _is_of_later(name: str, k: int, counting: Counting) -> bool:
    """Whether it is the beginning of a later checkpoint."""
    said = read(name) if temporary(name) else None
    return said is not None and max(map(counting.iteration, said.numbers)) > k


def _counterpart(later: Path, parts: list[Path]) -> Path:
    """Of the checkpoint of ``k``, what is named as a part of a later one."""
    pattern = re.sub(r"\d+", "#", later.name)
    return next((part for part in parts if re.sub(r"\d+", "#", part.name) == pattern), parts[0])


class _Pointers:
    """What names checkpoints in a copied folder."""

    def __init__(
        self,
        source: Path,
        target: Path,
        place: Path,
        instead: dict[Path, Path],
        counting: Counting,
        later: dict[Path, int],
        k: int,
    ) -> None:
        self.source, self.target, self.place, self.instead = source, target, place, instead
        self.sources = {str(source), str(source.absolute()), str(source.resolve())}
        names = {old.name: new.name for old, new in instead.items()}
        names |= {old.stem: new.stem for old, new in instead.items()}
        self.names = {old: new for old, new in names.items() if not old.isdigit()}
        self.numbers = {counting.number(i): counting.number(k) for i in later.values()}

    def turn(self, whole: set[Path]) -> None:
        """Turn all of them, but what stands in the checkpoints of an iteration, ``whole``."""
        for here, folders, names in os.walk(self.target):
            inside = [Path(here, name) for name in folders]
            for path in (*inside, *(Path(here, name) for name in names)):
                if path.is_symlink():
                    self._link(path)
                elif path not in whole and path.is_file() and not self._copied(path):
                    self._text(path)
            folders[:] = [path.name for path in inside if path not in whole and not path.is_symlink()]

    def _link(self, path: Path) -> None:
        leads = os.readlink(path)
        in_source = self.source / path.parent.relative_to(self.target)
        there = Path(os.path.normpath(in_source / leads))
        for source in self.sources:
            with contextlib.suppress(ValueError):
                there = self.source / there.relative_to(source)
        new = there
        for old, one in self.instead.items():
            if there == old or old in there.parents:
                new = one if there == old else one / there.relative_to(old)
        if not new.is_relative_to(self.source):
            return
        inside = new.relative_to(self.source)
        if os.path.isabs(leads):
            wanted = str(self.place / inside)
        elif new == there:
            return
        else:
            wanted = os.path.relpath(self.target / inside, path.parent)
        path.unlink()
        path.symlink_to(wanted)

    def _copied(self, path: Path) -> bool:
        """Whether it was a copy of a later checkpoint's, and is one of that of ``k`` now."""
        for old, new in self.instead.items():
            files = old.is_file() and new.is_file() and path.stat().st_size > 0
            if files and filecmp.cmp(old, path, shallow=False):  # compares sizes first
                shutil.copy2(new, path)
                return True
        return False

    def _text(self, path: Path) -> None:
        text = text_of(path)
        if text is None:
            return
        turned = text
        if is_pointer(path):
            number = _NUMBER.fullmatch(text)
            if number and _OF_A_CHECKPOINT.fullmatch(path.name) and int(number[1]) in self.numbers:
                turned = text.replace(number[1], str(self.numbers[int(number[1])]))
            turned = _words(turned, self.names)
        turned = _words(turned, {source: str(self.place) for source in self.sources})
        if turned != text:
            path.write_bytes(turned.encode())


def _words(text: str, instead: dict[str, str]) -> str:
    """Replace whole names."""
    for old in sorted(instead, key=len, reverse=True):
        pattern = rf"(?<![\w.=-]){re.escape(old)}(?![\w=-]|\.\w)"
        text = re.sub(pattern, lambda _, old=old: instead[old], text)  # type: ignore[misc]
    return text
