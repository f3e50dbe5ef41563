"""What a pickled thing is called: the same text in every process, and another for every other thing.

A key of a table becomes a part of an entry's name, and the parts of a set are put in order by it: no text may
hold an address or a hash, and 1, ``True``, ``"1"`` and ``1.0`` each have their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from harness.checkpoints.inert import (
    ITEMSIZE,
    Attributed,
    DType,
    Frozen,
    Named,
    NumpyArray,
    Record,
    Refused,
    Storage,
    TensorRef,
    Unknown,
)

#: A name or a set with more parts is no training state but an attack on memory.
PART_LIMIT = 1_000_000
#: Of a longer text, or a number of more bits.
_OF_A_PART, _LONG = 256, 8192

_DTYPES = "|".join(map(re.escape, ITEMSIZE))
#: Texts that a key which is no text has too; in quotes they are told from it.
_ALIKE = re.compile(
    r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?j?|[-+]?(?:inf|nan)j?|None|True|False"
    rf"|{_DTYPES}|[({{\[<'\"].*|b['\"].*|[\w.]+\(.*\)",
    re.DOTALL,
)


def key_text(key: object, said: Callable[[str], str] = str) -> str:
    """A key as a name has it. A text stands for itself, unless another key's text is the same.

    Args:
        said: how a text stands in a name.
    """
    if isinstance(key, str) and not _ALIKE.fullmatch(key) and not key.isdecimal():
        return said(key)
    return said(_Texts("key").of(key))


def text_of(item: object) -> str:
    """The text of anything that a pickle holds.

    Raises:
        Refused: it has more parts than any training state.
    """
    return _Texts("value").of(item)


def ordered(items: list[object]) -> list[object]:
    """In an order that depends on what they are alone.

    Raises:
        Refused: they have more parts than any training state.
    """
    return sorted(items, key=_Texts("set").of)


class _Texts:
    """Makes texts, of so many parts in all.

    Args:
        kind: what they are of, for messages.
    """

    def __init__(self, kind: str) -> None:
        self._kind, self._left = kind, PART_LIMIT

    def of(self, item: object) -> str:
        try:
            return self._of(item)
        except RecursionError as cause:
            raise Refused(f"a {self._kind} that is nested too deeply") from cause

    def _of(self, item: object) -> str:
        self._left -= 1
        if isinstance(item, (str, bytes)):
            self._left -= len(item) // _OF_A_PART
        if self._left < 0:
            raise Refused(f"a {self._kind} of more than {PART_LIMIT} parts")
        if isinstance(item, int) and item.bit_length() > _LONG:
            return hex(item)  # Python writes no number of so many digits
        if item is None or isinstance(item, (str, bytes, int, float, complex)):
            return repr(item)
        if isinstance(item, (bytearray, range)):
            return repr(item)
        if isinstance(item, (Frozen, set, frozenset)):
            return f"{{{', '.join(sorted(map(self._of, item)))}}}"
        if isinstance(item, tuple):
            return f"({', '.join(map(self._of, item))})"
        if isinstance(item, list):
            return f"[{', '.join(map(self._of, item))}]"
        if isinstance(item, Mapping):
            held = sorted(f"{self._of(key)}: {self._of(value)}" for key, value in item.items())
            return f"{{{', '.join(held)}}}"
        return self._inert(item)

    def _inert(self, item: object) -> str:
        if isinstance(item, DType):
            return item.name
        if isinstance(item, Named):
            return f"{item.kind}({item.text})"
        if isinstance(item, type) and issubclass(item, Record):
            return f"<{item.label}>"
        if isinstance(item, NumpyArray):
            return f"{item.label}{self._of(item.state)}"
        if isinstance(item, Record):
            state = "" if item.state is None else self._of(item.state)
            if isinstance(item, Unknown):
                state += "".join(self._of(part) for part in (item.items, tuple(item.pairs)) if part)
            return f"{item.label}({', '.join(map(self._of, item.arguments))}){state}"
        if isinstance(item, TensorRef):
            return f"tensor({item.dtype}, {list(item.sizes)})"
        if isinstance(item, Attributed):
            return self._of(item.value)
        if isinstance(item, Storage):
            return f"storage({item.dtype}, {item.numel})"
        return f"<{getattr(item, 'label', '') or type(item).__name__}>"
