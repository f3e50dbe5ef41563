"""HDF5 (Keras' weights) by way of ``h5py``, where that is there: datasets and attributes are entries."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.checkpoints import arrays
from harness.checkpoints.archives import Stored
from harness.checkpoints.extents import Extent
from harness.errors import CheckpointError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.checkpoints.entries import Bits

MAGIC = b"\x89HDF\r\n\x1a\n"
#: A piece that was compressed is unpacked once, if it is no larger.
_CACHE = 64 << 20
SUFFIXES = (".h5", ".hdf5")
_TORN = "the file is torn: take an earlier checkpoint"


def readable() -> bool:
    """Whether ``h5py`` is there."""
    from importlib.util import find_spec

    return find_spec("h5py") is not None


def require_whole(path: Path) -> None:
    """Check that a file reaches as far as its first block says.

    Raises:
        CheckpointError: it does not, or it is no HDF5 file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(64)
    if not start.startswith(MAGIC) or len(start) < 48:
        raise CheckpointError(f"{path}: {size} bytes, starts with {start[:8]!r}, expected HDF5", _TORN)
    # Of version 0 and 1 (24 bytes, then addresses), of 2 and 3 (12 bytes); the end is the third address.
    version = start[8]
    width, first, number = (start[13], 24 + 4 * version, 2) if version < 2 else (start[9], 12, 2)
    at = first + width * number
    end = int.from_bytes(start[at : at + width], "little")
    if size < end:
        raise CheckpointError(f"{path}: has {size} bytes, expected {end}", _TORN)


@dataclass(frozen=True)
class Dataset:
    """An array.

    Args:
        form: what it is as an entry; None for what is not read.
        value: of a text, or a list of them.
    """

    name: str
    form: arrays.Form | None
    boxes: Boxed | None
    value: Any = None


class Source:
    """An HDF5 file, opened when it is asked for.

    Args:
        where: what it is called in messages.
        held: the file; or what gives its bytes, where it lies in another.
        begins: at which byte of that other file, where it lies there as it is; None where it does not.
    """

    def __init__(
        self, where: str, held: Path | Callable[[], NDArray[Any]], begins: int | None = None
    ) -> None:
        self.where, self._held = where, held
        self._begins = 0 if isinstance(held, Path) else begins

    @cached_property
    def file(self) -> Any:  # noqa: ANN401 - h5py has no types
        """h5py's.

        Raises:
            CheckpointError: cut or damaged.
        """
        import h5py  # type: ignore[import-not-found,import-untyped,unused-ignore]

        try:
            held = self._held if isinstance(self._held, Path) else _Bytes(self._held())
            return h5py.File(held, "r", rdcc_nbytes=_CACHE)
        except (OSError, ValueError) as cause:
            raise CheckpointError(f"{self.where}: cut or damaged ({cause})", _TORN) from cause

    def datasets(self) -> Iterator[Dataset]:
        """All of them that are in the file, what is empty, and where links lead to; none is followed."""
        import h5py

        found: list[Dataset] = []
        extent = Extent(self.where, self._size())

        def visit(name: str, node: Any) -> None:  # noqa: ANN401
            found.extend(self._attributes(name, node))
            if isinstance(node, h5py.Dataset):
                try:
                    extent.take(node.dtype.itemsize, node.shape or ())
                except TypeError:  # of a type that numpy has none for
                    found.append(Dataset(name, None, None))
                    return
                found.append(self._dataset(name, node))
            elif isinstance(node, h5py.Datatype):
                found.append(Dataset(name, None, None, f"type {node.dtype}"))
            elif not len(node) and not len(node.attrs):
                found.append(Dataset(name, None, None, {}))

        def visit_link(name: str, link: Any) -> None:  # noqa: ANN401
            if isinstance(link, h5py.SoftLink):
                found.append(Dataset(name, None, None, f"link to {link.path}"))
            elif isinstance(link, h5py.ExternalLink):
                found.append(Dataset(name, None, None))

        try:
            found.extend(self._attributes("", self.file))
            self.file.visititems(visit)
            self.file.visititems_links(visit_link)
        except (OSError, RuntimeError, ValueError, KeyError) as cause:
            raise CheckpointError(f"{self.where}: cut or damaged ({cause})", _TORN) from cause
        yield from found

    def _size(self) -> int:
        return self._held.stat().st_size if isinstance(self._held, Path) else self._held().size

    def _dataset(self, name: str, node: Any) -> Dataset:  # noqa: ANN401
        if node.shape is None:
            return Dataset(name, None, None, f"empty {node.dtype}")
        if node.is_virtual or node.external:
            return Dataset(name, None, None)  # its elements are in other files
        if node.dtype.hasobject:
            texts = node.dtype.metadata and node.dtype.metadata.get("vlen") in (str, bytes)
            value = _plain(node[()], node.file) if texts and node.size <= 10_000 else None
            return Dataset(name, None, None, value)
        form = arrays.form_of(node.dtype, node.shape)
        return Dataset(name, form, Boxed(node, form, self.where, self._begins))

    @staticmethod
    def _attributes(name: str, node: Any) -> Iterator[Dataset]:  # noqa: ANN401
        for key in sorted(node.attrs):
            try:
                value = _plain(node.attrs[key], node.file)
            except TypeError:  # of a type that numpy has none for, or that is not read
                value = None
            yield Dataset(f"{name}@{key}" if name else f"@{key}", None, None, value)


class _Bytes(io.RawIOBase):
    """Bytes in memory, or mapped to it, as a file that is not copied."""

    def __init__(self, held: NDArray[Any]) -> None:
        self._held, self._at = held.data, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = (0, self._at, len(self._held))[whence] + offset
        return self._at

    def readinto(self, target: Any) -> int:  # noqa: ANN401 - any writable buffer
        data = self._held[self._at : self._at + len(target)]
        target[: len(data)] = data
        self._at += len(data)
        return len(data)


class Boxed:
    """Boxes of a dataset; HDF5 is read by one thread at a time."""

    _lock = threading.Lock()

    def __init__(self, node: Any, form: arrays.Form, where: str, begins: int | None = None) -> None:  # noqa: ANN401
        self._node, self._form, self._where, self._begins = node, form, where, begins

    @property
    def name(self) -> str:
        """The dataset's, in a file of its own; empty in one that lies in another."""
        return "" if self._begins is None or self._node.file.driver == "fileobj" else str(self._node.name)

    def stored(self, path: Path) -> Stored | None:
        """Where in its file the elements lie, where they are one run with the lowest byte first."""
        position = self._node.id.get_offset()
        if None in (position, self._begins) or self._form.swapped or self._node.file.userblock_size:
            return None
        shape = self._form.shape
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        return Stored(path, self._begins + position, self._form.dtype, shape, strides)

    def box(self, start: tuple[int, ...], sizes: tuple[int, ...]) -> Bits:
        """A copy of a box.

        Raises:
            CheckpointError: damaged.
        """
        places = tuple(slice(o, o + n) for o, n in zip(start, sizes, strict=True))[: len(self._node.shape)]
        try:
            with self._lock:
                piece: NDArray[Any] = self._node[places]
        except (OSError, RuntimeError) as cause:
            raise CheckpointError(f"{self._where}: damaged ({cause})", _TORN) from cause
        inner = (0,) * len(places) + tuple(start[len(places) :])
        return arrays.Loaded(lambda: piece, self._form).box(inner, sizes)


def rewrite(path: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Write what ``change`` makes of a dataset in its place.

    Raises:
        OSError: it cannot be written.
    """
    import h5py

    with h5py.File(path, "r+") as file:
        file[name][...] = change(file[name][...])


def _plain(value: Any, file: Any) -> Any:  # noqa: ANN401
    """Values of numpy's and HDF5's own as Python's.

    Raises:
        TypeError: there is none for it.
    """
    import h5py
    import numpy as np

    if isinstance(value, (np.ndarray, np.generic)) and value.dtype in (np.longdouble, np.clongdouble):
        return [repr(each) for each in np.asarray(value).reshape(-1)]  # Python has no such number
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(each, file) for each in value]
    if isinstance(value, h5py.Empty):
        return f"empty {value.dtype}"
    if isinstance(value, h5py.Reference) and not isinstance(value, h5py.RegionReference):
        return f"reference to {h5py.h5r.get_name(value, file.id)!r}"
    if isinstance(value, (str, bytes, int, float, complex, bool)) or value is None:
        return value
    raise TypeError(type(value).__name__)
