"""JSON whose values know where they lie; for all other purposes the standard library reads it."""

from __future__ import annotations

import json
import re
from typing import Any

from harness.checkpoints.placed import Origin, Spot, place

_BLANK = re.compile(rb"[ \t\n\r]*")
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NUMBER = re.compile(rb"-?(?:\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|Infinity)|NaN")
_WORD = re.compile(rb"true|false|null")
_MARK = b"\xef\xbb\xbf"


def placed_json(held: bytes, origin: Origin) -> Any:  # noqa: ANN401 - untyped by nature
    """What a file of JSON holds.

    Args:
        origin: where ``held`` begins.

    Raises:
        ValueError: not JSON, or not written as UTF-8.
    """
    expected = json.loads(held)  # what is JSON is the library's to say
    if held.startswith(_MARK):
        raise ValueError("it begins with a byte order mark")
    reader = _Reader(held, origin)
    found, end = reader.value(reader.blank(0))
    if found != expected and repr(found) != repr(expected):  # NaN is unequal to itself
        raise ValueError(f"what is written up to byte {end} is not read as the library reads it")
    return found


class _Reader:
    def __init__(self, held: bytes, origin: Origin) -> None:
        self._held, self._origin = held, origin

    def blank(self, at: int) -> int:
        """The end of the blanks there."""
        found = _BLANK.match(self._held, at)
        return found.end() if found else at

    def value(self, at: int) -> tuple[Any, int]:
        """The value that begins there, and where it ends."""
        start = self._held[at : at + 1]
        if start == b"{":
            return self._table(at + 1)
        if start == b"[":
            return self._list(at + 1)
        for pattern, code in ((_TEXT, "json text"), (_NUMBER, "number"), (_WORD, "word")):
            if found := pattern.match(self._held, at):
                value = json.loads(found[0])
                inside = int(pattern is _TEXT)  # without its quotes
                base = self._origin.position
                spot = Spot(self._origin.path, base + at + inside, base + found.end() - inside, code)  # type: ignore[arg-type]
                return place(value, spot), found.end()
        raise ValueError(f"found {self._held[at : at + 20]!r} at byte {at}, expected a value of JSON")

    def _list(self, at: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        at = self.blank(at)
        while self._held[at : at + 1] != b"]":
            value, at = self.value(at)
            found.append(value)
            at = self._next(at)
        return found, at + 1

    def _table(self, at: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        at = self.blank(at)
        while self._held[at : at + 1] != b"}":
            key = _TEXT.match(self._held, at)
            if key is None:
                raise ValueError(f"found {self._held[at : at + 20]!r} at byte {at}, expected a name")
            colon = self.blank(key.end())
            found[json.loads(key[0])], at = self.value(self.blank(colon + 1))
            at = self._next(at)
        return found, at + 1

    def _next(self, at: int) -> int:
        at = self.blank(at)
        return self.blank(at + 1) if self._held[at : at + 1] == b"," else at
