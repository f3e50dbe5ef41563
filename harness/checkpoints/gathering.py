"""The files of a checkpoint, those together that hold one thing together, as entries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.checkpoints import components, distributed, foreign, shards, stores
from harness.checkpoints.entries import Entry, unread
from harness.checkpoints.places import Places
from harness.errors import CheckpointError


@dataclass(frozen=True)
class Found:
    """What files hold.

    Args:
        entries: by name: ``<file>:<name in the file>``.
        structure: files that say where the entries are, and hold nothing else.
    """

    entries: dict[str, Entry]
    structure: frozenset[Path]


@dataclass(frozen=True)
class Unit:
    """Files that are read together.

    Args:
        where: what their entries' names begin with; empty for nothing.
        files: all of them, which ``read`` accounts for.
        read: their entries, named without ``where``.
        together: the files hold nothing but these entries, and where they are.
    """

    where: str
    files: tuple[Path, ...]
    read: Callable[[], Iterable[Entry]]
    together: bool = True


def units(root: Path, files: Iterable[Path], places: Places) -> Iterator[Unit]:
    """Which files of a checkpoint hold one thing together; most of them one by themselves.

    Args:
        root: the checkpoint; the file itself when it is one.
        places: folders that stand in names and texts by their placeholders.
    """

    def name(path: Path) -> str:
        where = path.name if path == root and path.is_file() else path.relative_to(root).as_posix()
        return "" if where == "." else where

    rest = set(files)
    read: Callable[[], Iterable[Entry]]
    for folder, own in sorted(distributed.folders(rest).items()):
        read = partial(_distributed, folder, root, own, places)
        yield Unit(name(folder), tuple(own), read)
        rest -= set(own)
    found = stores.find(rest)
    if said := stores.unlooked(found):
        files = tuple(file for store in found for file in store.files)
        yield Unit("", files, partial(stores.unread, said, name(stores.mark(found))), together=False)
    for store in found:
        rest -= set(store.files)
        if not said:
            read = partial(stores.entries, store, name(store.folder), places)
            yield Unit(name(store.folder), store.files, read)
    for held in shards.gather(rest):
        leaves = partial(_leaves, name=name, places=places)
        own = [*held.files, *([held.index] if held.index else [])]
        yield Unit(name(held.whole), tuple(own), partial(shards.entries, held, name, leaves))
        rest -= set(own)
    for file in sorted(rest):
        yield Unit(name(file), (file,), partial(foreign.entries, file, name(file), places), together=False)


def _distributed(folder: Path, root: Path, own: list[Path], places: Places) -> Iterable[Entry]:
    return distributed.read(folder, root, own, places, ours=False).entries.values()


def _leaves(file: Path, name: Callable[[Path], str], places: Places) -> Iterable[Entry]:
    return foreign.entries(file, name(file), places)


def entries_of(
    root: Path,
    files: Iterable[Path],
    places: Places,
    *,
    single: bool | None = None,
    as_bytes: Collection[Path] = (),
) -> Found:
    """What files hold, by name: ``<file>:<name in the file>``.

    Args:
        root: the checkpoint, which their names are relative to; the file itself when it is one.
        places: folders that stand in names and texts by their placeholders.
        single: leave the file's name out; None: where there is only one.
        as_bytes: files that are not looked into.

    Raises:
        CheckpointError: the checkpoint is one file that is torn, or that would need code to be read. In a
            folder, an entry stands for such a file, and says why.
    """
    wanted = list(files)
    alone = len(wanted) == 1 if single is None else single
    found: dict[str, Entry] = {}
    structure: set[Path] = set()
    for unit in units(root, wanted, places):
        for entry in _entries(unit, root, as_bytes):
            names = (entry.name,) if alone or entry.unread_file else (unit.where, entry.name)
            name = ":".join(filter(None, names))
            while name in found:
                name += "'"  # an archive may have two members of one name; neither hides the other
            found[name] = entry.named(name)
        if unit.together:
            structure.update(unit.files)
    return Found(found, frozenset(structure))


def _entries(unit: Unit, root: Path, as_bytes: Collection[Path]) -> Iterable[Entry]:
    if len(unit.files) == 1 and unit.files[0] in as_bytes:
        return [foreign.as_bytes(file, file.stat().st_size, unit.where) for file in unit.files]
    if not root.is_dir():
        return unit.read()
    return read_or_said(unit.read, unit.files, root)


def read_or_said(read: Callable[[], Iterable[Entry]], files: Iterable[Path], root: Path) -> Iterable[Entry]:
    """What is read, or an entry for each of the files that cannot be, which says why."""
    try:
        return list(read())
    except CheckpointError as error:
        names = [file.relative_to(root).as_posix() for file in sorted(files)]
        return [unread(name, components.foreign(name), str(error)) for name in names]
