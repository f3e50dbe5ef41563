"""torch's distributed checkpoint (DCP) without its pickle: ``.metadata``, items, a reader for loading."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.checkpoints.archives import unpickle
from harness.checkpoints.extents import MOST_DIMENSIONS, Extent
from harness.checkpoints.inert import ITEMSIZE, DType, Record, Unknown
from harness.errors import CheckpointError

if TYPE_CHECKING:
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import Metadata

METADATA = ".metadata"
_TORN = "the checkpoint is torn: take an earlier one"


@dataclass(frozen=True)
class Item:
    """One stored item: a box of tensor ``name`` at ``offsets``, or (offsets None) pickled bytes."""

    name: str
    offsets: tuple[int, ...] | None
    sizes: tuple[int, ...]
    path: Path
    start: int
    length: int
    index: int | None = None


@dataclass(frozen=True)
class TensorMeta:
    """A global tensor: torch dtype by name, shape, and the boxes that make it up."""

    dtype: str
    shape: tuple[int, ...]
    items: tuple[Item, ...]


@dataclass(frozen=True)
class DistMetadata:
    """What ``.metadata`` says. Where and how it was planned to be written, which it says too, is no state.

    Args:
        tensors, objects: by name.
        planner_data: as stored.
        unread: names of what is stored in a way that no table knows, and as what.
    """

    tensors: Mapping[str, TensorMeta]
    objects: Mapping[str, Item]
    planner_data: Any
    unread: Mapping[str, str] = field(default_factory=dict)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise CheckpointError(f"{where}: found {reprlib.repr(value)}, expected a name", _TORN)
    return value


def _numbers(values: object, where: str) -> tuple[int, ...]:
    if (
        not isinstance(values, (tuple, list))
        or len(values) > MOST_DIMENSIONS
        or not all(type(v) is int and 0 <= v < 1 << 63 for v in values)
    ):
        raise CheckpointError(f"{where}: found {reprlib.repr(values)}, expected sizes", _TORN)
    return tuple(values)


def _record(value: object, kind: str, where: str) -> Record:
    if not _is(value, kind):
        raise CheckpointError(f"{where}: found {reprlib.repr(value)}, expected {kind}", _TORN)
    assert isinstance(value, Record)
    return value


def _is(value: object, kind: str) -> bool:
    return isinstance(value, Record) and value.label.endswith("." + kind)


def _mapping(value: object, where: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{where}: found {reprlib.repr(value)}, expected a table", _TORN)
    return value


def _items(path: Path, storage_data: object, unread: dict[str, str]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    sizes: dict[str, int] = {}
    for number, (key, info) in enumerate(_mapping(storage_data, f"{path}: storage_data").items()):
        strange = next((part for part in (key, info) if isinstance(part, Unknown)), None)
        if strange is not None:
            unread[_name_of(key) or f"storage_data.{number}"] = strange.label
            continue
        index = _record(key, "MetadataIndex", str(path))
        place = _record(info, "_StorageInfo", str(path))
        name = _text(index.field("fqn"), str(path))
        file = _text(place.field("relative_path"), f"{path}: {name}")
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise CheckpointError(f"{path}: {name} lies in {file}, outside the checkpoint")
        if place.field("transform_descriptors"):
            raise CheckpointError(f"{path}: {name} is transformed (compressed?), which is not read")
        start, length = _numbers((place.field("offset"), place.field("length")), f"{path}: {name}")
        target = path.parent / file
        if file not in sizes:
            if not target.is_file():
                raise CheckpointError(f"{target}: not found, expected by {path.name} ({name})", _TORN)
            sizes[file] = target.stat().st_size
        if start + length > sizes[file]:
            raise CheckpointError(
                f"{target}: has {sizes[file]} bytes, expected at least {start + length} ({name})",
                _TORN,
            )
        offset = index.field("offset")
        offsets = None if offset is None else _numbers(offset, f"{path}: {name}")
        item = Item(name, offsets, (), target, start, length, index.field("index"))
        found.setdefault(name, []).append(item)
    return found


def _name_of(index: object) -> str:
    """The name that an index has; empty without."""
    said = index.field("fqn") if isinstance(index, Record) else None
    return said if isinstance(said, str) else ""


def _strange(meta: Record) -> str:
    """What is no table's of what a tensor is said to be; empty where all of it is known."""
    properties, chunks = meta.field("properties"), meta.field("chunks")
    parts = [properties, meta.field("size"), *(chunks if isinstance(chunks, (list, tuple)) else [chunks])]
    state = properties.state if isinstance(properties, Record) else None
    if isinstance(state, Mapping):
        parts.append(state.get("dtype"))
    elif isinstance(state, (tuple, list)):
        parts += state[:1]
    unknown = (part for part in parts if isinstance(part, Unknown) or _is_class(part))
    return next((part.label for part in unknown), "")


def _is_class(part: object) -> bool:
    return isinstance(part, type) and issubclass(part, Record)


def _tensor(path: Path, name: str, meta: Record, items: Iterable[Item]) -> TensorMeta:
    where = f"{path}: {name}"
    properties = _record(meta.field("properties"), "TensorProperties", where).state
    dtype = properties[0] if isinstance(properties, (tuple, list)) and properties else None
    if isinstance(properties, Mapping):
        dtype = properties.get("dtype")
    if not isinstance(dtype, DType):
        raise CheckpointError(f"{where}: dtype {reprlib.repr(dtype)}, expected torch's", _TORN)
    shape = _numbers(meta.field("size"), where)
    by_offset = {item.offsets: item for item in items}
    boxes = []
    for chunk in meta.field("chunks") or ():
        box = _record(chunk, "ChunkStorageMetadata", where)
        offsets = _numbers(box.field("offsets"), where)
        sizes = _numbers(box.field("sizes"), where)
        inside = len(offsets) == len(sizes) == len(shape) and all(
            o + n <= whole for o, n, whole in zip(offsets, sizes, shape, strict=True)
        )
        item = by_offset.get(offsets)
        if not inside or item is None:
            problem = "is not stored" if inside else f"does not fit into {list(shape)}"
            raise CheckpointError(f"{where}: the part at {list(offsets)} of {list(sizes)} {problem}", _TORN)
        boxes.append(Item(name, offsets, sizes, item.path, item.start, item.length, item.index))
    return TensorMeta(dtype.name, shape, tuple(boxes))


def read_metadata(folder: Path) -> DistMetadata:
    """What a DCP folder holds, from its ``.metadata``, with every file checked to be long enough.

    Raises:
        CheckpointError: ``.metadata`` is missing, torn or asks for code; a data file is missing or cut.
    """
    path = folder / METADATA
    try:
        with path.open("rb") as file:
            found = unpickle(file, str(path), lenient=True)
    except OSError as cause:
        advice = "the save was not finished: take an earlier checkpoint"
        raise CheckpointError(f"{path}: {cause.strerror or cause}", advice) from cause
    top = _record(found, "Metadata", str(path))
    unread: dict[str, str] = {}
    items = _items(path, top.field("storage_data"), unread)
    hidden = next(iter(unread.values()), "")  # where something lies that has no name
    tensors: dict[str, TensorMeta] = {}
    objects: dict[str, Item] = {}
    files = {item.path for held in items.values() for item in held}
    extent = Extent(str(path), sum(file.stat().st_size for file in files))
    for key, meta in _mapping(top.field("state_dict_metadata"), str(path)).items():
        name = _text(key, str(path))
        held = items.get(name, [])
        label = meta.label if isinstance(meta, Unknown) else ""
        if _is(meta, "TensorStorageMetadata"):
            label = _strange(meta)
        if label or name in unread or (hidden and not held):
            unread.setdefault(name, label or hidden)
        elif _is(meta, "TensorStorageMetadata"):
            tensors[name] = _tensor(path, name, meta, held)
            for item in tensors[name].items:
                extent.take(ITEMSIZE.get(tensors[name].dtype, 1), item.sizes)
        else:
            _record(meta, "BytesStorageMetadata", f"{path}: {name}")
            if not held:
                raise CheckpointError(f"{path}: {name} is not stored", _TORN)
            objects[name] = held[0]
    return DistMetadata(tensors, objects, top.field("planner_data"), unread)


def _plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(_plain(k) and _plain(v) for k, v in value.items())
    if isinstance(value, (tuple, list)):
        return all(map(_plain, value))
    return value is None or isinstance(value, (str, int))


def _torch_metadata(found: DistMetadata, folder: Path) -> Metadata:
    import torch
    from torch.distributed.checkpoint import metadata as dcp
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    if found.objects:
        name = min(found.objects)
        raise CheckpointError(
            f"{folder / METADATA}: {name} is a pickled object",
            "nothing in a checkpoint is executed: save it as a tensor",
        )
    if found.unread:
        name = min(found.unread)
        raise CheckpointError(
            f"{folder / METADATA}: {name} is stored as {found.unread[name]}, which is not read"
        )
    states: dict[str, Any] = {}
    storage: dict[Any, Any] = {}
    for name, tensor in found.tensors.items():
        chunks = [
            dcp.ChunkStorageMetadata(torch.Size(item.offsets or ()), torch.Size(item.sizes))
            for item in tensor.items
        ]
        properties = dcp.TensorProperties(dtype=getattr(torch, tensor.dtype))
        states[name] = dcp.TensorStorageMetadata(properties, torch.Size(tensor.shape), chunks)
        for item in tensor.items:
            index = dcp.MetadataIndex(name, torch.Size(item.offsets or ()), item.index)
            file = item.path.relative_to(folder).as_posix()
            storage[index] = _StorageInfo(file, item.start, item.length)
    planner = found.planner_data if _plain(found.planner_data) else None
    return dcp.Metadata(states, planner_data=planner, storage_data=storage)


def safe_reader(path: str | Path) -> FileSystemReader:
    """A DCP storage reader that executes nothing of the checkpoint it reads.

    ``.metadata`` goes through the table of :mod:`harness.checkpoints.pickles`; torch itself reads
    the tensors with ``weights_only``. Items that are pickled objects are refused.

    Raises (from ``read_metadata``):
        CheckpointError: torn, a data file missing or cut, or a pickled object inside.
    """
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import StorageMeta

    class SafeReader(FileSystemReader):
        def read_metadata(self, *_args: object, **_kwargs: object) -> Metadata:
            folder = Path(self.path)
            metadata = _torch_metadata(read_metadata(folder), folder)
            metadata.storage_meta = StorageMeta(load_id=self.load_id)
            return metadata

    return SafeReader(path)
