"""TensorBoard event files: record frames with checksums, and the scalars in them.

A record is ``uint64 length, uint32 crc of it, data, uint32 crc of the data``, little-endian, with the
CRC-32C masked as TFRecord files do. The checksums of all records are computed side by side, byte by byte.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import MetricsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FRAME = struct.Struct("<QI")
_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
#: TensorFlow's numbers of types → numpy's, and the field with the values.
_SCALAR_TYPES = {
    1: ("<f4", "float_val"),
    2: ("<f8", "double_val"),
    3: ("<i4", "int_val"),
    9: ("<i8", "int64_val"),
    19: ("<f2", ""),
    14: ("bfloat16", ""),
}


@dataclass
class Scalars:
    """Steps and values of a tag, as logged."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class EventFile:
    """The clock of a file's first event, and its scalars by tag."""

    began: float
    scalars: dict[str, Scalars]


def read_events(path: Path, *, killed: bool) -> EventFile:
    """Read an event file to its end.

    Args:
        path: the file.
        killed: leave out a last record that does not end.

    Raises:
        MetricsError: a record that is torn or whose checksum is not that of its bytes, with its offset.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    try:
        data = path.read_bytes()
    except OSError as error:
        raise MetricsError(f"{path}: cannot be read: {error.strerror or error}") from error
    spans = _frames(path, data, killed=killed)
    _verify(path, data, spans)
    began, found = float("inf"), dict[str, Scalars]()
    event = Event()
    for start, size in spans:
        try:
            event.ParseFromString(data[start : start + size])
        except DecodeError as error:
            raise _broken(path, start, "does not hold an event") from error
        began = min(began, event.wall_time)
        step = event.step
        for value in event.summary.value:
            which = value.WhichOneof("value")
            number = value.simple_value if which == "simple_value" else None
            if which == "tensor":
                number = _scalar(value.tensor)
            if number is not None:
                tag = value.tag
                if tag not in found:
                    found[tag] = Scalars()
                scalars = found[tag]
                scalars.steps.append(step)
                scalars.values.append(number)
    return EventFile(began, found)


def _broken(path: Path, start: int, what: str) -> MetricsError:
    return MetricsError(
        f"{path}: the record at byte {start - _FRAME.size} {what}, expected a whole one",
        "the file was cut or changed after it was written: run the phase again",
    )


def _frames(path: Path, data: bytes, *, killed: bool) -> list[tuple[int, int]]:
    """Start and size of each record's data."""
    spans, at, end = [], 0, len(data)
    while at < end:
        start = at + _FRAME.size
        if start > end:
            if killed:
                break
            raise _broken(path, start, f"ends after {end - at} bytes, inside its head")
        size, checksum = _FRAME.unpack_from(data, at)
        if checksum != masked_crc(data[at : at + 8]):
            raise _broken(path, start, "has a length whose checksum does not match")
        if start + size + 4 > end:
            if killed:
                break
            raise _broken(path, start, f"ends after {end - start} of {size + 4} bytes")
        spans.append((start, size))
        at = start + size + 4
    return spans


def _verify(path: Path, data: bytes, spans: list[tuple[int, int]]) -> None:
    import numpy as np

    if not spans:
        return
    found = np.frombuffer(data, np.uint8)
    starts, sizes = np.array(spans, np.int64).T
    computed = _checksums(found, starts, sizes)
    ends = starts + sizes
    said = found[ends[:, None] + np.arange(4)].view("<u4")[:, 0]
    wrong = np.flatnonzero(computed != said)
    if wrong.size:
        raise _broken(path, int(starts[wrong[0]]), "has data whose checksum does not match")


def _checksums(
    data: NDArray[np.uint8], starts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.uint32]:
    """Masked CRC-32C of each span; one pass over the bytes of the longest, for all spans at once."""
    import numpy as np

    table = _table()
    order = np.argsort(-sizes, kind="stable")
    at, left = starts[order], sizes[order]
    crc = np.full(len(order), 0xFFFFFFFF, np.uint32)
    # Longest first: those that still have a byte at `offset` are a prefix.
    alive = np.searchsorted(-left, -np.arange(int(left[0])), side="left").tolist()
    for offset, count in enumerate(alive):
        now = crc[:count]
        crc[:count] = table[(now ^ data[at[:count] + offset]) & 0xFF] ^ (now >> np.uint32(8))
    crc ^= np.uint32(0xFFFFFFFF)
    masked = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(_MASK_DELTA)
    result = np.empty_like(masked)
    result[order] = masked
    return result


def masked_crc(data: bytes) -> int:
    """TFRecord's checksum of a few bytes."""
    table, crc = _python_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


@lru_cache(maxsize=1)
def _python_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint32]:
    import numpy as np

    return np.array(_python_table(), np.uint32)


def _scalar(tensor: Any) -> float | None:  # noqa: ANN401 - a protobuf message
    """The number of a scalar tensor; None for anything else (images, texts, histograms)."""
    import numpy as np

    if tensor.dtype not in _SCALAR_TYPES or any(d.size != 1 for d in tensor.tensor_shape.dim):
        return None
    kind, name = _SCALAR_TYPES[tensor.dtype]
    content = tensor.tensor_content
    if kind == "bfloat16":
        raw = content or struct.pack("<H", tensor.half_val[0] if tensor.half_val else 0)
        return float(np.frombuffer(b"\0\0" + raw, "<f4")[0])
    if content:
        return float(np.frombuffer(content, kind)[0])
    if not name:
        raw = struct.pack("<H", tensor.half_val[0] if tensor.half_val else 0)
        return float(np.frombuffer(raw, kind)[0])
    values = getattr(tensor, name)
    return float(values[0]) if values else 0.0
