"""Find the checkpoint of an iteration in anybody's folder, by the names of what is in it.

``iter_0000050/``, ``checkpoint-50/``, ``epoch=0-step=50.ckpt``, ``model_50.pt`` and
``optim_50.pt``: a number after a word for iterations is one, and so is the only number of a name.
A folder in which nothing is named like that (``last.pt``) holds one checkpoint, its whole content; what
stands without an iteration beside those that have one belongs to the last of them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from harness.errors import CheckpointError

_NAMED = re.compile(r"(?:steps?|iter(?:ation)?s?|checkpoint|ckpt|(?<![a-z])it)[-_=. ]*(\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")
#: Numbers of something else.
_OTHERS = re.compile(
    r"(?:rank|shard|part|worker|device|gpu|node|epoch|layer|seed|fold|tp|pp|dp)s?[-_=. ]*\d+"
    r"|\d+[-_ ]*of[-_ ]*\d+|\d+[bmk](?![a-z])",
    re.IGNORECASE,
)
#: Being written, or not what training is resumed from.
_UNFINISHED = re.compile(r"(?:^[._])|(?:[._-](?:tmp|temp|part|partial|incomplete|lock)$)", re.IGNORECASE)
_TEMPORARY = re.compile(r"[._-](?:tmp|temp|part|partial|incomplete|lock)$", re.IGNORECASE)
_DEPTH = 5
#: In what is gathered, the folder of what has no iteration in its name.
_BESIDE = "beside"

Found = dict[int, list[Path]]


def named(name: str) -> int | None:
    """The iteration that a name speaks of in so many words; None when it does not."""
    numbers = _NAMED.findall(name)
    return int(numbers[-1]) if numbers and len(numbers[-1]) <= 12 else None


def numbered(name: str) -> int | None:
    """The only number of a name that is not the number of something else; None without one."""
    numbers = _NUMBER.findall(_OTHERS.sub(" ", name))
    return int(numbers[0]) if len(numbers) == 1 and len(numbers[0]) <= 12 else None


def found(folder: Path, k: int) -> Found:
    """Checkpoints by iteration: the outermost names below ``folder`` that speak of one.

    Names that only hold a number count when one of them is ``k`` and no name says it in words.
    """
    in_words: Found = {}
    numbers: Found = {}
    for path, i, words in _walk(folder, _DEPTH):
        (in_words if words else numbers).setdefault(i, []).append(path)
    return numbers if k not in in_words and k in numbers else in_words


def _walk(folder: Path, depth: int) -> Iterator[tuple[Path, int, bool]]:
    """(path, iteration, whether in words) of what is below ``folder``."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # gone, or not made yet: the script is at work in it
        return
    for entry in entries:
        if _UNFINISHED.search(entry.name) or entry.is_symlink():
            continue
        path = Path(entry.path)
        i, number = named(entry.name), numbered(entry.name)
        if i is not None:
            yield path, i, True
            continue
        if number is not None:
            yield path, number, False
        if entry.is_dir() and depth > 1:
            yield from _walk(path, depth - 1)


def checkpoint(folder: Path, k: int, gathered: Path, *, alone: bool = False) -> Path:
    """The file or folder that is the checkpoint of ``k``.

    Args:
        gathered: where several files that make it up together are linked; replaced.
        alone: without what belongs to the last checkpoint and has no iteration in its name.

    Raises:
        CheckpointError: there are checkpoints, and none of ``k``; or nothing at all.
    """
    there = found(folder, k)
    parts = there.get(k, [])
    if parts:
        # What has no iteration in its name is overwritten by each: it is of the last one.
        last = k == max(there) and not alone
        beside = _beside(folder, there, k) if last else []
        if len(parts) == 1 and not beside:
            return parts[0]
        shutil.rmtree(gathered, ignore_errors=True)
        one = parts[0] if len(parts) == 1 and parts[0].is_dir() else None
        for part in parts:  # the one folder's content has the same names as by itself
            _link(part, gathered if part == one else gathered / part.relative_to(folder))
        for path in beside:
            _link(path, gathered / _BESIDE / path.relative_to(folder))
        return gathered
    if there:
        advice = "save at every ${SAVE_INTERVAL} iterations, and after the last one"
        if k - 1 in there and (0 in there or k - 1 == max(there)):
            advice = "name them by the iterations that are done, from 1 on: they look counted from 0"
        raise CheckpointError(
            f"{folder}: no checkpoint of iteration {k}; found: {', '.join(map(str, sorted(there)))}", advice
        )
    if not files(folder):
        raise CheckpointError(
            f"{folder}: holds no file, expected a checkpoint of iteration {k}",
            "save below ${CHECKPOINT_SAVE_PATH}",
        )
    return folder


def _link(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():  # links in it are not walked into
        shutil.copytree(path, target, copy_function=os.symlink, symlinks=True)
    else:
        target.symlink_to(path)


def _beside(folder: Path, there: Found, k: int) -> list[Path]:
    """What stands beside the checkpoints of all iterations: the outermost names that hold none of them.

    A number makes a name another iteration's where the same name with the number ``k`` stands beside it.
    """
    numbered_paths = {path for paths in there.values() for path in paths}
    holding = {parent for path in numbered_paths for parent in path.parents}
    found, waiting = [], [folder]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if path in holding:
                waiting.append(path)
            elif not (path in numbered_paths or _TEMPORARY.search(path.name) or _of_another(path, k)):
                found.append(path)
    return found


def _of_another(path: Path, k: int) -> bool:
    number = numbered(path.name)
    if number is None or number == k:
        return False
    pattern = _NUMBER.sub("#", path.name)
    return any(numbered(p.name) == k and _NUMBER.sub("#", p.name) == pattern for p in path.parent.iterdir())


def files(folder: Path) -> bool:
    """Whether there is any file below ``folder``."""
    return any(path.is_file() for path in _below(folder))


def _below(folder: Path) -> Iterator[Path]:
    # os.walk: unlike rglob, it minds no folder that is removed meanwhile.
    for here, folders, names in os.walk(folder):
        yield from (Path(here, name) for name in (*folders, *names))


def state(folder: Path, k: int) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of every file of the checkpoint of ``k``; empty when there is none."""
    seen = []
    for part in found(folder, k).get(k, []):
        for path in (part, *_below(part)):
            try:
                about = path.stat()
            except OSError:
                continue
            seen.append((str(path), about.st_size, about.st_mtime_ns))
    return tuple(seen)


def put_back(source: Path, target: Path, k: int) -> None:
    """Copy into ``target`` what a run that ended right after its checkpoint of ``k`` had left.

    Later checkpoints (some scripts save when they are told to end) are left out, and a link to one
    of them leads to that of ``k``. A copy, not a link: a script may write into a file that it has
    found (``last.pt``), and ``source`` is looked at later.

    Raises:
        CheckpointError: there is no checkpoint of ``k``.
    """
    checkpoint(source, k, source.with_name(f".{source.name}.{k}"))
    there = found(source, k)
    later = {path for i, paths in there.items() if i > k for path in paths}
    same = there.get(k, [])

    def left_out(here: str, entries: list[str]) -> set[str]:
        return {name for name in entries if Path(here, name) in later}

    shutil.copytree(source, target, ignore=left_out, symlinks=True, dirs_exist_ok=True)
    for path in target.rglob("*"):
        if path.is_symlink() and not path.exists() and len(same) == 1:
            path.unlink()
            path.symlink_to(os.path.relpath(target / same[0].relative_to(source), path.parent))
