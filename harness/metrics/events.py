"""TensorBoard event files: record frames with checksums, and the scalars in them.

A record is ``uint64 length, uint32 crc of it, data, uint32 crc of the data``, little-endian, with the CRC-32C
masked as TFRecord files do. The data is a protobuf ``Event``, of which a few fields are needed: reading those
here costs a tenth of importing TensorBoard (0.3 s).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from harness.errors import MetricsError
from harness.metrics.series import Series

_FRAME = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8
#: TensorFlow's numbers of types → how its bytes are read, and the field with its values.
_SCALAR_TYPES = {
    1: ("<f", 5), 2: ("<d", 6), 3: ("<i", 7), 4: ("<B", 7), 5: ("<h", 7), 6: ("<b", 7), 9: ("<q", 10),
    10: ("<?", 11), 14: ("bfloat16", 13), 17: ("<H", 7), 19: ("<e", 13), 22: ("<I", 16), 23: ("<Q", 17),
}  # fmt: skip
_HALVES = ("bfloat16", "<e")
#: A tag that a writer of ``add_hparams`` leaves; its scalars sum up the run that it lies in.
_HPARAMS = b"_hparams_/session_start_info"
#: Folders that one training logs the same tags into, beside each other, as Keras does.
_ROLES = frozenset(("train", "training", "val", "valid", "validation", "eval", "evaluation", "test", "dev"))
_FLOAT = struct.Struct("<f")
_DOUBLE = struct.Struct("<d")


@dataclass
class _Scalars:
    """Steps and values of a tag, as logged."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, other: _Scalars) -> None:
        """What was logged afterwards."""
        self.steps += other.steps
        self.values += other.values

    def purge(self, step: int) -> None:
        """Without what a process that began again at ``step`` has said it logs anew."""
        kept = [i for i, known in enumerate(self.steps) if known < step]
        self.steps, self.values = [self.steps[i] for i in kept], [self.values[i] for i in kept]


@dataclass(frozen=True)
class _EventFile:
    """What a file holds.

    Args:
        folder: where it lies.
        began: the clock of its first event.
        scalars: by tag.
        purged: the step from which on the process that wrote it takes back what was logged before it.
        sums_up: it has the parameters of a run, and its scalars are that run's last ones.
    """

    folder: Path
    began: float
    scalars: dict[str, _Scalars]
    purged: int | None = None
    sums_up: bool = False


def files(folder: Path) -> list[Path]:
    """All event files under ``folder``, by name: their names begin with the second they were begun."""
    return sorted((p for p in folder.rglob("*tfevents*") if p.is_file()), key=lambda p: (p.name, p))


def is_event_file(path: Path) -> bool:
    """Whether a file's name and its first record say that it is one."""
    if "tfevents" not in path.name:
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_FRAME.size)
    except OSError:
        return False
    if len(head) < _FRAME.size:
        return not head  # a writer has opened it, and written nothing
    length, checksum = _FRAME.unpack(head)
    return bool(length) and masked_crc(head[:8]) == checksum


def read(paths: Sequence[Path], *, killed: bool, notes: list[str] | None = None) -> dict[str, Series]:
    """Every scalar of the event files, files in the order they were begun.

    ``simple_value`` and scalar ``tensor`` values count; a float32 stays the number that it is. The runs that
    one process logs beside each other are series of their own: those of ``add_scalars`` as ``tag/key``, those
    in folders like ``train`` and ``validation`` as ``folder/tag``, those of ``add_hparams`` as
    ``hparams/tag``, at the last step of the others where they were logged without one.

    Args:
        paths: the files.
        killed: leave out a last record that was torn by a kill.
        notes: no matter here: pictures and texts are nobody's curves.

    Raises:
        MetricsError: a record is torn or corrupted.
    """
    del notes
    # Two processes may begin a file in the same second; the first event's clock tells which was first.
    inside = sorted((_read_file(path, killed=killed) for path in paths), key=lambda one: one.began)
    folders: dict[Path, dict[str, _Scalars]] = {}
    summaries: dict[str, _Scalars] = {}
    for one in inside:
        # Where nothing lies above it, it is a logger's own file that has the parameters too.
        sums_up = one.sums_up and any(other.folder in one.folder.parents for other in inside)
        there = folders.setdefault(one.folder, {})
        for scalars in there.values() if one.purged is not None else ():
            scalars.purge(one.purged or 0)
        for tag, scalars in one.scalars.items():
            name = f"hparams/{tag}" if sums_up else tag
            (summaries if sums_up else there).setdefault(name, _Scalars()).add(scalars)
    found: dict[str, _Scalars] = {}
    for folder, scalars_of in folders.items():
        for tag, scalars in scalars_of.items():
            found.setdefault(_name(tag, folder, folders), _Scalars()).add(scalars)
    last = max((step for scalars in found.values() for step in scalars.steps), default=0)
    for name, scalars in summaries.items():
        steps = [step if step > 0 else last for step in scalars.steps]
        found.setdefault(name, _Scalars()).add(_Scalars(steps, scalars.values))
    return {tag: Series.of(tag, s.steps, s.values) for tag, s in found.items() if s.steps}


def _name(tag: str, folder: Path, folders: Mapping[Path, Mapping[str, _Scalars]]) -> str:
    """The series of a tag: the tag itself, unless another run beside it has the same one."""
    start = tag.replace("/", "_") + "_"
    for at in range(len(folder.parts) - 1, -1, -1):
        part = folder.parts[at]
        above = any(len(other.parts) <= at for other in folders)  # the writer whose add_scalars it was
        if above and part.startswith(start) and part != start:
            return "/".join((tag, part[len(start) :], *folder.parts[at + 1 :]))
    others = [other for other in folders if other != folder]
    role = next((part for part in reversed(folder.parts) if part.lower() in _ROLES), None)
    if role is not None and any(_beside(folder, other) for other in others):
        return f"{role}/{tag}"
    steps = set(folders[folder][tag].steps)
    if any(tag in folders[other] and not steps.isdisjoint(folders[other][tag].steps) for other in others):
        common = Path(os.path.commonpath((folder, *others)))
        within = folder.relative_to(common).as_posix()
        return tag if within == "." else f"{within}/{tag}"
    return tag


def _beside(one: Path, other: Path) -> bool:
    """Whether two folders differ in one name, and both names are of what one training has several of."""
    if len(one.parts) != len(other.parts):
        return False
    apart = [(a, b) for a, b in zip(one.parts, other.parts, strict=True) if a != b]
    return len(apart) == 1 and all(name.lower() in _ROLES for name in apart[0])


def _read_file(path: Path, *, killed: bool) -> _EventFile:
    """Read an event file to its end.

    Args:
        path: the file.
        killed: leave out a last record that does not end.

    Raises:
        MetricsError: a record that is torn or whose checksum is not that of its bytes, with its offset.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MetricsError(f"{path}: cannot be read: {error.strerror or error}") from error
    spans = _frames(path, data, killed=killed)
    _verify(path, data, spans)
    began, found = float("inf"), dict[str, _Scalars]()
    purged: int | None = None
    sums_up = False
    for start, size in spans:
        try:
            clock, step, scalars, restarted, parameters = _event(data[start : start + size])
        except (_MalformedError, IndexError, struct.error, UnicodeDecodeError):
            raise _broken(path, start, "does not hold an event") from None
        began = min(began, clock)
        sums_up = sums_up or parameters
        if restarted:
            for known in found.values():
                known.purge(step)
            purged = step if purged is None else min(purged, step)
        for tag, number in scalars:
            if tag not in found:
                found[tag] = _Scalars()
            found[tag].steps.append(step)
            found[tag].values.append(number)
    return _EventFile(path.parent, began, found, purged, sums_up)


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
    for start, size in spans:
        end = start + size
        if masked_crc(data[start:end]) != _CHECKSUM.unpack_from(data, end)[0]:
            raise _broken(path, start, "has data whose checksum does not match")


def masked_crc(data: bytes) -> int:
    """TFRecord's checksum of some bytes."""
    crc = _crc32c()(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


@lru_cache(maxsize=1)
def _crc32c() -> Callable[[bytes], int]:
    from google_crc32c import value  # not when the module is imported: most commands read no event file

    found: Callable[[bytes], int] = value
    return found


# -- protobuf --------------------------------------------------------------------------------------


class _MalformedError(Exception):
    """Never leaves this module."""


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and content of each field of a message; fixed-size numbers as their bytes."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 2, 5):
            size = 8 if kind == 1 else 4
            if kind == 2:
                size, at = _varint(data, at)
            value = data[at : at + size]
            at += size
        else:
            raise _MalformedError
        if at > end:
            raise _MalformedError
        yield key >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 128:
        return byte, at + 1
    result, shift = byte & 127, 7
    while byte >= 128:
        at += 1
        if shift > 63:
            raise _MalformedError
        byte = data[at]
        result |= (byte & 127) << shift
        shift += 7
    return result, at + 1


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise _MalformedError
    return value


def _signed(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise _MalformedError
    return value - (1 << 64) if value >= 1 << 63 else value


def _event(data: bytes) -> tuple[float, int, list[tuple[str, float]], bool, bool]:
    """Wall time, step, tag and number of each scalar; whether a process began again; whether parameters."""
    clock, step, scalars = 0.0, 0, list[tuple[str, float]]()
    restarted = parameters = False
    for number, value in _fields(data):
        if number == 1:
            (clock,) = _DOUBLE.unpack(_bytes(value))
        elif number == 2:
            step = _signed(value)
        elif number == 5:
            for inner, content in _fields(_bytes(value)):
                if inner == 1 and (scalar := _value(_bytes(content))):
                    scalars.append(scalar)
                elif inner == 1 and _HPARAMS in _bytes(content):
                    parameters = True
        elif number == 7:  # a SessionLog, whose first status is that it started
            restarted = dict(_fields(_bytes(value))).get(1) == 1
    return clock, step, scalars, restarted, parameters


def _value(data: bytes) -> tuple[str, float] | None:
    """Tag and number of a ``Summary.Value``; None for anything else than a scalar."""
    size = data[1] if len(data) > 1 else 0
    if size < 128 and len(data) == size + 7 and data[0] == 0x0A and data[-5] == 0x15:
        # A short tag and a simple value, as nearly all are: the same without the loop.
        return data[2:-5].decode(), _FLOAT.unpack_from(data, size + 3)[0]
    tag, found = "", None
    for number, value in _fields(data):
        if number == 1:
            tag = _bytes(value).decode()
        elif number == 2:
            (found,) = _FLOAT.unpack(_bytes(value))
        elif number == 8:
            found = _scalar(_bytes(value))
    return None if found is None else (tag, found)


def _scalar(data: bytes) -> float | None:
    """The number of a ``TensorProto`` that is one; None for others (images, texts, histograms)."""
    fields = dict(_fields(data))
    kind, field_of_values = _SCALAR_TYPES.get(_signed(fields.get(1, 0)), ("", 0))
    if not kind:
        return None
    for number, dimension in _fields(_bytes(fields.get(2, b""))):
        if number == 2 and _signed(dict(_fields(_bytes(dimension))).get(1, 0)) != 1:
            return None
    raw = _bytes(fields.get(4, b""))
    if not raw:
        values = fields.get(field_of_values, b"")
        if kind in ("<f", "<d"):
            raw = _bytes(values) or bytes(8)
        else:  # packed or not, a whole number of up to 64 bits
            whole = _signed(values if isinstance(values, int) else _varint(values, 0)[0] if values else 0)
            if kind == "<Q":
                return whole % (1 << 64)
            if kind not in _HALVES:
                return whole
            raw = struct.pack("<H", whole & 0xFFFF)
    if kind == "bfloat16":
        kind, raw = "<f", bytes(2) + raw[:2]
    found: float = struct.unpack_from(kind, raw)[0]
    return found  # a whole one as it is: not all of 64 bits are a float
