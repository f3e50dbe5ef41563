"""The entries of a folder of torch's distributed format, wherever in a checkpoint it lies."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.checkpoints import components
from harness.checkpoints.archives import Stored, read_nest, resolve
from harness.checkpoints.distcp import METADATA, Item, read_metadata
from harness.checkpoints.entries import UNREAD, Entry, Part
from harness.checkpoints.foreign import leaves
from harness.checkpoints.inert import Attributed, TensorRef
from harness.checkpoints.places import Places
from harness.errors import CheckpointError

_SUFFIX = ".distcp"
_TORN = "the checkpoint is torn: take an earlier one"


@dataclass(frozen=True)
class Distributed:
    """What such a folder holds.

    Args:
        entries: by name, as its ``.metadata`` has it.
        files: that they are in; ``.metadata`` too.
        native: written by the native trainer.
    """

    entries: dict[str, Entry]
    files: frozenset[Path]
    native: bool


def folders(files: Collection[Path]) -> dict[Path, list[Path]]:
    """Folders of this format among the files of a checkpoint, each with its own files."""
    found: dict[Path, list[Path]] = {}
    for file in files:
        if file.suffix == _SUFFIX or (file.name == METADATA and _is_pickle(file)):
            found.setdefault(file.parent, []).append(file)
    return found


def _is_pickle(file: Path) -> bool:
    """Others call a file ``.metadata`` too; a torn one is one all the same."""
    if not file.is_file():
        return False  # a pipe, or a link that leads nowhere: whoever reads it as any other file says so
    with file.open("rb") as opened:
        return opened.read(1) in (b"\x80", b"")


def read(folder: Path, root: Path, files: Collection[Path], places: Places, *, ours: bool) -> Distributed:
    """The entries of a folder.

    Args:
        root: the checkpoint.
        files: its own, of :func:`folders`.
        ours: the checkpoint is known to be the native trainer's.

    Raises:
        CheckpointError: torn, or it would need code to be read.
    """
    found = read_metadata(folder)
    ours = ours or any(map(components.is_per_rank, found.tensors))
    native = ours and not found.objects and components.all_native(found.tensors)
    entries: dict[str, Entry] = {}
    for name, tensor in found.tensors.items():
        parts = tuple(_part(item, tensor.dtype) for item in tensor.items if 0 not in item.sizes)
        component = components.native(name) if native else components.foreign(name)
        if component == "unknown" and tensor.shape:
            component = "weights"
        entries[name] = Entry(
            name,
            component,
            tensor.dtype,
            tensor.shape,
            parts,
            per_rank=native and components.is_per_rank(name),
            key=name,
        )
    for name, item in found.objects.items():
        nest = read_nest(item.path, item.start, item.length, name)
        where = item.path.relative_to(root).as_posix()
        rank = components.rank_of_object(name) is not None
        for leaf in leaves(nest, item.path, where, places, name=name, start=item.start, rank=rank):
            called = leaf.name
            while called in entries:
                called += "'"  # an object {"b": 1} called "a", and a tensor called "a.b"
            entries[called] = leaf.named(called)
    metadata = (folder / METADATA).relative_to(root).as_posix()
    for name in found.unread:
        component = components.native(name) if native else components.foreign(name)
        entries[name] = Entry(name, component, UNREAD, (), key=name, file=metadata)
    data = {folder / METADATA, *files, *(item.path for item in found.objects.values())}
    data |= {item.path for tensor in found.tensors.values() for item in tensor.items}
    return Distributed(entries, frozenset(data), native)


def _part(item: Item, dtype: str) -> Part:
    @cache
    def opened() -> Stored:
        ref = read_nest(item.path, item.start, item.length, item.name)
        ref = ref.value if isinstance(ref, Attributed) else ref  # requires_grad, which no saved tensor minds
        where = f"{item.path} ({item.name})"
        if not isinstance(ref, TensorRef):
            raise CheckpointError(f"{where}: found {type(ref).__name__}, expected a tensor", _TORN)
        if (ref.dtype, ref.sizes) != (dtype, item.sizes):
            raise CheckpointError(
                f"{where}: found {ref.dtype} {list(ref.sizes)}, expected {dtype} {list(item.sizes)}",
                _TORN,
            )
        return resolve(ref, item.path)

    return Part(item.offsets or (), item.sizes, (str(item.path), item.start), opened)
