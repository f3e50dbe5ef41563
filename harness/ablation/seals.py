"""Checksums inside archives, kept true where a member was altered."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from typing import IO, Any, cast

from harness.checkpoints.archives import ZIP_ERRORS, Window
from harness.errors import CheckpointError

_START, _DESCRIPTOR, _ENTRY = b"PK\x03\x04", b"PK\x07\x08", b"PK\x01\x02"
_CRC_OF_HEADER, _CRC_OF_ENTRY = 14, 16
_PIECE = 1 << 20


def seal(held: Any, slices: Iterable[tuple[int, int]], touched: Sequence[tuple[int, int]]) -> None:  # noqa: ANN401
    """Write the checksums of the members that were altered.

    Args:
        held: a file as writable bytes.
        slices: (first byte, length) of what may be an archive.
        touched: (first byte, end) of what was altered.

    Raises:
        CheckpointError: an archive is damaged.
    """
    for start, length in slices:
        inside = [(low, high) for low, high in touched if low < start + length and high > start]
        if inside and held[start : start + 4] == _START:
            _archive(held, start, length, inside)


def _archive(held: Any, start: int, length: int, touched: Sequence[tuple[int, int]]) -> None:  # noqa: ANN401
    window = Window(cast("IO[bytes]", _Held(held)), start, length)
    try:
        with zipfile.ZipFile(window) as archive:
            infos = archive.infolist()
            directory = start + archive.start_dir
    except ZIP_ERRORS as cause:
        raise CheckpointError(f"an archive at byte {start} is damaged ({cause})") from cause
    entries = _entries(held, directory, len(infos))
    for info, entry in zip(infos, entries, strict=True):
        header = start + info.header_offset
        name, extra = struct.unpack("<HH", held[header + 26 : header + 30])
        first = header + 30 + name + extra
        end = first + info.compress_size
        if info.compress_type != zipfile.ZIP_STORED or not any(a < end and b > first for a, b in touched):
            continue
        if held[first : first + 4] == _START:
            _archive(held, first, info.compress_size, touched)
        crc, at = 0, first
        while at < end:
            crc = zlib.crc32(held[at : min(end, at + _PIECE)], crc)
            at += _PIECE
        written = struct.pack("<I", crc)
        held[entry + _CRC_OF_ENTRY : entry + _CRC_OF_ENTRY + 4] = written
        if not info.flag_bits & 8:
            held[header + _CRC_OF_HEADER : header + _CRC_OF_HEADER + 4] = written
        elif held[end : end + 4] == _DESCRIPTOR:
            held[end + 4 : end + 8] = written
            if held[header + _CRC_OF_HEADER : header + _CRC_OF_HEADER + 4] != bytes(4):
                held[header + _CRC_OF_HEADER : header + _CRC_OF_HEADER + 4] = written


def _entries(held: Any, at: int, count: int) -> list[int]:  # noqa: ANN401
    """Where each entry of the directory begins."""
    found = []
    for _ in range(count):
        if held[at : at + 4] != _ENTRY:
            raise CheckpointError(f"an archive has no directory at byte {at}")
        found.append(at)
        at += 46 + sum(struct.unpack("<HHH", held[at + 28 : at + 34]))
    return found


class _Held(io.RawIOBase):
    """Bytes as a file, for :class:`Window`."""

    def __init__(self, held: Any) -> None:  # noqa: ANN401
        self._held, self._at = held, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = (0, self._at, len(self._held))[whence] + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = len(self._held) if size < 0 else self._at + size
        data = bytes(self._held[self._at : stop])
        self._at += len(data)
        return data
