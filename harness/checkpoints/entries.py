"""Global tensors made of parts in files, read block by block in row-major order.

A block is as many whole rows as fit a limit (or a piece of one row), so two checkpoints of
different layouts yield the same blocks, and no more than a block of each is ever in memory.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from harness.checkpoints.archives import Stored
from harness.checkpoints.inert import ITEMSIZE
from harness.checkpoints.placed import Spot
from harness.checkpoints.rules import without_words
from harness.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bits = NDArray[np.generic]

#: Two blocks and what is computed of them stay in a core's caches; smaller ones are mostly calls.
BLOCK_BYTES = 1 << 20
#: Kinds of plain values, beside torch's dtypes; what is kept of each is bytes.
VALUE_ITEMSIZE = {
    "Python int": 8, "Python float": 8, "Python bool": 1, "Python complex": 16,
    "text": 1, "bytes": 1, "big int": 1, "None": 1, "empty dict": 1, "empty list": 1, "file": 1,
    "unread": 1,
}  # fmt: skip
#: The type of what is stored in a way that is not read: it is never compared, and never held.
UNREAD = "unread"
#: A plain value: one float, any other one (a whole number, a text, nothing), or a list of numbers.
Plain = Literal["", "float", "value", "list"]
_TORN = "the file is torn: take an earlier checkpoint"


def itemsize(dtype: str) -> int:
    """Bytes per element of a dtype or of a kind of plain value."""
    return ITEMSIZE.get(dtype) or VALUE_ITEMSIZE[dtype]


class Boxes(Protocol):
    """An array that is not one run of bytes: compressed, or cut into pieces."""

    def box(self, start: tuple[int, ...], sizes: tuple[int, ...]) -> Bits:
        """The box of these sizes at ``start``, in the machine's byte order.

        Raises:
            CheckpointError: it is damaged.
        """


@dataclass(frozen=True)
class Part:
    """A box of a global tensor: ``sizes`` elements at ``offsets``, in one file.

    ``order`` sorts parts as they lie on the disk; ``open`` says where the bytes are.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    order: tuple[str, int]
    open: Callable[[], Stored | Boxes] = field(compare=False)


@dataclass(frozen=True)
class Entry:
    """One name of the training state.

    Args:
        name: global name.
        component: the design's word for what it belongs to.
        dtype: torch dtype, or a kind of plain value.
        shape: global shape.
        parts: boxes that make it up; empty when ``data`` holds the value itself.
        copies: further boxes that must equal a part (replicas saved by several ranks).
        per_rank: holds one rank's own state, which has no counterpart in another layout.
        key: its name inside its file; empty where the name is all there is.
        file: the file that it lies in, relative to the checkpoint; empty for what is spread over several.
        reason: why it is not read, where it is not.
        spots: where a plain value lies, or each number of a list; only while :func:`placed.placing` is on.
    """

    name: str
    component: str
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...] = ()
    data: bytes | None = None
    copies: tuple[Part, ...] = ()
    per_rank: bool = False
    key: str = ""
    file: str = ""
    reason: str = ""
    spots: tuple[Spot, ...] = field(default=(), compare=False)

    @property
    def unread_file(self) -> str:
        """The file of which nothing could be read, where this stands for one; else empty."""
        return self.file if self.dtype == UNREAD and not self.key else ""

    @property
    def numel(self) -> int:
        """Elements of the global tensor."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the global tensor."""
        return self.numel * itemsize(self.dtype)

    @property
    def order(self) -> tuple[str, int]:
        """Where on the disk it begins."""
        return min((part.order for part in self.parts), default=("", 0))

    @property
    def plain(self) -> Plain:
        """What kind of plain value it is; empty for a tensor, an array, a file of bytes."""
        if self.data is None or self.dtype in ITEMSIZE:
            return ""
        if self.dtype.startswith("Python") and self.shape:
            return "list"
        return "float" if self.dtype == "Python float" else "value"

    def named(self, name: str) -> Entry:
        """The same under another name."""
        return replace(self, name=name)

    def without_words(self, places: tuple[int, ...]) -> Entry:
        """A text with other words at some places, from 0; a list with other elements."""
        if self.plain == "list" and self.data is not None:
            size = itemsize(self.dtype)
            held = bytearray(self.data)
            for place in places:
                held[place * size : (place + 1) * size] = bytes(size)
            return replace(self, data=bytes(held[: len(self.data)]))
        text = (self.data or b"").decode("utf-8", "surrogatepass")
        data = without_words(text, places).encode("utf-8", "surrogatepass")
        return replace(self, data=data, shape=(len(data),))

    def incomplete(self) -> str:
        """What is wrong with how the parts cover the tensor; empty when nothing is."""
        if self.data is not None:
            return ""
        covered = sum(math.prod(part.sizes) for part in self.parts)
        if covered < self.numel:
            return f"{self.numel - covered} of {self.numel} elements are in no file"
        if covered > self.numel or (len(self.parts) <= 256 and self._overlapping()):
            return "its parts overlap"
        return ""

    def _overlapping(self) -> bool:
        boxes = [(p.offsets, p.sizes) for p in self.parts]
        return any(
            all(a < b + m and b < a + n for a, n, b, m in zip(o1, n1, o2, n2, strict=True))
            for i, (o1, n1) in enumerate(boxes)
            for o2, n2 in boxes[:i]
        )


def unread(file: str, component: str, reason: str) -> Entry:
    """What stands for a file that cannot be read."""
    return Entry(file, component, UNREAD, (), file=file, reason=reason)


def alone(entry: Entry, part: Part) -> Entry:
    """One part of an entry as a tensor of its own."""
    local = replace(part, offsets=(0,) * len(part.sizes))
    return replace(entry, shape=part.sizes, parts=(local,), copies=(), data=None)


def original(entry: Entry, copy: Part) -> Part:
    """What a copy is a copy of."""
    return next(p for p in entry.parts if (p.offsets, p.sizes) == (copy.offsets, copy.sizes))


@dataclass(frozen=True)
class Block:
    """Rows ``[start, stop)`` of dimension ``len(lead)``, at fixed indices ``lead`` before it."""

    lead: tuple[int, ...]
    start: int
    stop: int


def blocks(shape: tuple[int, ...], item: int, limit: int = BLOCK_BYTES) -> Iterator[Block]:
    """Cut a tensor into blocks of at most ``limit`` bytes, in row-major order."""
    shape = shape or (1,)
    if 0 in shape:
        return
    dim = 0
    while dim < len(shape) - 1 and math.prod(shape[dim + 1 :]) * item > limit:
        dim += 1
    rows = max(1, limit // (math.prod(shape[dim + 1 :]) * item))
    for index in range(math.prod(shape[:dim])):
        lead, rest = [], index
        for size in reversed(shape[:dim]):
            rest, here = divmod(rest, size)
            lead.append(here)
        for start in range(0, shape[dim], rows):
            yield Block(tuple(reversed(lead)), start, min(start + rows, shape[dim]))


def bits_dtype(item: int) -> Any:  # noqa: ANN401 - numpy's dtype, without importing it here
    """The numpy dtype in which elements of ``item`` bytes are moved about unchanged."""
    import numpy as np

    return np.dtype({1: "u1", 2: "<u2", 4: "<u4", 8: "<u8", 16: "<c16"}[item])


class Reader:
    """Reads blocks; keeps a few files open. Use as a context manager."""

    def __init__(self, limit: int = 32) -> None:
        self._limit = limit
        self._open: OrderedDict[Path, int] = OrderedDict()
        self.bytes_read = 0

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def _descriptor(self, path: Path) -> int:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        if len(self._open) >= self._limit:
            os.close(self._open.popitem(last=False)[1])
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as cause:
            raise CheckpointError(f"{path}: cannot be read: {cause.strerror}") from cause
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        self._open[path] = descriptor
        return descriptor

    def read_into(self, path: Path, position: int, target: Bits) -> None:
        """Fill a contiguous array from a file.

        Raises:
            CheckpointError: the file ends too early.
        """
        view = memoryview(target.reshape(-1).view("u1"))  # type: ignore[arg-type]
        descriptor, done = self._descriptor(path), 0
        while done < len(view):
            count = os.preadv(descriptor, [view[done:]], position + done)
            if count <= 0:
                raise CheckpointError(
                    f"{path}: ends at byte {position + done}, expected {position + len(view)}", _TORN
                )
            done += count
        self.bytes_read += done

    def fill(self, entry: Entry, block: Block, out: Bits) -> None:
        """Assemble a block of a complete entry into ``out``, shaped ``[rows, …]`` of its bits."""
        if entry.data is not None:
            import numpy as np

            whole = np.frombuffer(entry.data, out.dtype).reshape(entry.shape or (1,))
            out[...] = whole[block.lead][block.start : block.stop]
            return
        depth = len(block.lead)
        for part in entry.parts:
            offsets, sizes = part.offsets or (0,), part.sizes or (1,)
            if any(
                not o <= i < o + n for i, o, n in zip(block.lead, offsets[:depth], sizes[:depth], strict=True)
            ):
                continue
            low = max(block.start, offsets[depth])
            high = min(block.stop, offsets[depth] + sizes[depth])
            if low >= high or 0 in sizes[depth + 1 :]:
                continue
            lead = tuple(i - o for i, o in zip(block.lead, offsets[:depth], strict=True))
            columns = tuple(
                slice(o, o + n) for o, n in zip(offsets[depth + 1 :], sizes[depth + 1 :], strict=True)
            )
            target = out[(slice(low - block.start, high - block.start), *columns)]
            start = (*lead, low - offsets[depth], *(0 for _ in columns))
            self._box(part.open(), start, target)

    def _box(self, stored: Stored | Boxes, start: tuple[int, ...], target: Bits) -> None:
        """Copy the box of ``target``'s shape at ``start`` of a stored tensor (leading 1s dropped)."""
        import numpy as np

        if not isinstance(stored, Stored):
            sizes = (1,) * (len(start) - target.ndim) + target.shape
            found = np.ascontiguousarray(stored.box(start, sizes))
            target[...] = found.view(target.dtype).reshape(target.shape)
            self.bytes_read += target.nbytes
            return
        strides = stored.strides or (1,)
        origin = sum(i * s for i, s in zip(start, strides, strict=True))
        position = stored.position + origin * stored.itemsize
        if stored.contiguous:
            # Whole rows of the stored part: one run of bytes.
            if target.flags.c_contiguous:
                self.read_into(stored.path, position, target)
            else:
                rows = np.empty(target.shape, target.dtype)
                self.read_into(stored.path, position, rows)
                target[...] = rows
            return
        self._strided(stored, position, strides[len(strides) - target.ndim :], target)

    def _strided(self, stored: Stored, position: int, strides: tuple[int, ...], target: Bits) -> None:
        import numpy as np

        span = 1 + sum((n - 1) * s for n, s in zip(target.shape, strides, strict=True))
        if span * stored.itemsize > 16 * BLOCK_BYTES and target.size > 1:
            dim = max(range(target.ndim), key=lambda d: (target.shape[d] - 1) * strides[d])
            half = target.shape[dim] // 2
            for low, high in ((0, half), (half, target.shape[dim])):
                piece = target[(slice(None),) * dim + (slice(low, high),)]
                at = position + low * strides[dim] * stored.itemsize
                self._strided(stored, at, strides, piece)
            return
        run = np.empty(span, target.dtype)
        self.read_into(stored.path, position, run)
        steps = tuple(s * stored.itemsize for s in strides)
        target[...] = np.lib.stride_tricks.as_strided(run, target.shape, steps)

    def stream(self, entry: Entry, limit: int = BLOCK_BYTES) -> Iterator[tuple[Block, Bits]]:
        """All blocks of an entry in order. The array is reused from block to block.

        Raises:
            CheckpointError: parts are missing or overlap, or a file is torn.
        """
        problem = entry.incomplete()
        if problem:
            raise CheckpointError(f"{entry.name}: {problem}", "the checkpoint is incomplete")
        buffer = Buffer()
        for block in blocks(entry.shape, itemsize(entry.dtype), limit):
            yield block, self.block(entry, block, buffer)

    def block(self, entry: Entry, block: Block, buffer: Buffer) -> Bits:
        """One block of a complete entry, shaped ``[rows, …]``, in the memory of ``buffer``.

        Raises:
            CheckpointError: a file is torn.
        """
        shape = entry.shape or (1,)
        out = buffer.shaped(
            (block.stop - block.start, *shape[len(block.lead) + 1 :]), bits_dtype(itemsize(entry.dtype))
        )
        self.fill(entry, block, out)
        return out


class Buffer:
    """Memory that is used again from block to block, as large as the largest so far."""

    def __init__(self) -> None:
        self._bytes: NDArray[Any] | None = None

    def shaped(self, shape: tuple[int, ...], kind: np.dtype[Any]) -> Bits:
        """An array in this memory; what it held is lost."""
        import numpy as np

        size = math.prod(shape) * kind.itemsize
        if self._bytes is None or self._bytes.size < size:
            self._bytes = np.empty(size, "u1")
        return self._bytes[:size].view(kind).reshape(shape)
