"""Anybody's files as entries: nests by dotted name, texts line by line, everything else as bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from harness.checkpoints import components
from harness.checkpoints.archives import Stored, is_torch_file, read_json, read_nest, read_pickle, resolve
from harness.checkpoints.entries import Entry, Part
from harness.checkpoints.flatten import Value, flatten
from harness.checkpoints.inert import TensorRef
from harness.checkpoints.places import Places
from harness.errors import CheckpointError

_TORCH = (".pt", ".pth", ".ckpt")
_TORN = "the checkpoint is torn: take an earlier one"
#: A text beyond these is one entry of bytes.
_TEXT_BYTES, _TEXT_LINES = 4 << 20, 20_000


def files_below(folder: Path) -> list[Path]:
    """Every file, also below linked folders; a link that leads nowhere is one too."""
    found: list[Path] = []
    # (folder, the real folders that it lies in): a link to one of these has no end.
    waiting = [(folder, frozenset({os.path.realpath(folder)}))]
    while waiting:
        here, above = waiting.pop()
        for entry in os.scandir(here):
            real = os.path.realpath(entry.path)
            if not entry.is_dir():
                found.append(Path(entry.path))
            elif real not in above:
                waiting.append((Path(entry.path), above | {real}))
    return sorted(found)


def entries_of(
    root: Path, files: Iterable[Path], places: Places, *, single: bool | None = None
) -> dict[str, Entry]:
    """What files hold, by name: ``<file>:<name in the file>``.

    Args:
        root: the checkpoint, which their names are relative to; the file itself when it is one.
        places: folders that stand in names and texts by their placeholders.
        single: leave the file's name out; None: where there is only one.

    Raises:
        CheckpointError: a file is torn, or it would need code to be read.
    """
    wanted = list(files)
    alone = len(wanted) == 1 if single is None else single
    found: dict[str, Entry] = {}
    for file in wanted:
        where = file.name if file == root else file.relative_to(root).as_posix()
        for entry in _entries(file, where, places):
            name = entry.key if alone else f"{where}:{entry.key}"
            found[name] = entry.named(name)
    return found


def leaves(
    nest: Any,  # noqa: ANN401 - untyped by nature
    file: Path,
    where: str,
    places: Places,
    *,
    name: str = "",
    start: int = 0,
    rank: bool = False,
) -> Iterator[Entry]:
    """The entries of a nest that ``file`` holds.

    Args:
        where: the file's name in the checkpoint.
        name: what all names begin with.
        start: where in the file it lies.
        rank: one rank's own.
    """
    said = f"{file} ({name})" if name else str(file)
    for i, (key, leaf) in enumerate(flatten(nest, said, name, places.hide_in_name).items()):
        yield _whole(key, leaf, file, where, start + i, places, rank=rank)


def part_of(ref: TensorRef, path: Path, offsets: tuple[int, ...], key: int = 0) -> Part:
    """A stored tensor as a box of a global one."""

    @cache
    def opened() -> Stored:
        return resolve(ref, path)

    return Part(offsets, ref.sizes, (str(path), key), opened)


def _whole(
    key: str, leaf: TensorRef | Value, file: Path, where: str, order: int, places: Places, *, rank: bool
) -> Entry:
    name, key = key, components.key_of(key)
    component = components.foreign(key, where)
    if isinstance(leaf, Value):
        dtype, shape, data = leaf.dtype, leaf.shape, leaf.data
        if dtype == "text":
            data = places.hide(data.decode("utf-8", "surrogatepass")).encode("utf-8", "surrogatepass")
            shape = (len(data),)
        return Entry(name, component, dtype, shape, data=data, per_rank=rank, key=key, file=where)
    part = part_of(leaf, file, (0,) * len(leaf.sizes), order)
    if component == "unknown" and leaf.sizes:
        component = "weights"
    return Entry(name, component, leaf.dtype, leaf.sizes, (part,), per_rank=rank, key=key, file=where)


def _entries(file: Path, where: str, places: Places) -> Iterator[Entry]:
    try:
        about = file.stat()
        size = about.st_size
    except OSError as cause:
        if file.is_symlink():
            yield _text(places.hide(os.readlink(file)), "link", where)
            return
        raise CheckpointError(f"{file}: cannot be read: {cause.strerror}") from cause
    if not stat.S_ISREG(about.st_mode):
        raise CheckpointError(f"{file}: is no regular file, expected one", "take it out of the checkpoint")
    if size == 0 and file.suffix in (*_TORCH, ".bin"):
        raise CheckpointError(f"{file}: has 0 bytes, expected a torch.save archive", _TORN)
    if is_torch_file(file) or file.suffix in _TORCH:
        yield from leaves(read_nest(file), file, where, places)
    elif file.suffix == ".json":
        yield from leaves(read_json(file), file, where, places)
    elif nests := read_pickle(file):
        yield from leaves(nests[0] if len(nests) == 1 else list(nests), file, where, places)
    else:
        text = _lines(file, size)
        if text is None:
            yield _bytes(file, size, where)
        for number, line in enumerate(text or (), 1):
            yield _text(places.hide(line), f"line {number}", where)


def _lines(file: Path, size: int) -> list[str] | None:
    """The lines of a text; None for anything else."""
    if not 0 < size <= _TEXT_BYTES:
        return None
    try:
        content = file.read_bytes()
        lines = content.decode("utf-8").split("\n")
    except OSError as cause:
        raise CheckpointError(f"{file}: cannot be read: {cause.strerror}") from cause
    except UnicodeDecodeError:
        return None
    return None if b"\0" in content or len(lines) > _TEXT_LINES else lines


def _text(text: str, key: str, where: str) -> Entry:
    data = text.encode("utf-8", "surrogatepass")
    component = components.foreign(f"{where} {text}")
    return Entry(key, component, "text", (len(data),), data=data, key=key, file=where)


def _bytes(file: Path, size: int, where: str) -> Entry:
    stored = Stored(file, 0, "uint8", (size,), (1,))
    opened: Callable[[], Stored] = lambda: stored
    part = Part((0,), (size,), (str(file), 0), opened)
    component = components.foreign(where)
    return Entry("bytes", component, "uint8", (size,), (part,) if size else (), key="bytes", file=where)
