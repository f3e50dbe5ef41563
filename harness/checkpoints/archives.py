"""``torch.save`` files and slices of files: what they hold, and where each tensor's bytes lie.

Nothing but the small pickle in front is read here; tensors stay on the disk until someone reads them.
"""

from __future__ import annotations

import io
import json
import pickle
import reprlib
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from harness.checkpoints import pickles
from harness.checkpoints.extents import Extent
from harness.checkpoints.inert import ITEMSIZE, Refused, Storage, StorageType, TensorRef
from harness.checkpoints.jsons import placed_json
from harness.checkpoints.placed import Origin, wanted
from harness.errors import CheckpointError

#: More Python objects than this in one file is not a training state but an attack on memory.
PICKLE_LIMIT = 256 << 20

#: Of files that may hold pickles of protocol 0 and 1, which begin as any text may.
PICKLES = (".pkl", ".pickle", ".pck", ".p")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_ZIP_START = b"PK\x03\x04"
#: What :mod:`zipfile` raises for damaged archives.
ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error,
    EOFError, NotImplementedError, OSError, RuntimeError, ValueError,
)  # fmt: skip
_NOT_EXECUTED = "nothing in a checkpoint is executed: save tensors, numbers, text and containers of them"
_TORN = "the file is torn: take an earlier checkpoint"


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: element ``[0, …]`` at byte ``position``; strides in elements."""

    path: Path
    position: int
    dtype: str
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return ITEMSIZE[self.dtype]

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        expected = 1
        for size, stride in zip(reversed(self.sizes), reversed(self.strides), strict=True):
            if size == 0:
                return True
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True


class Window(io.RawIOBase):
    """Bytes ``[start, start + length)`` of a file as a file."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self._file, self._start, self._length, self._at = file, start, length, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Bytes from its beginning."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go there; beyond the end there is nothing to read."""
        base = (0, self._at, self._length)[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes; all that are left without a size."""
        left = max(0, self._length - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        self._file.seek(self._start + self._at)
        data = self._file.read(wanted)
        self._at += len(data)
        return data

    def readinto(self, target: Any) -> int:  # noqa: ANN401 - any writable buffer
        """As many of the next bytes as there is place for."""
        data = self.read(len(target))
        target[: len(data)] = data
        return len(data)


def is_torch_file(path: Path) -> bool:
    """Whether a file looks like ``torch.save`` wrote it (now, or before torch 1.6)."""
    with path.open("rb") as file:
        start = file.read(len(_LEGACY_START))
    return start.startswith(_ZIP_START) or start == _LEGACY_START


def resolve(ref: TensorRef, path: Path) -> Stored:
    """Where a tensor's elements are; checked against the bytes that are there.

    Raises:
        CheckpointError: the tensor reaches beyond its storage.
    """
    position, nbytes = ref.storage.locate()
    item = ITEMSIZE[ref.dtype]
    empty = 0 in ref.sizes
    last = sum((n - 1) * s for n, s in zip(ref.sizes, ref.strides, strict=True)) if not empty else -1
    if (ref.offset + last + 1) * item > nbytes:
        raise CheckpointError(
            f"{path}: a tensor of shape {list(ref.sizes)} reaches beyond its storage: "
            f"found {nbytes} bytes, expected {(ref.offset + last + 1) * item}",
            _TORN,
        )
    return Stored(path, position + ref.offset * item, ref.dtype, ref.sizes, ref.strides)


def read_nest(path: Path, offset: int = 0, length: int | None = None, name: str = "") -> Any:  # noqa: ANN401
    """The nest of containers, values and :class:`TensorRef` in a file, or in a slice of one.

    Args:
        name: what the slice is called in messages.

    Raises:
        CheckpointError: torn, not written by ``torch.save``, or it would need code to be read.
    """
    where = f"{path} ({name})" if name else str(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            length = size - offset if length is None else length
            _check_extent(where, size, offset, length)
            file.seek(offset)
            start = file.read(len(_LEGACY_START))
            if start.startswith(_ZIP_START):
                return _read_zip(path, file, offset, length, where)
            if start == _LEGACY_START and not offset:
                return _read_legacy(file, size, where, origin=Origin(path))
    except OSError as cause:
        raise CheckpointError(f"{where}: cannot be read: {cause}") from cause
    raise CheckpointError(f"{where}: starts with {start[:8]!r}, expected a torch.save archive", _TORN)


def _check_extent(where: str, size: int, offset: int, length: int) -> None:
    if size == 0:
        raise CheckpointError(f"{where}: has 0 bytes, expected a torch.save archive", _TORN)
    if length <= 0 or offset < 0 or offset + length > size:
        raise CheckpointError(
            f"{where}: has {size} bytes, expected at least {offset + max(length, 1)}", _TORN
        )


def unpickle(
    file: IO[bytes],
    where: str,
    load_storage: Callable[[Any], Storage] | None = None,
    *,
    lenient: bool = False,
    origin: Origin | None = None,
) -> Any:  # noqa: ANN401 - untyped by nature
    """One pickle, by :func:`pickles.load`, with errors that name the file.

    Args:
        lenient: also what is not as the table expects it is kept as it was stored.
        origin: where ``file`` begins, for values that are to know where they lie.

    Raises:
        CheckpointError: it would need code to be read, or is damaged.
    """
    try:
        return pickles.load(
            file,
            load_storage,
            load_bytes=lambda held: _read_bytes(held, where),
            lenient=lenient,
            origin=origin if wanted() else None,
        )
    except Refused as cause:
        raise CheckpointError(f"{where}: needs {cause} to be read", _NOT_EXECUTED) from cause
    except CheckpointError:
        raise
    except Exception as cause:  # a damaged pickle raises nearly anything
        what = f"{type(cause).__name__}: {cause}"
        raise CheckpointError(f"{where}: its pickle is damaged ({what})", _TORN) from cause


def read_pickle(path: Path) -> tuple[Any, ...]:
    """The contents of the pickles that a file is made of; none of what only looks like one."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        if not 2 < size <= PICKLE_LIMIT:
            return ()
        file.seek(0)
        start = file.read(2)
        file.seek(size - 1)
        new = start[:1] == b"\x80" and 2 <= start[1] <= pickle.HIGHEST_PROTOCOL
        if not (new or path.suffix in PICKLES) or file.read(1) != b".":
            return ()
        file.seek(0)
        found: list[Any] = []
        try:
            while file.tell() < size:
                found.append(unpickle(file, str(path), origin=Origin(path)))
        except CheckpointError:
            return ()
        return tuple(found)


def _read_zip(path: Path, file: IO[bytes], offset: int, length: int, where: str) -> Any:  # noqa: ANN401
    window = Window(file, offset, length)
    try:
        archive = zipfile.ZipFile(window)
        infos = {info.filename: info for info in archive.infolist()}
    except ZIP_ERRORS as cause:
        raise CheckpointError(f"{where}: {length} bytes, cut or damaged ({cause})", _TORN) from cause
    main = next((name for name in infos if name.count("/") == 1 and name.endswith("/data.pkl")), "")
    if not main:
        raise CheckpointError(
            f"{where}: a zip file without data.pkl, expected one written by torch.save", _NOT_EXECUTED
        )
    root = main.removesuffix("data.pkl")
    if infos[main].file_size > PICKLE_LIMIT:
        raise CheckpointError(
            f"{where}: {infos[main].file_size >> 20} MiB of Python objects outside tensors, "
            f"expected at most {PICKLE_LIMIT >> 20} MiB",
            "save large values as tensors",
        )

    def member(name: str) -> bytes:
        if infos[name].compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"{where}: {name} is compressed, torch.save never does that", _TORN)
        try:
            return archive.read(name)
        except ZIP_ERRORS as cause:
            raise CheckpointError(f"{where}: {name} is damaged ({cause})", _TORN) from cause

    order = root + "byteorder"
    if order in infos and member(order) not in (b"little", b""):
        raise CheckpointError(f"{where}: byte order {member(order)!r}, expected little")

    extent = Extent(where, length)

    def load_storage(pid: Any) -> Storage:  # noqa: ANN401 - untyped by nature
        dtype, key, numel = _storage_id(pid)
        info = infos.get(f"{root}data/{key}")
        if info is None or info.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"{where}: storage {key} is missing from the archive", _TORN)
        needed = numel * ITEMSIZE[dtype]
        if info.file_size < needed:
            raise CheckpointError(
                f"{where}: storage {key} has {info.file_size} bytes, expected {needed}", _TORN
            )
        found: list[tuple[int, int]] = []

        def locate() -> tuple[int, int]:
            if not found:
                found.append((data_position(path, offset, info, where), info.file_size))
            return found[0]

        return Storage(dtype, numel, locate, extent)

    origin = Origin(path, data_position(path, offset, infos[main], where)) if wanted() else None
    return unpickle(io.BytesIO(member(main)), where, load_storage, origin=origin)


def data_position(path: Path, offset: int, info: zipfile.ZipInfo, where: str) -> int:
    """Where in a file the bytes of a member of the archive at ``offset`` begin.

    Raises:
        CheckpointError: its own header is damaged.
    """
    at = offset + info.header_offset
    with path.open("rb") as file:
        file.seek(at)
        header = file.read(30)
    if len(header) < 30 or not header.startswith(_ZIP_START):
        raise CheckpointError(f"{where}: {info.filename} has no header at byte {at}", _TORN)
    name, extra = struct.unpack("<HH", header[26:30])
    return at + 30 + int(name) + int(extra)


def _storage_id(pid: Any) -> tuple[str, str, int]:  # noqa: ANN401 - untyped by nature
    """(dtype, key, elements) of a persistent id ``("storage", type, key, location, numel, …)``."""
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
        raise Refused(f"a persistent object {reprlib.repr(pid)}")
    _, kind, key, _, numel = pid[:5]
    if not isinstance(kind, StorageType) or not isinstance(numel, int) or numel < 0:
        raise Refused(f"a storage of type {reprlib.repr(kind)}")
    return kind.name, str(key), numel


def _read_bytes(held: object, where: str) -> Any:  # noqa: ANN401
    """What ``torch.save`` wrote into a pickle, as a tensor that was pickled by itself has its storage."""
    if not isinstance(held, bytes) or not held.startswith(_LEGACY_START):
        raise Refused("bytes that torch.save did not write")
    return _read_legacy(io.BytesIO(held), len(held), where, held)


def _read_legacy(
    file: IO[bytes], size: int, where: str, data: bytes | None = None, origin: Origin | None = None
) -> Any:  # noqa: ANN401
    """The format before torch 1.6: five pickles, then each storage's length and bytes.

    Args:
        data: all of it, where it lies in no file of its own.
    """
    file.seek(0)
    places: dict[str, tuple[int, int]] = {}
    held: dict[str, Storage] = {}
    extent = Extent(where, size)

    def load_storage(pid: Any) -> Storage:  # noqa: ANN401 - untyped by nature
        dtype, key, numel = _storage_id(pid)
        inside = None if data is None else lambda: data[slice(*_span(places[key]))]
        return held.setdefault(key, Storage(dtype, numel, lambda: places[key], extent, inside))

    magic, protocol, system = (unpickle(file, where) for _ in range(3))
    little = isinstance(system, dict) and system.get("little_endian", True)
    if (magic, protocol) != (_LEGACY_MAGIC, 1001) or not little:
        raise CheckpointError(f"{where}: protocol {reprlib.repr(protocol)}, expected 1001, little endian")
    nest = unpickle(file, where, load_storage, origin=origin)
    keys = unpickle(file, where)
    for key in keys if isinstance(keys, list) else []:
        head = file.read(8)
        storage = held.get(str(key))
        if len(head) < 8 or storage is None:
            raise CheckpointError(f"{where}: cut before storage {key}", _TORN)
        nbytes = struct.unpack("<q", head)[0] * ITEMSIZE[storage.dtype]
        at = file.tell()
        if nbytes < storage.numel * ITEMSIZE[storage.dtype] or at + nbytes > size:
            raise CheckpointError(f"{where}: has {size} bytes, expected {at + nbytes}", _TORN)
        places[str(key)] = (at, nbytes)
        file.seek(at + nbytes)
    missing = held.keys() - places.keys()
    if missing:
        raise CheckpointError(f"{where}: storage {min(missing)} is missing", _TORN)
    return nest


def _span(place: tuple[int, int]) -> tuple[int, int]:
    return place[0], sum(place)


def read_json(path: Path) -> Any:  # noqa: ANN401 - untyped by nature
    """A JSON file's content.

    Raises:
        CheckpointError: not JSON.
    """
    try:
        held = path.read_bytes()
        return placed_json(held, Origin(path)) if wanted() else json.loads(held)
    except (OSError, ValueError, RecursionError) as cause:
        raise CheckpointError(f"{path}: not JSON ({cause})", _TORN) from cause
