"""Plain values that know where in a file they lie, for whoever alters one of them where it is.

Values are read so only while :func:`placing` is on; they are the same values then, and equal to any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

#: How a value is written: a whole number with its lowest byte first, a float with its highest; one of two
#: bytes that mean true and false; a number in digits; a text as UTF-8, and with escapes; bytes, and bytes as
#: the UTF-8 of a text of as many letters; what JSON has for a number, for true and false, and for a text.
Code = Literal[
    "int", "float", "bool", "digits", "text", "escaped", "bytes", "latin1", "number", "word", "json text"
]  # fmt: skip

#: Of a text that names something else too.
NAMES = "the same text in the file names something else too"
_ON: ContextVar[bool] = ContextVar("placing", default=False)


@dataclass(eq=False)
class Spot:
    """Where a plain value is: bytes ``[start, stop)`` of a file.

    Args:
        fixed: why it must stay as it is; empty where it need not.
    """

    path: Path
    start: int
    stop: int
    code: Code
    fixed: str = ""


@dataclass(frozen=True)
class Origin:
    """Where a stream of values lies: its first byte is byte ``position`` of ``path``."""

    path: Path
    position: int = 0


@contextmanager
def placing() -> Iterator[None]:
    """Within, whatever is read from a file that is not compressed knows where it lies."""
    token = _ON.set(True)
    try:
        yield
    finally:
        _ON.reset(token)


def wanted() -> bool:
    """Whether values are to know where they lie."""
    return _ON.get()


class Placed:
    """A value with its spot."""

    spot: Spot

    def __setstate__(self, state: object) -> None:
        raise TypeError("an assignment to a value")


class PlacedInt(Placed, int):
    """A whole number."""


class PlacedFloat(Placed, float):
    """A float."""


class PlacedStr(Placed, str):  # noqa: SLOT000 - it has a spot, as the others do
    """A text."""


class PlacedBytes(Placed, bytes):
    """Bytes."""


class PlacedBool(Placed, int):
    """True or false, which no class can be made of."""

    def __repr__(self) -> str:
        return repr(bool(self))


_CLASSES: dict[type, type[Placed]] = {
    int: PlacedInt, float: PlacedFloat, str: PlacedStr, bytes: PlacedBytes, bool: PlacedBool,
}  # fmt: skip
_BARE: dict[type, type] = {placed: plain for plain, placed in _CLASSES.items()}


def place(value: Any, spot: Spot) -> Any:  # noqa: ANN401 - whatever it was
    """The same value, which knows where it lies; itself where there is no class for it."""
    made = _CLASSES.get(type(value))
    if made is None:
        return value
    placed: Any = made(value)  # type: ignore[call-arg]
    placed.spot = spot
    return placed


def bare(value: Any) -> Any:  # noqa: ANN401 - whatever it was
    """A value without its spot."""
    plain = _BARE.get(type(value))
    return value if plain is None else plain(value)


def plain_type(value: object) -> type:
    """The type of a value, whether it knows where it lies or not."""
    return _BARE.get(type(value), type(value))


def spots_of(values: Iterable[object]) -> tuple[Spot, ...]:
    """The spots of values; none where one of them does not know where it lies."""
    spots = tuple(value.spot if isinstance(value, Placed) else None for value in values)
    return tuple(spot for spot in spots if spot is not None) if None not in spots else ()


def stripped(value: Any, fixed: str = "", depth: int = 0) -> Any:  # noqa: ANN401 - whatever it was
    """A value, or a nest of plain containers, of which no part knows where it lies.

    Args:
        fixed: why these values must stay as they are.
    """
    if isinstance(value, Placed):
        value.spot.fixed = value.spot.fixed or fixed
        return bare(value)
    if depth < 100:
        if type(value) in (tuple, list):
            found = [stripped(each, fixed, depth + 1) for each in value]
            same = all(one is two for one, two in zip(found, value, strict=True))
            return value if same else type(value)(found)
        if type(value) is dict:
            return {stripped(k, fixed, depth + 1): stripped(v, fixed, depth + 1) for k, v in value.items()}
    return value
