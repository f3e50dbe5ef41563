"""What a file holds, as its types say: msgspec judges; where it refuses, this finds what is wrong there.

msgspec's own message knows neither the key of a mapping nor what stands there, and it speaks of Python's
types. A type can say in words what it expects: ``Annotated[…, Meta(extra={"expected": "a text"})]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from harness.errors import HarnessError

T = TypeVar("T")

_WORDS = {
    str: "a text", bool: "true or false", int: "a whole number", float: "a number", NoneType: "null",
    list: "a list", dict: "an object",
}  # fmt: skip


@dataclass(frozen=True)
class Misfit:
    """The first thing that is not what a type says.

    Args:
        where: keys and places in lists, down to it.
        what: a ``value``; or a key: one that is ``missing``, one that is ``unknown``, or a bad ``name``.
        found: the value; for a key, the key.
        expected: in words.
        keys: those that there are, where one is unknown.
    """

    where: tuple[str | int, ...]
    what: Literal["value", "missing", "unknown", "name"]
    found: Any
    expected: str
    keys: tuple[str, ...] = ()


def fitted(value: object, wanted: type[T], refuse: Callable[[Misfit], HarnessError]) -> T:
    """A tree of plain values as ``wanted``.

    Args:
        refuse: makes an error of what does not fit.

    Raises:
        HarnessError: that error.
    """
    import msgspec

    try:
        return msgspec.convert(value, wanted)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the latter for half a character as a key
        misfit = _misfit(value, wanted, ())
        raise refuse(misfit or Misfit((), "value", value, str(wanted))) from None


def _misfit(value: object, wanted: Any, where: tuple[str | int, ...]) -> Misfit | None:  # noqa: ANN401 - a type
    import msgspec

    try:
        msgspec.convert(value, wanted)
    except (msgspec.ValidationError, UnicodeEncodeError):
        kinds, expected = _unfolded(wanted)
        inside = (found for kind in kinds for found in _inside(value, kind, where))
        return next(inside, Misfit(where, "value", value, expected))
    return None


def _inside(value: object, kind: Any, where: tuple[str | int, ...]) -> Iterator[Misfit]:  # noqa: ANN401 - a type
    """What is wrong below a value that is itself of the right kind."""
    import msgspec

    outer, parts = get_origin(kind), get_args(kind)
    below: list[tuple[str | int, Any, Any]] = []
    if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        if kind.__struct_config__.forbid_unknown_fields:
            for key in value:
                if key not in fields:
                    yield Misfit((*where, key), "unknown", key, "", tuple(fields))
        for name, field in fields.items():
            if name in value:
                below.append((name, value[name], field.type))
            elif field.required:
                yield Misfit((*where, name), "missing", name, _unfolded(field.type)[1])
    elif isinstance(value, dict) and outer is dict:
        for key, item in value.items():
            if misnamed := _misfit(key, parts[0], (*where, key)):
                yield Misfit(misnamed.where, "name", key, misnamed.expected)
            below.append((key, item, parts[1]))
    elif isinstance(value, list) and outer is list:
        below += [(place, item, parts[0]) for place, item in enumerate(value)]
    for place, item, one in below:
        if found := _misfit(item, one, (*where, place)):
            yield found


def _unfolded(wanted: Any) -> tuple[list[Any], str]:  # noqa: ANN401 - a type
    """The kinds of value that a type is one of, and what is expected, in words."""
    if get_origin(wanted) is Annotated:
        inner, *more = get_args(wanted)
        kinds, expected = _unfolded(inner)
        for meta in more:
            expected = (meta.extra or {}).get("expected", expected)
        return kinds, expected
    if get_origin(wanted) in (Union, UnionType):
        parts = [_unfolded(part) for part in get_args(wanted)]
        return [kind for kinds, _ in parts for kind in kinds], _or([expected for _, expected in parts])
    if get_origin(wanted) is Literal:
        return [wanted], _or([str(value) for value in get_args(wanted)])
    return [wanted], _WORDS.get(get_origin(wanted) or wanted, _WORDS[dict])


def _or(words: list[str]) -> str:
    """``a, b or c``."""
    *first, last = dict.fromkeys(words)
    return f"{', '.join(first)} or {last}" if first else last
