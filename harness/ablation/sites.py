"""Where an entry of a checkpoint lies, and what would stand there in its place."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.ablation.values import alter, unalterable
from harness.ablation.written import Unalterable, component_size, edits
from harness.checkpoints.archives import Stored
from harness.checkpoints.checkpoint import Checkpoint
from harness.checkpoints.entries import UNREAD, Entry
from harness.checkpoints.placed import Spot
from harness.errors import CheckpointError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Elements that are altered at a time.
_PIECE = 1 << 22
_LINE = "line "
_WORD = "word"


@dataclass(frozen=True)
class Patch:
    """Bytes ``[start, stop)`` of a file, and what stands there afterwards."""

    path: Path
    start: int
    stop: int
    data: bytes

    @property
    def spans(self) -> tuple[int, int]:
        """Its first byte and its end."""
        return self.start, self.stop

    @property
    def same_length(self) -> bool:
        """Whether all that follows stays where it is."""
        return len(self.data) == self.stop - self.start

    def apply(self, held: Any) -> None:  # noqa: ANN401 - writable bytes
        """Write it over what is there."""
        held[self.start : self.stop] = self.data


@dataclass(frozen=True)
class Run:
    """The elements of a tensor that lie in one file.

    Args:
        path: the file, links followed.
        alone: they are all elements of the entry.
    """

    path: Path
    stored: Stored
    alone: bool

    @property
    def spans(self) -> tuple[int, int]:
        """The first byte of its elements, and the end of the last."""
        last = sum((n - 1) * s for n, s in zip(self.stored.sizes, self.stored.strides, strict=True))
        return self.stored.position, self.stored.position + (last + 1) * self.stored.itemsize

    @property
    def dense(self) -> bool:
        """Whether its elements are all bytes between the first and the last."""
        return math.prod(self._shape()[0]) * self.stored.itemsize == self.spans[1] - self.spans[0]

    def _shape(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sizes and strides; a dimension along which nothing moves has only one element."""
        pairs = zip(self.stored.sizes, self.stored.strides, strict=True)
        kept = [(n, s) for n, s in pairs if n > 1 and s > 0]
        return tuple(n for n, _ in kept), tuple(s for _, s in kept)

    def places(self) -> NDArray[Any]:
        """The elements, counted from the first byte of the run."""
        import numpy as np

        sizes, strides = self._shape()
        found = np.zeros((1,), "i8")
        for size, stride in zip(sizes, strides, strict=True):
            found = (found[:, None] + np.arange(size, dtype="i8") * stride).reshape(-1)
        unique: NDArray[Any] = np.unique(found)
        return unique

    def apply(self, held: Any) -> None:  # noqa: ANN401 - writable bytes
        """Alter the elements, and nothing else."""
        import numpy as np

        dtype, (start, stop) = self.stored.dtype, self.spans
        size = component_size(dtype)
        per = self.stored.itemsize // size
        whole = np.frombuffer(held, f"<u{size}", (stop - start) // size, start)
        if self.dense:
            for at in range(0, whole.size, _PIECE):
                self._alter(whole[at : at + _PIECE])
            return
        places = self.places()
        if per > 1:
            places = (places[:, None] * per + np.arange(per)).reshape(-1)
        some = whole[places]
        self._alter(some)
        whole[places] = some

    def _alter(self, bits: Any) -> None:  # noqa: ANN401
        if reason := alter(self.stored.dtype, bits, alone=self.alone and bits.size <= _PIECE):
            raise CheckpointError(f"{self.path}: {reason}")


Site = Patch | Run


class Sites:
    """Finds the sites of entries; keeps the files open that it has looked into. A context manager."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._held: dict[Path, bytes | mmap.mmap] = {}
        self._lines: dict[Path, list[tuple[int, int]]] = {}

    def __enter__(self) -> Sites:
        return self

    def __exit__(self, *_: object) -> None:
        for held in self._held.values():
            if isinstance(held, mmap.mmap):
                held.close()

    def of(self, entry: Entry) -> tuple[Site, ...]:
        """All places that hold an entry's values.

        Raises:
            Unalterable: it cannot be altered.
        """
        if entry.dtype == UNREAD:
            raise Unalterable(f"it is not read: {entry.reason}" if entry.reason else "it is not read")
        if entry.data is not None:
            return self._patches(entry)
        if entry.key == "bytes" and entry.name in ("bytes", f"{entry.file}:bytes"):
            raise Unalterable("its file is of a kind that is not known: what its bytes mean is not either")
        if reason := unalterable(entry.dtype, entry.shape):
            raise Unalterable(reason)
        runs = tuple(self._runs(entry))
        for run in runs:
            if run.alone and entry.dtype == "uint8" and run.stored.contiguous:
                self._no_pickle(run)
        return runs

    def _runs(self, entry: Entry) -> Iterable[Run]:
        for part in (*entry.parts, *entry.copies):
            stored = part.open()
            if not isinstance(stored, Stored):
                raise Unalterable("it is stored compressed or in pieces, which are not written anew")
            path = Path(os.path.realpath(stored.path))
            yield Run(path, replace(stored, path=path), alone=part.sizes == entry.shape)

    def _no_pickle(self, run: Run) -> None:
        start, stop = run.spans
        held = self.held(run.path)
        if held[start : start + 1] == b"\x80" and held[stop - 1 : stop] == b".":
            raise Unalterable("it holds a pickle, which would be torn")

    def _patches(self, entry: Entry) -> tuple[Patch, ...]:
        entry = self._of_a_line(entry)
        held = [bytes(self.held(spot.path)[spot.start : spot.stop]) for spot in entry.spots]
        made = edits(entry, held)
        patches = []
        for spot, old, new in zip(entry.spots, held, made, strict=True):
            if old == new:
                continue
            path = Path(os.path.realpath(spot.path))
            patch = Patch(path, spot.start, spot.stop, new)
            if not patch.same_length and bytes(self.held(path)[:2]) == b"PK":
                raise Unalterable("another value would be longer or shorter, and the archive torn")
            patches.append(patch)
        return tuple(patches)

    def _of_a_line(self, entry: Entry) -> Entry:
        """A line of a file of text, with where it lies."""
        number = entry.key.removeprefix(_LINE)
        if entry.spots or entry.key == number or not number.isdigit() or not entry.file:
            return entry
        whole = self._checkpoint.path
        path = whole if whole.is_file() else whole / entry.file
        if path not in self._lines:
            self._lines[path] = _lines(bytes(self.held(path)))
        lines = self._lines[path]
        if not 0 < int(number) <= len(lines):
            return entry
        return replace(entry, spots=(Spot(path, *lines[int(number) - 1], "text"),))

    def held(self, path: Path) -> bytes | mmap.mmap:
        """A file's bytes.

        Raises:
            CheckpointError: it cannot be read.
        """
        if path not in self._held:
            try:
                with path.open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    self._held[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
            except OSError as cause:
                raise CheckpointError(f"{path}: cannot be read: {cause.strerror}") from cause
        return self._held[path]


def _lines(held: bytes) -> list[tuple[int, int]]:
    found, start = [], 0
    for line in held.split(b"\n"):
        found.append((start, start + len(line)))
        start += len(line) + 1
    return found
