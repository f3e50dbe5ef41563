"""Nests of dicts, lists, tensors and values, flattened into names and leaves."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.checkpoints.inert import (
    ITEMSIZE,
    Attributed,
    DType,
    Named,
    NumpyArray,
    Record,
    Refused,
    Storage,
    TensorRef,
    Unknown,
)
from harness.checkpoints.placed import Placed, Spot, bare, plain_type, spots_of
from harness.checkpoints.texts import key_text, ordered, text_of
from harness.errors import CheckpointError

#: Beyond these a file is not a training state but an attack on memory.
LEAF_LIMIT = 1_000_000
DEPTH_LIMIT = 100
#: A list or a table of more plain values, or of pairs of them, is one leaf: a vocabulary, a dataset's ids.
MANY = 1000
_SHORT = 4

_NUMPY_DTYPES = {
    "f8": "float64", "f4": "float32", "f2": "float16", "i8": "int64", "i4": "int32", "i2": "int16",
    "i1": "int8", "u8": "uint64", "u4": "uint32", "u2": "uint16", "u1": "uint8", "b1": "bool",
    "c8": "complex64", "c16": "complex128",
}  # fmt: skip
_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1


#: Nor do its values have more bytes: those that a file has once, and uses many times over, count each time.
BYTES_LIMIT = 1 << 29


class TooMany(CheckpointError):
    """More values, or a deeper nest, than is walked."""


@dataclass(frozen=True)
class Value:
    """A plain value, or a list of numbers of one type, as bytes.

    Args:
        spots: where it lies, or where each of the numbers does; empty where that is not known.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes
    spots: tuple[Spot, ...] = field(default=(), compare=False)


def flatten(
    nest: Any,  # noqa: ANN401 - untyped by nature
    where: str,
    name: str = "",
    said: Callable[[str], str] = str,
) -> dict[str, TensorRef | Value]:
    """Leaves of a nest by dotted name; every leaf, also of empty containers.

    Args:
        said: how a key that is text stands in a name.

    Raises:
        CheckpointError: deeper or bigger than any training state, or a value with no bytes of its own.
    """
    walk = _Walk(where, said)
    try:
        walk.down(nest, name, 0)
    except Refused as cause:
        raise CheckpointError(f"{where}: {cause}, which is not read") from cause
    return walk.leaves


class _Walk:
    """Gathers the leaves of a nest.

    Args:
        where: the file, for messages.
        said: how a key that is text stands in a name.
    """

    def __init__(self, where: str, said: Callable[[str], str]) -> None:
        self.leaves: dict[str, TensorRef | Value] = {}
        self._where, self._said = where, said
        self._above: dict[int, str] = {}
        self._bytes = 0

    def _add(self, name: str, leaf: TensorRef | Value) -> None:
        key = name or "value"
        while key in self.leaves:
            key += "'"  # {"a.b": 1, "a": {"b": 2}}: two leaves, one dotted name
        self.leaves[key] = leaf
        if len(self.leaves) > LEAF_LIMIT:
            raise TooMany(f"{self._where}: more than {LEAF_LIMIT} values, which is not read")
        self._bytes += len(leaf.data) if isinstance(leaf, Value) else 0
        if self._bytes > BYTES_LIMIT:
            raise TooMany(f"{self._where}: values of more than {BYTES_LIMIT >> 20} MiB, which is not read")

    def down(self, nest: Any, name: str, depth: int) -> None:  # noqa: ANN401 - untyped by nature
        """All that lies below ``name``."""
        if depth > DEPTH_LIMIT:
            raise TooMany(f"{self._where}: {name[:80]}… is nested deeper than {DEPTH_LIMIT}")
        attributes = getattr(nest, "attributes", None) if isinstance(nest, (Attributed, dict, list)) else None
        if attributes:
            self.down(attributes, name, depth + 1)
        if isinstance(nest, Attributed):
            self.down(nest.value, name, depth + 1)
            return
        if isinstance(nest, NumpyArray):
            nest = _array(nest, f"{self._where}: {name}")
        if isinstance(nest, (set, frozenset)):
            nest = ordered(list(nest))
        if isinstance(nest, Storage):
            nest = nest.whole()
        if isinstance(nest, TensorRef) and nest.storage.data is not None:
            nest = _inside(nest, nest.storage.data(), f"{self._where}: {name}")
        if isinstance(nest, (TensorRef, Value)):
            self._add(name, nest)
        elif isinstance(nest, (Record, Mapping, list, tuple)):
            self._container(nest, name, depth)
        else:
            self._add(name, _value(nest, f"{self._where}: {name}"))

    def _container(self, nest: Record | Mapping[Any, Any] | Sequence[Any], name: str, depth: int) -> None:
        if id(nest) in self._above:
            # A parent that its child points to: it is compared where it stands.
            self._add(name, _text(f"the same as {self._above[id(nest)] or 'all of it'}"))
            return
        try:
            leaf = _as_one(nest)
        except _TooLong:
            said = f"{self._where}: {name or 'all of it'} is a text of more than {BYTES_LIMIT >> 20} MiB"
            raise TooMany(f"{said}, which is not read") from None
        if leaf is not None:
            self._add(name, leaf)
            return
        children: Iterable[tuple[Any, Any]]
        if isinstance(nest, Record):
            children = _fields(nest)
        elif isinstance(nest, Mapping):
            children = nest.items()
        else:
            children = enumerate(nest)
        self._above[id(nest)] = name
        empty = True
        for key, child in children:
            empty = False
            word = key_text(key, self._said)
            below = f"{name}.{word}" if name else word
            if _holds_tensor(key):
                self.down(key, f"{below}.key", depth + 1)
            self.down(child, below, depth + 1)
        del self._above[id(nest)]
        if empty:
            kind = "empty list" if isinstance(nest, (list, tuple)) else "empty dict"
            self._add(name, Value(kind, (0,), b""))


def _holds_tensor(key: object) -> bool:
    """Whether a key has values that its text does not say."""
    if isinstance(key, tuple):
        return any(map(_holds_tensor, key))
    return isinstance(key, (TensorRef, Attributed, Storage))


def _as_one(nest: Record | Mapping[Any, Any] | Sequence[Any]) -> Value | None:
    """A list of numbers, a call with plain arguments, a long table of plain values: one leaf each."""
    if isinstance(nest, Record):
        if not isinstance(nest, Unknown) or nest.state is not None or nest.items or nest.pairs:
            return None
        return _text(text_of(nest)) if all(map(_is_plain, nest.arguments)) else None
    if isinstance(nest, Mapping):
        many = len(nest) > MANY and all(map(_is_plain, nest)) and all(map(_is_short, nest.values()))
        lines = (f"{key!r}: {value!r}" for key, value in nest.items())
        return _text("\n".join(sorted(_bounded(lines)))) if many else None
    numbers = _numbers(nest)
    if numbers is None and len(nest) > MANY and all(map(_is_short, nest)):
        flat = [each for item in nest for each in (item if isinstance(item, (list, tuple)) else (item,))]
        return replace(_text("\n".join(_bounded(map(repr, nest)))), spots=spots_of(flat))
    return numbers


class _TooLong(Exception):
    pass


def _bounded(lines: Iterable[str]) -> Iterator[str]:
    """Texts that are one, as long as that is not too long."""
    left = BYTES_LIMIT
    for line in lines:
        left -= len(line)
        if left < 0:
            raise _TooLong
        yield line


def _is_plain(value: object) -> bool:
    if isinstance(value, int):
        return _is_int64(value)  # Python writes no number of very many digits
    return value is None or isinstance(value, (str, float, Named, DType))


def _is_short(value: object) -> bool:
    """A plain value, or a pair of them: a step of a tokenizer."""
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return len(value) <= _SHORT and all(map(_is_plain, value))
    return _is_plain(value)


def _fields(record: Record) -> list[tuple[Any, Any]]:
    """What a record holds: its ``__dict__``, or else what it was made from."""
    if record.label == "_io.BytesIO":
        state = record.state
        return [("bytes", state[0] if isinstance(state, tuple) and state else b"")]
    fields: list[tuple[Any, Any]] = []
    state = record.state
    if isinstance(record, Unknown):
        fields.append(("class", record.label))
        if isinstance(state, tuple) and len(state) == 2 and all(_is_attributes(part) for part in state):
            fields += [pair for part in state if part for pair in part.items()]  # with __slots__
            state = None
    if record.arguments:
        fields.append((record.label.rpartition(".")[2], list(record.arguments)))
    if isinstance(state, Mapping):
        fields += state.items()
    elif state is not None:
        fields.append(("state", state))
    if isinstance(record, Unknown):
        fields += [*([("items", record.items)] if record.items else []), *record.pairs]
    return fields or [("class", record.label)]


def _is_int64(value: int) -> bool:
    """Whether it fits; a range would be walked through for a subclass of int."""
    return _LOWEST <= value <= _HIGHEST


def _is_attributes(part: object) -> bool:
    return part is None or isinstance(part, Mapping)


def _numbers(values: Sequence[Any]) -> Value | None:
    """A list of numbers of one type as one leaf; None for any other list."""
    kinds = {plain_type(value) for value in values}
    if kinds == {int} and all(_is_int64(value) for value in values):
        kind, data = "Python int", struct.pack(f"<{len(values)}q", *values)
    elif kinds == {float}:
        kind, data = "Python float", struct.pack(f"<{len(values)}d", *values)
    else:
        return None
    return Value(kind, (len(values),), data, spots_of(values))


def _value(value: Any, where: str) -> Value:  # noqa: ANN401
    if isinstance(value, Placed):
        return replace(_value(bare(value), where), spots=(value.spot,))
    if value is None:
        return Value("None", (0,), b"")
    if isinstance(value, bool):
        return Value("Python bool", (), bytes([value]))
    if isinstance(value, int):
        if _is_int64(value):
            return Value("Python int", (), struct.pack("<q", value))
        digits = hex(value).encode()
        return Value("big int", (len(digits),), digits)
    if isinstance(value, float):
        return Value("Python float", (), struct.pack("<d", value))
    if isinstance(value, complex):
        return Value("Python complex", (), struct.pack("<2d", value.real, value.imag))
    if isinstance(value, (DType, Named)):
        value = value.name if isinstance(value, DType) else value.text
    elif isinstance(value, type) or callable(value):
        value = text_of(value)  # a class or a function by its name
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (bytes, bytearray)):
        return Value("bytes", (len(value),), bytes(value))
    raise CheckpointError(f"{where}: a {type(value).__name__}, which cannot be compared")


def _text(text: str) -> Value:
    data = text.encode("utf-8", "surrogatepass")
    return Value("text", (len(data),), data)


def _inside(ref: TensorRef, data: bytes, where: str) -> Value:
    """A tensor whose bytes lie in the pickle itself."""
    import numpy as np

    size = ITEMSIZE[ref.dtype]
    last = sum((n - 1) * s for n, s in zip(ref.sizes, ref.strides, strict=True)) if 0 not in ref.sizes else -1
    if (ref.offset + last + 1) * size > len(data):
        raise CheckpointError(f"{where}: a tensor that reaches beyond its storage")
    kind = np.dtype(f"V{size}")
    held = np.frombuffer(data, kind, len(data) // size)[ref.offset :]
    view = np.lib.stride_tricks.as_strided(held, ref.sizes, [step * size for step in ref.strides])
    return Value(ref.dtype, ref.sizes, view.tobytes())


def _array(array: NumpyArray, where: str) -> Any:  # noqa: ANN401
    state = array.state
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        raise CheckpointError(f"{where}: a damaged numpy array")
    shape, dtype, fortran, data = state[-4:]
    if isinstance(data, list):
        # An array of Python objects is a list with a shape.
        return data if isinstance(shape, tuple) and len(shape) == 1 else {"shape": shape, "data": data}
    held = isinstance(dtype, Record) and dtype.arguments
    code = dtype.arguments[0] if held else None
    order = dtype.state[1] if held and isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "|"
    if code in _NUMPY_DTYPES and isinstance(shape, tuple) and isinstance(data, bytes):
        import numpy as np

        try:
            kind = np.dtype(f"{'>' if order == '>' else '<'}{code}")
            values = np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")
            little = np.ascontiguousarray(values.astype(kind.newbyteorder("<")))
        except (ValueError, TypeError) as cause:
            raise CheckpointError(f"{where}: a damaged numpy array ({cause})") from cause
        spots = spots_of([data]) if kind == kind.newbyteorder("<") else ()
        return Value(_NUMPY_DTYPES[code], tuple(shape), little.tobytes(), spots)
    # Of texts, records, times, long floats: bytes, and what they are.
    return {"dtype": dtype, "shape": shape, "data": data}
