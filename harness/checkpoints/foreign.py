"""Anybody's files as entries: nests by dotted name, texts line by line, everything else as bytes."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from harness.checkpoints import arrays, components, hdf5, members, shards, tensorfiles
from harness.checkpoints.archives import Stored, is_torch_file, read_json, read_nest, read_pickle, resolve
from harness.checkpoints.entries import UNREAD, Boxes, Entry, Part
from harness.checkpoints.flatten import TooMany, Value, flatten
from harness.checkpoints.inert import TensorRef
from harness.checkpoints.jsons import placed_json
from harness.checkpoints.placed import Origin, wanted
from harness.checkpoints.places import Places
from harness.errors import CheckpointError

_TORCH = (".pt", ".pth", ".ckpt")
_NEVER_EMPTY = (tensorfiles.SUFFIX, ".npz", ".npy", ".keras", *hdf5.SUFFIXES)
#: What Git leaves in the place of a large file that was not fetched.
_POINTER, _POINTER_BYTES = b"version https://git-lfs.github.com/spec/", 1024
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
        return Entry(
            name, component, dtype, shape, data=data, per_rank=rank, key=key, file=where, spots=leaf.spots
        )
    part = part_of(leaf, file, (0,) * len(leaf.sizes), order)
    if component == "unknown" and leaf.sizes:
        component = "weights"
    return Entry(name, component, leaf.dtype, leaf.sizes, (part,), per_rank=rank, key=key, file=where)


def entries(file: Path, where: str, places: Places) -> Iterator[Entry]:
    """What one file holds, named without it.

    Args:
        where: the file's name in the checkpoint.
        places: folders that stand in names and texts by their placeholders.

    Raises:
        CheckpointError: the file is torn, or it would need code to be read.
    """
    empty = True
    for entry in _entries(file, where, places):
        empty = False
        yield entry
    if empty:  # an archive, a file of tensors in which there is none
        yield Entry("value", "unknown", "empty dict", (0,), data=b"", key="value", file=where)


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
    require_content(file, size)
    if file.suffix == tensorfiles.SUFFIX:
        header = tensorfiles.read_header(file)
        yield from shards.tensors(file, header, where)
        for key, text in header.metadata.items():
            yield shards.about(key, text, where)
    elif is_archive(file):
        for member in members.members(file):
            yield from _member(_content(member), member.name, file, where, places)
    elif _is_hdf5(file):
        content = members.Content(hdf5=hdf5.Source(str(file), file))
        yield from _member(content, "", file, where, places)
    elif file.suffix == ".npy" or _begins(file, arrays.MAGIC):
        yield from _member(_content(members.whole(file)), "", file, where, places)
    elif is_torch_file(file):
        yield from leaves(read_nest(file), file, where, places)
        for name, member in members.beside(file):
            yield from _member(_content(member), name, file, where, places)
    elif file.suffix == ".json" or _is_json(file, size):
        yield from _values(read_table(file), file, size, where, places)
    elif nests := read_pickle(file):
        yield from _values(nests[0] if len(nests) == 1 else list(nests), file, size, where, places)
    elif file.suffix in _TORCH:
        read_nest(file)  # raises: it is none
    else:
        lines = _lines(file, size)
        if lines is None:
            yield as_bytes(file, size, where)
        for number, line in enumerate(lines or (), 1):
            yield _text(places.hide(line), f"line {number}", where)


def require_content(file: Path, size: int) -> None:
    """Check that a file of tensors holds something, and is not what stands for it elsewhere.

    Raises:
        CheckpointError: it does not.
    """
    if size == 0 and file.suffix in (*_TORCH, ".bin"):
        raise CheckpointError(f"{file}: has 0 bytes, expected a torch.save archive", _TORN)
    if size == 0 and file.suffix in _NEVER_EMPTY:
        raise CheckpointError(f"{file}: has 0 bytes, expected a file of arrays", _TORN)
    if size < _POINTER_BYTES and _begins(file, _POINTER):
        raise CheckpointError(
            f"{file}: is a pointer of Git LFS, {size} bytes, expected what it points to", "git lfs pull"
        )


def is_archive(file: Path) -> bool:
    """Whether a file is an archive of files, not one of ``torch.save``."""
    return file.suffix not in _TORCH and members.is_archive(file)


def _begins(file: Path, start: bytes) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(start)) == start


def _is_hdf5(file: Path) -> bool:
    return hdf5.readable() and (file.suffix in hdf5.SUFFIXES or _begins(file, hdf5.MAGIC))


def read_table(file: Path) -> Any:  # noqa: ANN401 - untyped by nature
    """What a file of JSON holds; of one that has a value a line, a list of them.

    Raises:
        CheckpointError: it is neither.
    """
    try:
        return read_json(file)
    except CheckpointError:
        try:
            found = list(_rows(file))
        except (OSError, ValueError, RecursionError):
            found = []
        if len(found) < 2:
            raise
        return found


def _rows(file: Path) -> Iterator[Any]:
    """The values of a file that has one in each line."""
    held, start = file.read_bytes(), 0
    for line in held.splitlines(keepends=True):
        if line.strip():
            yield placed_json(line, Origin(file, start)) if wanted() else json.loads(line)
        start += len(line)


def require_saved(file: Path) -> None:
    """Check that a file that is called like one of torch's is one, or holds values in another way.

    Raises:
        CheckpointError: it does not.
    """
    if is_torch_file(file) or not (_is_json(file, file.stat().st_size) or read_pickle(file)):
        read_nest(file)


def _is_json(file: Path, size: int) -> bool:
    """Whether a file is a table of JSON's, whatever it is called: orbax's have no ending."""
    if not 2 <= size <= _TEXT_BYTES or not _begins(file, b"{"):
        return False
    try:
        return isinstance(json.loads(file.read_bytes()), dict)
    except (OSError, ValueError, RecursionError):
        return False


def _content(member: members.Member) -> members.Content:
    return members.content_of(member, _TEXT_BYTES, _TEXT_LINES)


def _member(content: members.Content, name: str, file: Path, where: str, places: Places) -> Iterator[Entry]:
    """The entries of a file in an archive; of a file by itself where it has no name."""
    array = name.removesuffix(".npy")
    if content.form is not None and content.open is not None:
        yield from _array(array or "value", content.form, content.open, file, where)
    elif content.hdf5 is not None:
        for order, held in enumerate(content.hdf5.datasets()):
            key = f"{name}:{held.name}" if name else held.name
            if held.form is not None and held.boxes is not None:
                yield from _array(key, held.form, _always(held.boxes), file, where, order)
            elif held.value is not None:
                yield from leaves(held.value, file, where, places, name=key)
            else:
                component = components.foreign(key, where)
                reason = f"{key}: lies in another file, or is of a type that is not read"
                yield Entry(key, component, UNREAD, (), key=key, file=where, reason=reason)
    elif content.text is not None:
        for number, line in enumerate(content.text.split("\n"), 1):
            key = f"{name}:line {number}"
            yield _text(places.hide(line), key, where)
    else:
        for leaf in leaves(content.nest, file, where, places):
            inside = f"{name}:{leaf.key}" if array == name else f"{array}.{leaf.key}"
            key = array if leaf.key == "value" else inside
            yield replace(leaf, name=key, key=key)


def _array(
    key: str,
    form: arrays.Form,
    opened: Callable[[], Stored | Boxes],
    file: Path,
    where: str,
    order: int = 0,
) -> Iterator[Entry]:
    component = components.foreign(key, where)
    if component == "unknown" and form.shape:
        component = "weights"
    part = Part((0,) * len(form.shape), form.shape, (str(file), order), opened)
    parts = () if 0 in form.shape else (part,)
    yield Entry(key, component, form.dtype, form.shape, parts, key=key, file=where)
    if form.kind:
        yield replace(_text(form.kind, f"{key} (type)", where), component=component)


def _always(boxes: Boxes) -> Callable[[], Boxes]:
    return lambda: boxes


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


def _values(nest: Any, file: Path, size: int, where: str, places: Places) -> Iterable[Entry]:  # noqa: ANN401
    """What a file of values holds; more of it than is walked is compared as bytes."""
    try:
        return list(leaves(nest, file, where, places))
    except TooMany:
        return [as_bytes(file, size, where)]


def as_bytes(file: Path, size: int, where: str) -> Entry:
    """A whole file as one entry."""
    stored = Stored(file, 0, "uint8", (size,), (1,))
    opened: Callable[[], Stored] = lambda: stored
    part = Part((0,), (size,), (str(file), 0), opened)
    component = components.foreign(where)
    return Entry("bytes", component, "uint8", (size,), (part,) if size else (), key="bytes", file=where)
