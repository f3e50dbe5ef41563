"""Arrays of numpy's on the disk (``.npy``, ``.npz``): where their bytes lie, or how they are got."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness.checkpoints.archives import Stored
from harness.checkpoints.extents import MOST_DIMENSIONS
from harness.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.checkpoints.entries import Bits

MAGIC = b"\x93NUMPY"
_TORN = "the file is torn: take an earlier checkpoint"
_KINDS = {
    "f8": "float64", "f4": "float32", "f2": "float16",
    "i8": "int64", "i4": "int32", "i2": "int16", "i1": "int8",
    "u8": "uint64", "u4": "uint32", "u2": "uint16", "u1": "uint8", "b1": "bool",
    "c8": "complex64", "c16": "complex128",
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """What an array is as an entry.

    Args:
        dtype: torch's word; ``uint8`` for what torch has none for (texts, times, records): as its bytes.
        shape: with one dimension more, the bytes of an element, where it has none.
        swapped: its bytes are in the other order.
        said: numpy's word for its type, where it is read as bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    swapped: bool
    said: str = ""


def form_of(kind: np.dtype[Any], shape: tuple[int, ...]) -> Form:
    """Of an array of this type, which holds no Python objects."""
    code = f"{kind.kind}{kind.itemsize}"
    if code in _KINDS and kind.fields is None:
        return Form(_KINDS[code], shape, kind.byteorder == ">")
    return Form("uint8", (*shape, kind.itemsize), swapped=False, said=str(kind))


@dataclass(frozen=True)
class Header:
    """The beginning of an ``.npy``.

    Args:
        kind: numpy's type.
        fortran: the first index runs fastest.
        length: bytes of the header; the elements follow.
    """

    kind: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    length: int

    @property
    def nbytes(self) -> int:
        """Of the elements."""
        return math.prod(self.shape) * self.kind.itemsize


def read_header(file: IO[bytes], where: str) -> Header:
    """Of an ``.npy`` that begins where the file stands.

    Raises:
        CheckpointError: damaged, or of a version that is not read.
    """
    from numpy.lib import format as npy

    start = file.tell()
    try:
        version = npy.read_magic(file)  # type: ignore[no-untyped-call]
        if version not in ((1, 0), (2, 0)):
            raise CheckpointError(f"{where}: version {version} of .npy, which is not read")
        read: Any = getattr(npy, f"read_array_header_{version[0]}_0")
        shape, fortran, kind = read(file)
    except (ValueError, OSError, EOFError) as cause:
        raise CheckpointError(f"{where}: no array of numpy's ({cause})", _TORN) from cause
    if len(shape) > MOST_DIMENSIONS or not all(0 <= n < 1 << 63 for n in shape):
        raise CheckpointError(f"{where}: a shape of {shape!r:.80}", _TORN)
    return Header(kind, tuple(map(int, shape)), bool(fortran), file.tell() - start)


def stored(header: Header, form: Form, path: Path, position: int) -> Stored | None:
    """Where the elements lie, from a byte of a file on; None for what must be turned first."""
    if form.swapped:
        return None
    count = len(header.shape)
    if header.fortran and count > 1:
        if len(form.shape) != count:
            return None
        strides = tuple(math.prod(header.shape[:i]) for i in range(count))
    else:
        strides = tuple(math.prod(form.shape[i + 1 :]) for i in range(len(form.shape)))
    return Stored(path, position, form.dtype, form.shape, strides)


class Loaded:
    """Boxes of an array that is got by other means than from a run of bytes on the disk.

    Args:
        load: gives it, or a map of it.
        form: what it is as an entry.
    """

    def __init__(self, load: Callable[[], NDArray[Any]], form: Form) -> None:
        self._load, self._form = load, form

    def box(self, start: tuple[int, ...], sizes: tuple[int, ...]) -> Bits:
        """A copy of a box."""
        import numpy as np

        array = np.asarray(self._load())
        places = tuple(slice(o, o + n) for o, n in zip(start, sizes, strict=True))
        piece = array[places[: array.ndim]]
        little = np.ascontiguousarray(piece, piece.dtype.newbyteorder("<"))
        if len(self._form.shape) == array.ndim:
            return little.reshape(sizes)
        flat = little.reshape(-1).view("u1").reshape(*piece.shape, -1)  # each element as its bytes
        return flat[(..., places[-1])]
