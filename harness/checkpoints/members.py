"""What a zip file holds that torch did not write: ``.npz``, ``.keras``, a script's own archive of files.

A member that is stored as it is stays where it lies; a compressed one is unpacked when it is asked for.
When the archive was written, which each member says, is no state.
"""

from __future__ import annotations

import io
import json
import tempfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness.checkpoints import arrays, hdf5
from harness.checkpoints.archives import PICKLE_LIMIT, ZIP_ERRORS, Stored, Window, data_position, unpickle
from harness.checkpoints.extents import Extent
from harness.checkpoints.jsons import placed_json
from harness.checkpoints.placed import Origin, wanted
from harness.errors import CheckpointError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TORN = "the file is torn: take an earlier checkpoint"
_START = b"PK\x03\x04"
#: What torch writes beside the storages.
_OF_TORCH = (
    "data.pkl", "byteorder", "version", ".format_version", ".storage_alignment", ".data/serialization_id",
)  # fmt: skip
#: Unpacked members that are kept at a time, in files without a name.
_KEPT = 4


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Args:
        name: in it.
        size: its bytes, unpacked.
        position: where in ``path`` they begin; None where they are compressed.
    """

    path: Path
    name: str
    size: int
    position: int | None
    info: zipfile.ZipInfo

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """It, to be read from its beginning.

        Raises:
            CheckpointError: damaged.
        """
        where = f"{self.path} ({self.name})"
        try:
            if self.position is not None:
                with self.path.open("rb") as file:
                    yield io.BufferedReader(Window(file, self.position, self.size))
            else:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.info) as unpacked:
                    yield unpacked
        except ZIP_ERRORS as cause:
            raise CheckpointError(f"{where}: is damaged ({cause})", _TORN) from cause

    def content(self) -> bytes:
        """All of it."""
        with self.opened() as file:
            return file.read()

    def unpacked(self) -> NDArray[Any]:
        """Its bytes, in a file that has no name; a few of them are kept."""
        return _unpacked(self)


class _Unpacked:
    """The last few members that were unpacked, as maps: no file of them is open."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[Path, int, int], NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, member: Member) -> NDArray[Any]:
        key = (member.path, member.info.header_offset, member.path.stat().st_mtime_ns)
        with self._lock:
            if key not in self._held:
                self._held[key] = self._made(member)
                while len(self._held) > _KEPT:
                    self._held.popitem(last=False)  # gone, when nobody reads it any more
            self._held.move_to_end(key)
            return self._held[key]

    @staticmethod
    def _made(member: Member) -> NDArray[Any]:
        import numpy as np

        with tempfile.TemporaryFile() as file, member.opened() as packed:
            while chunk := packed.read(1 << 20):
                file.write(chunk)
            file.flush()
            if file.tell() != member.size or not member.size:
                raise CheckpointError(f"{member.path} ({member.name}): is cut", _TORN)
            return np.memmap(file, "u1", "r", 0, (member.size,))


_unpacked = _Unpacked()


def is_archive(path: Path) -> bool:
    """Whether a file is a zip archive that ``torch.save`` did not write."""
    with path.open("rb") as file:
        if file.read(4) != _START:
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except ZIP_ERRORS:
        return path.suffix in (".npz", ".keras")
    return not any(map(_is_nest, names))


def beside(path: Path) -> list[tuple[str, Member]]:
    """What an archive of ``torch.save`` holds beside what torch writes, by name: code, files of a script.

    Raises:
        CheckpointError: damaged.
    """
    if not zipfile.is_zipfile(path):
        return []  # of the format before torch 1.6
    with zipfile.ZipFile(path) as archive:
        infos = {info: info.filename for info in reversed(archive.infolist())}
    root = next(name for name in reversed(infos.values()) if _is_nest(name)).removesuffix("data.pkl")
    seen: set[str] = set()
    strange: list[zipfile.ZipInfo] = []
    for info, name in infos.items():
        inside = name.removeprefix(root) if name.startswith(root) else ""
        if name in seen or not (inside in _OF_TORCH or inside.startswith("data/")):
            strange.append(info)
        seen.add(name)
    held = _members(path, strange[::-1]) if strange else []
    return [(member.name.removeprefix(root), member) for member in held]


def _is_nest(name: str) -> bool:
    return name.count("/") == 1 and name.endswith("/data.pkl")


def members(path: Path) -> list[Member]:
    """The files in an archive.

    Raises:
        CheckpointError: cut or damaged; encrypted; or it unpacks to far more than it is.
    """
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except ZIP_ERRORS as cause:
        raise CheckpointError(f"{path}: {size} bytes, cut or damaged ({cause})", _TORN) from cause
    return _members(path, infos)


def _members(path: Path, infos: list[zipfile.ZipInfo]) -> list[Member]:
    size = path.stat().st_size
    extent = Extent(str(path), size)
    found = []
    for info in infos:
        if info.is_dir():
            continue
        if info.flag_bits & 1:
            raise CheckpointError(f"{path}: {info.filename} is encrypted, which is not read")
        extent.take(1, (info.file_size,))
        position = None
        if info.compress_type == zipfile.ZIP_STORED:
            position = data_position(path, 0, info, str(path))
            if position + info.file_size > size:
                raise CheckpointError(f"{path}: {info.filename} reaches beyond its end", _TORN)
        found.append(Member(path, info.filename, info.file_size, position, info))
    return found


def whole(path: Path) -> Member:
    """A file by itself, as if it were the only one in an archive."""
    size = path.stat().st_size
    return Member(path, path.name, size, 0, zipfile.ZipInfo(path.name))


@dataclass(frozen=True)
class Content:
    """What a member is: a nest, an array, a file of another format, text or bytes.

    Args:
        nest: of values, of tensors by where they lie; None for what is none.
        form, open: of an array: what it is as an entry, and where its elements are.
        hdf5: of an HDF5 file: gives it.
        text: of a text.
    """

    nest: Any = None
    form: arrays.Form | None = None
    open: Callable[[], Stored | arrays.Loaded] | None = None
    hdf5: hdf5.Source | None = None
    text: str | None = None


def content_of(member: Member, text_bytes: int, text_lines: int) -> Content:
    """What a member holds.

    Args:
        text_bytes, text_lines: a text that is longer is bytes.

    Raises:
        CheckpointError: damaged, or it would need code to be read.
    """
    where = f"{member.path} ({member.name})"
    with member.opened() as file:
        start = file.read(8)
    if start.startswith(arrays.MAGIC) or member.name.endswith(".npy"):
        return _array(member, where)
    if start.startswith(hdf5.MAGIC):
        return Content(hdf5=hdf5.Source(where, member.unpacked))
    if start.startswith(_START) and member.position is not None:
        from harness.checkpoints.archives import read_nest

        return Content(nest=read_nest(member.path, member.position, member.size, member.name))
    if member.size <= text_bytes:
        try:
            text = member.content().decode("utf-8")
        except UnicodeDecodeError:
            return _bytes(member)
        named = member.name.endswith(".json")
        if named or ("." not in member.name and text.startswith("{")):
            try:
                if wanted() and member.position is not None:
                    return Content(nest=placed_json(text.encode(), Origin(member.path, member.position)))
                return Content(nest=json.loads(text))
            except (ValueError, RecursionError) as cause:
                if named:
                    raise CheckpointError(f"{where}: not JSON ({cause})", _TORN) from cause
        if "\0" not in text and text.count("\n") < text_lines:
            return Content(text=text)
    return _bytes(member)


def _bytes(member: Member) -> Content:
    return _placed(member, arrays.Form("uint8", (member.size,), swapped=False), None)


def _array(member: Member, where: str) -> Content:
    with member.opened() as file:
        header = arrays.read_header(file, where)
        if header.kind.hasobject:  # a pickle follows
            if member.size > PICKLE_LIMIT:
                raise CheckpointError(f"{where}: {member.size} bytes of Python objects, which is not read")
            at = None if member.position is None else Origin(member.path, member.position + header.length)
            return Content(nest=unpickle(io.BytesIO(file.read()), where, origin=at))
    if header.length + header.nbytes > member.size:
        raise CheckpointError(
            f"{where}: has {member.size} bytes, expected {header.length + header.nbytes}", _TORN
        )
    return _placed(member, arrays.form_of(header.kind, header.shape), header)


def _placed(member: Member, form: arrays.Form, header: arrays.Header | None) -> Content:
    if member.position is not None:
        begin = member.position + (header.length if header else 0)
        run = Stored(member.path, begin, form.dtype, form.shape, (1,))
        stored = run if header is None else arrays.stored(header, form, member.path, begin)
        if stored is not None:
            return Content(form=form, open=lambda: stored)
    loaded = arrays.Loaded(lambda: _map(member, header), form)
    return Content(form=form, open=lambda: loaded)


def _map(member: Member, header: arrays.Header | None) -> NDArray[Any]:
    held = member.unpacked()
    if header is None:
        return held
    elements = held[header.length : header.length + header.nbytes].view(header.kind)
    return elements.reshape(header.shape, order="F" if header.fortran else "C")
