"""A pickle looked over before it is read: five bytes of it may ask for more memory than there is.

The unpickler numbers what it has read as the pickle says, and makes room for every number up to that; and one
byte makes an object of hundreds.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from harness.checkpoints.inert import Refused

#: More containers in one pickle are no training state.
OBJECTS_LIMIT = 16_000_000
#: Nor are more values that are used twice.
NUMBERS_LIMIT = 1 << 26
#: Bytes that make an object each: lists, tables, sets, tuples, instances, calls.
_MAKING = b"]}\x8f\x85\x86\x87\x81R"
_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_STOP, _PUT, _LONG_PUT = ord("."), ord("p"), ord("r")
_DIGITS = 12


@cache
def _table() -> tuple[re.Pattern[bytes], dict[int, int]]:
    """Runs of operations whose size is known, and how many bytes the length of each other has."""
    fixed: dict[int, list[bytes]] = {}
    lines: dict[int, list[bytes]] = {1: [], 2: []}
    counted: dict[int, int] = {}
    for op in pickletools.opcodes:
        code = op.code.encode("latin1")
        if code[0] in (_STOP, _PUT, _LONG_PUT):
            continue
        if op.arg is None:
            fixed.setdefault(0, []).append(code)
        elif op.arg.n >= 0:
            fixed.setdefault(op.arg.n, []).append(code)
        elif op.arg.n == pickletools.UP_TO_NEWLINE:
            lines[2 if op.arg.name.endswith("pair") else 1].append(code)
        else:
            counted[code[0]] = _LENGTHS[op.arg.n]
    parts = [_one_of(codes) + b"." * n for n, codes in fixed.items()]
    parts += [_one_of(codes) + rb"[^\n]*\n" * n for n, codes in lines.items()]
    parts.append(rb"r..\x00\x00")  # as most are
    run = b"(?:" + b"|".join(parts) + b"){1,1000}"
    return re.compile(run, re.DOTALL), counted


def _one_of(codes: Iterable[bytes]) -> bytes:
    return b"[" + b"".join(map(re.escape, codes)) + b"]"


def look_over(data: Any, start: int = 0) -> None:  # noqa: ANN401 - bytes, or a file as bytes
    """Check what one pickle, from ``start`` to its end, asks for.

    Raises:
        Refused: more than any training state does.
    """
    run, counted = _table()
    size, at = len(data), start
    while at < size:
        if found := run.match(data, at):
            at = found.end()
            continue
        code = data[at]
        if code in counted:
            width = counted[code]
            length = int.from_bytes(data[at + 1 : at + 1 + width], "little")
            at += 1 + width + length
        elif code == _LONG_PUT:
            _number(int.from_bytes(data[at + 1 : at + 5], "little"), size)
            at += 5
        elif code == _PUT:
            end = data.find(b"\n", at)
            text = bytes(data[at + 1 : end])
            _number(int(text) if text.isdigit() and len(text) < _DIGITS else size, size)
            at = end + 1 if end > 0 else size
        else:
            break  # the end, or nothing that the unpickler knows
    made = data[start : min(at, size)]
    if len(made) > OBJECTS_LIMIT and sum(made.count(bytes([code])) for code in _MAKING) > OBJECTS_LIMIT:
        raise Refused(f"more than {OBJECTS_LIMIT} objects")


def _number(index: int, size: int) -> None:
    if index >= min(size, NUMBERS_LIMIT):
        raise Refused(f"room for {index} values in {size} bytes")
