"""Find the checkpoint of an iteration in anybody's folder, by the names of what is in it.

``iter_0000050/``, ``checkpoint-50/``, ``epoch=0-step=50.ckpt``, ``ep0-ba50-rank0.pt``, ``model_50.pt`` and
``optim_50.pt``, ``epoch_2/``: :mod:`harness.trainers.command.names` says what a name means.
A folder in which nothing is named like that (``last.pt``) holds one checkpoint, its whole content; what
stands without an iteration beside those that have one belongs to the last of them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import CheckpointError
from harness.trainers.command.names import (
    AS_THEY_ARE,
    Counting,
    Kind,
    Named,
    Saves,
    counting,
    marked,
    no_checkpoint,
    read,
    temporary,
)

_DEPTH = 5
#: In what is gathered, the folder of what has no iteration in its name.
_BESIDE = "beside"
#: What Lightning calls its last checkpoint where another launch's stands in the folder, ``last-v1.ckpt``.
_LAST_AGAIN = re.compile(r"last-v(\d+)(\.\w+)?")
_ANYHOW = Saves()

Found = dict[int, list[Path]]


@dataclass
class _Tier:
    """Names of one folder that count the same."""

    kind: Kind
    alone: bool = True
    parts: list[tuple[Path, Named]] = field(default_factory=list)

    def add(self, path: Path, name: Named) -> None:
        self.kind = min(self.kind, name.kind)
        self.alone = self.alone and name.pattern == "#"
        self.parts.append((path, name))

    def by_number(self, wanted: Iterable[int]) -> Found:
        """Of names with two numbers, that which has one of those that are ``wanted``; else the last."""
        patterns: dict[tuple[str, int], list[tuple[Path, Named]]] = {}
        for path, name in self.parts:
            patterns.setdefault((name.pattern, len(name.numbers)), []).append((path, name))
        found: Found = {}
        for (_, slots), parts in patterns.items():
            order = range(slots - 1, -1, -1)
            numbers = {slot: {name.numbers[slot] for _, name in parts} for slot in order}
            slot = next((s for number in wanted for s in order if number in numbers[s]), slots - 1)
            for path, name in parts:
                found.setdefault(name.numbers[slot], []).append(path)
        return found


def found(folder: Path, k: int, saves: Saves = _ANYHOW, *, also: Path | None = None) -> Found:
    """Checkpoints by iteration: the outermost names below ``folder`` that speak of one.

    Names that only hold a number, or an epoch's, count when one of them is ``k`` and no name has it in words.

    Args:
        saves: when the run saves.
        also: a folder whose names tell as well how they count.
    """
    return found_and_counted(folder, k, saves, also=also)[0]


def found_and_counted(
    folder: Path, k: int, saves: Saves = _ANYHOW, *, also: Path | None = None, unfinished: bool = False
) -> tuple[Found, Counting]:
    """The same, and how their names count.

    Args:
        unfinished: with those that are marked as unfinished.
    """
    words, bare, epochs = _tiers(folder, unfinished=unfinished)
    others = _tiers(also) if also is not None else (None, None, None)
    readings: list[tuple[Found, Counting]] = []
    wanted = (k, k - 1, -(-k // saves.interval), -(-k // saves.interval) - 1)
    for tier, other in zip((words, bare, epochs), others, strict=True):
        if tier is epochs and words.parts:
            continue
        numbers = tier.by_number(wanted)
        known = {*numbers, *(other.by_number(wanted) if other is not None else ())}
        how = counting(known, tier.kind, k, saves, alone=tier.alone)
        if how is not None and how.number(k) in numbers:
            readings.append(({how.iteration(n): paths for n, paths in numbers.items()}, how))
    readings.sort(key=lambda reading: reading[1] != AS_THEY_ARE)  # stable: words before bare numbers
    if readings:
        return readings[0]
    return {n: paths for n, paths in words.by_number(wanted).items() if n != k}, AS_THEY_ARE


def _tiers(folder: Path, *, unfinished: bool = False) -> tuple[_Tier, _Tier, _Tier]:
    """Names that say it in words, bare numbers, epochs."""
    words, bare, epochs = _Tier(Kind.CHECKPOINT), _Tier(Kind.BARE), _Tier(Kind.EPOCH)
    tiers = {Kind.ITERATION: words, Kind.CHECKPOINT: words, Kind.BARE: bare, Kind.EPOCH: epochs}
    for path, name in _walk(folder, _DEPTH, unfinished=unfinished):
        tiers[name.kind].add(path, name)
    return words, bare, epochs


def _walk(folder: Path, depth: int, *, unfinished: bool) -> Iterator[tuple[Path, Named]]:
    """What is below ``folder`` and has a number, and is not marked as unfinished, if not asked for."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # gone, or not made yet: the script is at work in it
        return
    marks = {mark for entry in entries if not unfinished and (mark := marked(entry.name))}
    for entry in entries:
        if no_checkpoint(entry.name) or entry.is_symlink():
            continue
        if any(entry.name == mark or entry.name.startswith(f"{mark}.") for mark in marks):
            continue
        path, name = Path(entry.path), read(entry.name)
        if name is not None and (unfinished or not (entry.is_dir() and _marked_inside(path))):
            yield path, name
        if (name is None or name.kind >= Kind.BARE) and entry.is_dir() and depth > 1:
            yield from _walk(path, depth - 1, unfinished=unfinished)


def _marked_inside(folder: Path) -> bool:
    try:
        return any(marked(name) == "" for name in os.listdir(folder))
    except OSError:
        return False


def checkpoint(
    folder: Path,
    k: int,
    gathered: Path,
    saves: Saves = _ANYHOW,
    *,
    alone: bool = False,
    also: Path | None = None,
) -> Path:
    """The file or folder that is the checkpoint of ``k``.

    Args:
        gathered: where several files that make it up together are linked; replaced.
        saves: when the run saves.
        also: a folder whose names tell as well how they count.
        alone: without what belongs to the last checkpoint and has no iteration in its name.

    Raises:
        CheckpointError: there are checkpoints, and none of ``k``; or nothing at all.
    """
    there, counted = found_and_counted(folder, k, saves, also=also)
    parts = there.get(k, [])
    if parts:
        # What has no iteration in its name is overwritten by each: it is of the last one.
        last = k == max(there) and not alone
        beside = _beside(folder, there, counted.number(k)) if last else []
        if len(parts) == 1 and not beside:
            return parts[0]
        shutil.rmtree(gathered, ignore_errors=True)
        one = parts[0] if len(parts) == 1 and parts[0].is_dir() else None
        for part in parts:  # the one folder's content has the same names as by itself
            _link(part, gathered if part == one else gathered / part.relative_to(folder))
        for path, name in _newest(beside).items():
            _link(path, gathered / _BESIDE / path.relative_to(folder).with_name(name))
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
    whole = sorted(folder.iterdir())
    newest = _newest(whole)
    if len(newest) == len(whole):
        return folder
    shutil.rmtree(gathered, ignore_errors=True)
    for path, name in newest.items():
        _link(path, gathered / name)
    return gathered


def _newest(paths: Sequence[Path]) -> dict[Path, str]:
    """Their names; of ``last.ckpt`` and a later ``last-v1.ckpt`` only that, which is the last one."""
    names = {path: path.name for path in paths}
    for path in sorted(paths, key=lambda one: one.lstat().st_mtime_ns):
        again = _LAST_AGAIN.fullmatch(path.name)
        plain = f"last{again[2] or ''}" if again else ""
        older = next(
            (one for one, name in names.items() if name == plain and one.parent == path.parent), None
        )
        if older is not None and older.lstat().st_mtime_ns <= path.lstat().st_mtime_ns:
            del names[older]
            names[path] = plain
    return names


def _link(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():  # links in it are not walked into
        shutil.copytree(path, target, copy_function=os.symlink, symlinks=True)
    else:
        target.symlink_to(path)


def _beside(folder: Path, there: Found, number: int) -> list[Path]:
    """What stands beside the checkpoints of all iterations: the outermost names that hold none of them.

    A number makes a name another iteration's where the same name with ``number`` stands beside it, and an
    epoch's where one with a later epoch does.
    """
    numbered_paths = {path for paths in there.values() for path in paths}
    holding = {parent for path in numbered_paths for parent in path.parents}
    found, waiting = [], [folder]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if path in numbered_paths:
                continue  # also where something in it has a number of its own
            if path in holding:
                waiting.append(path)
            elif not (temporary(path.name) or _of_another(path, number)):
                found.append(path)
    return found


def _of_another(path: Path, number: int) -> bool:
    mine = read(path.name)
    if mine is None or number in mine.numbers:
        return False
    others = [read(p.name) for p in path.parent.iterdir()]
    alike = [other.numbers for other in others if other is not None and other.pattern == mine.pattern]
    return any(number in numbers for numbers in alike) or (
        mine.kind is Kind.EPOCH and max(alike) > mine.numbers
    )


def files(folder: Path) -> bool:
    """Whether there is any file below ``folder``."""
    return any(True for _ in files_below(folder))


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder."""
    return (path for path in _below(folder) if path.is_file())


def _below(folder: Path) -> Iterator[Path]:
    # os.walk: unlike rglob, it minds no folder that is removed meanwhile.
    for here, folders, names in os.walk(folder):
        yield from (Path(here, name) for name in (*folders, *names))


def state_of(parts: Iterable[Path]) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of every file of some files and folders."""
    seen = []
    for part in parts:
        for path in (part, *_below(part)):
            try:
                about = path.stat()
            except OSError:
                continue
            seen.append((str(path), about.st_size, about.st_mtime_ns))
    return tuple(seen)
