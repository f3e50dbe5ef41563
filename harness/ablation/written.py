"""Plain values as they are written in a file: the bytes of another one in their place."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

from harness.ablation.values import alter, is_order, is_words
from harness.checkpoints.entries import Entry
from harness.checkpoints.inert import ITEMSIZE
from harness.checkpoints.placed import Spot

#: A digit that stands first in a float, and another that is not its double or half and keeps 0.9 below 1.
_FIRST = dict(zip("123456789", "352719468", strict=True))
_PART = re.compile(r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\U[0-9a-fA-F]{8}|\\.|.", re.DOTALL)
_UNKNOWN = "where in the file it lies is not known"
_WORDS = {b"true": b"false", b"false": b"true"}
#: What a random stream says of itself beside its words.
_KINDS = (b"MT19937", b"PCG64", b"PCG64DXSM", b"Philox", b"SFC64")


class Unalterable(Exception):
    """A value that cannot be altered; says why."""


def edits(entry: Entry, held: Sequence[bytes]) -> list[bytes]:
    """What stands in a file in the place of a value.

    Args:
        held: what stands there now, at each of its spots.

    Raises:
        Unalterable: nothing can.
    """
    if not entry.spots:
        raise Unalterable(_nothing(entry))
    for spot in entry.spots:
        if spot.fixed:
            raise Unalterable(spot.fixed)
    if entry.data in _KINDS:
        raise Unalterable("it says of which kind a random stream is")
    codes = [spot.code for spot in entry.spots]
    if codes[0] in ("bytes", "latin1") and len(codes) == 1:
        return [_array(entry, codes[0], held[0])]
    if entry.dtype == "Python int" and len(entry.shape) == 1 and entry.data:
        return _list(entry.data, entry.spots, held)
    return [_one(spot.code, each) for spot, each in zip(entry.spots, held, strict=True)]


def _nothing(entry: Entry) -> str:
    if entry.dtype == "None":
        return "it is None: there is no value to alter"
    if entry.dtype.startswith("empty") or not entry.data:
        return "it is empty: there is no value to alter"
    return _UNKNOWN


def _list(data: bytes, spots: Sequence[Spot], held: Sequence[bytes]) -> list[bytes]:
    import numpy as np

    values = np.frombuffer(data, "<i8")
    if is_words(values):
        words = [_one(spot.code, each) for spot, each in zip(spots[:-1], held[:-1], strict=True)]
        return [*words, held[-1]]
    made = list(held)
    if is_order(values):
        last: dict[tuple[str, int], int] = {}  # of those written alike, one that waits for another
        for i, (spot, each) in enumerate(zip(spots, held, strict=True)):
            kind = (spot.code, len(each))
            if kind in last and made[last[kind]] != each:
                other = last.pop(kind)
                made[i], made[other] = made[other], made[i]
            else:
                last[kind] = i
    if made == list(held):
        return [_one(spot.code, each) for spot, each in zip(spots, held, strict=True)]
    return made


def _array(entry: Entry, code: str, held: bytes) -> bytes:
    import numpy as np

    raw = held.decode("utf-8").encode("latin-1") if code == "latin1" else held
    dtype = entry.dtype if entry.dtype in ITEMSIZE else "uint8"
    size = component_size(dtype)
    bits = np.frombuffer(raw, f"<u{size}").copy()
    if reason := alter(dtype, bits, alone=True):
        raise Unalterable(reason)
    made = bits.tobytes()
    made = made.decode("latin-1").encode("utf-8") if code == "latin1" else made
    if len(made) != len(held):
        raise Unalterable("it is written as letters, of which others would take more bytes")
    return made


def component_size(dtype: str) -> int:
    """Bytes of a number of this type; of complex ones, of each of the two."""
    size = ITEMSIZE[dtype]
    return size // 2 if dtype.startswith("complex") else size


def _one(code: str, held: bytes) -> bytes:
    if not held:
        raise Unalterable("it is written in no byte at all" if code == "int" else "it is an empty text")
    if code in ("int", "bool"):
        return bytes([held[0] ^ 1]) + held[1:]
    if code == "float":
        return _float(held)
    if code == "digits":
        return _last_digit(held)
    if code == "number":
        return _number(held)
    if code == "word":
        if held not in _WORDS:
            raise Unalterable("it is null: there is no value to alter")
        return _WORDS[held]
    if code in ("text", "escaped", "json text"):
        return _text(held, escapes=code != "text")
    raise Unalterable(_UNKNOWN)


def _float(held: bytes) -> bytes:
    import numpy as np

    bits = np.frombuffer(held, ">u8").astype("<u8")
    alter("Python float", bits, alone=True)
    return struct.pack(">Q", int(bits[0]))


def _last_digit(held: bytes) -> bytes:
    at = max((i for i, byte in enumerate(held) if chr(byte).isdigit()), default=-1)
    if at < 0:
        raise Unalterable(_UNKNOWN)
    return held[:at] + bytes([held[at] ^ 1]) + held[at + 1 :]


def _number(held: bytes) -> bytes:
    """A number in digits: a float's first digit becomes another, a whole number's last one."""
    text = held.decode("ascii")
    if not any(mark in text for mark in ".eEnN"):
        return _last_digit(held)
    at = next((i for i, letter in enumerate(text) if letter in _FIRST), -1)
    end = min((i for i, letter in enumerate(text) if letter in "eE"), default=len(text))
    if "n" in text.lower():  # an infinite one, or none
        sign = "-" if text.startswith("-") else ""
        return (sign + "1.5" + "0" * (len(text) - len(sign) - 3)).encode()
    if 0 <= at < end:
        return (text[:at] + _FIRST[text[at]] + text[at + 1 :]).encode()
    last = max(i for i, letter in enumerate(text[:end]) if letter == "0")
    point = text.find(".")
    place = point + 1 if 0 <= point < last else last
    return (text[:place] + "1" + text[place + 1 :]).encode()


def _text(held: bytes, *, escapes: bool) -> bytes:
    text = held.decode("utf-8", "surrogateescape")
    parts = _PART.findall(text) if escapes else list(text)
    for i in range(len(parts) - 1, -1, -1):
        letter = parts[i]
        if len(letter) == 1 and letter.isascii() and letter.isalnum():
            base = "0" if letter.isdigit() else "a" if letter.islower() else "A"
            parts[i] = chr(ord(base) + ((ord(letter) - ord(base)) ^ 1))
            return "".join(parts).encode("utf-8", "surrogateescape")
    raise Unalterable("it has no letter and no digit")
