"""Arrays that do not lie in a file as they are: read as a whole, altered, and written by their own library.

Compressed members of npz, pieces of HDF5, zarr and OCDBT; of a type whose highest byte comes first, too.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.ablation.values import alter
from harness.ablation.written import Unalterable, component_size
from harness.checkpoints import hdf5, stores
from harness.checkpoints.archives import ZIP_ERRORS
from harness.checkpoints.arrays import MAGIC, read_header
from harness.checkpoints.entries import Boxes, Entry
from harness.errors import CheckpointError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PACKED = "it is stored compressed or in pieces, which are not written anew"
#: Makes a copy of a file, which takes its place at the end.
Replacing = Callable[[Path], AbstractContextManager[Path]]


@dataclass(frozen=True)
class Whole:
    """An array that is written anew.

    Args:
        path: the file, links followed; of a store, what the array is called.
        name: in the file.
        held: of a store: the array.
    """

    path: Path
    kind: Literal["npy", "member", "hdf5", "store"]
    name: str
    dtype: str
    held: Any = None

    @property
    def spans(self) -> tuple[int, int]:
        """No bytes of it are known, and it shares none."""
        return 0, 0

    def apply(self, replacing: Replacing) -> None:
        """Alter it.

        Raises:
            CheckpointError: it cannot be written.
        """
        try:
            if self.kind == "store":
                self.held.rewrite(self._changed)
                return
            with replacing(self.path) as copy:
                if self.kind == "hdf5":
                    hdf5.rewrite(copy, self.name, self._changed)
                elif self.kind == "npy":
                    copy.write_bytes(self._npy(copy.read_bytes()))
                else:
                    self._member(copy)
        except ZIP_ERRORS as cause:
            raise CheckpointError(f"{self.path}: {self.name} cannot be altered: {cause}") from cause

    def _changed(self, array: NDArray[Any]) -> NDArray[Any]:
        """Another array of the same type and shape."""
        import numpy as np

        size = component_size(self.dtype)
        little = np.array(array, array.dtype.newbyteorder("<") if array.dtype.kind in "iufcb" else None)
        flat = little.reshape(-1).view(f"<u{size}")
        if reason := alter(self.dtype, flat, alone=True):
            raise CheckpointError(f"{self.path}: {self.name} cannot be altered: {reason}")
        return little.astype(array.dtype, copy=False).reshape(array.shape)

    def _npy(self, held: bytes) -> bytes:
        import numpy as np

        header = read_header(io.BytesIO(held), str(self.path))
        body = np.frombuffer(held, header.kind, header.nbytes // header.kind.itemsize, header.length)
        return held[: header.length] + self._changed(body).tobytes()

    def _member(self, copy: Path) -> None:
        with zipfile.ZipFile(self.path) as old, zipfile.ZipFile(copy, "w") as new:
            new.comment = old.comment
            for info in old.infolist():
                data = old.read(info)
                data = self._npy(data) if info.filename == self.name else data
                new.writestr(info, data, info.compress_type)


def whole_of(entry: Entry, stored: Boxes, path: Path) -> Whole:
    """An array that is not one run of bytes.

    Args:
        path: the file that it lies in, links followed.

    Raises:
        Unalterable: it cannot be written.
    """
    if isinstance(stored, stores.Opened):
        return Whole(Path(stored.where), "store", entry.key, entry.dtype, stored)
    if isinstance(stored, hdf5.Boxed):
        if stored.name:
            return Whole(path, "hdf5", stored.name, entry.dtype)
        raise Unalterable(_PACKED)
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    if start == MAGIC:
        return Whole(path, "npy", entry.key, entry.dtype)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        name = next((each for each in (entry.key, f"{entry.key}.npy") if names.count(each) == 1), "")
        if name.endswith(".npy"):
            return Whole(path, "member", name, entry.dtype)
    raise Unalterable(_PACKED)
