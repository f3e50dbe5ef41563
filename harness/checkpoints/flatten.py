"""Nests of dicts, lists, tensors and values, flattened into names and leaves."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.checkpoints.inert import Attributed, DType, Named, NumpyArray, Record, Refused, TensorRef
from harness.checkpoints.texts import key_text, ordered, text_of
from harness.errors import CheckpointError

#: Beyond these a file is not a training state but an attack on memory.
LEAF_LIMIT = 1_000_000
DEPTH_LIMIT = 100

_NUMPY_DTYPES = {
    "f8": "float64", "f4": "float32", "f2": "float16", "i8": "int64", "i4": "int32", "i2": "int16",
    "i1": "int8", "u8": "uint64", "u4": "uint32", "u2": "uint16", "u1": "uint8", "b1": "bool",
    "c8": "complex64", "c16": "complex128",
}  # fmt: skip
_INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True)
class Value:
    """A plain value, or a list of numbers of one type, as bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


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
    leaves: dict[str, TensorRef | Value] = {}
    try:
        for found, leaf in _walk(nest, where, name, 0, said):
            key = found
            while key in leaves:
                key += "'"  # {"a.b": 1, "a": {"b": 2}}: two leaves, one dotted name
            leaves[key] = leaf
            if len(leaves) > LEAF_LIMIT:
                raise CheckpointError(f"{where}: more than {LEAF_LIMIT} values, which is not read")
    except Refused as cause:
        raise CheckpointError(f"{where}: {cause}, which is not read") from cause
    return leaves


def _walk(
    nest: Any,  # noqa: ANN401 - untyped by nature
    where: str,
    name: str,
    depth: int,
    said: Callable[[str], str],
) -> Iterator[tuple[str, TensorRef | Value]]:
    if depth > DEPTH_LIMIT:
        raise CheckpointError(f"{where}: {name[:80]}… is nested deeper than {DEPTH_LIMIT}")
    attributes = getattr(nest, "attributes", None) if isinstance(nest, (Attributed, dict, list)) else None
    if isinstance(nest, Attributed):
        nest = nest.value
    if attributes:
        yield from _walk(attributes, where, name, depth + 1, said)
    if isinstance(nest, NumpyArray):
        nest = _array(nest, f"{where}: {name}")
    if isinstance(nest, (set, frozenset)):
        nest = ordered(list(nest))
    if isinstance(nest, (TensorRef, Value)):
        yield name or "value", nest
        return
    children: Iterator[tuple[Any, Any]] | None = None
    if isinstance(nest, Record):
        children = iter(_fields(nest))
    elif isinstance(nest, Mapping):
        children = iter(nest.items())
    elif isinstance(nest, (list, tuple)):
        numbers = _numbers(nest)
        if numbers is not None:
            yield name or "value", numbers
            return
        children = iter(enumerate(nest))
    if children is None:
        yield name or "value", _value(nest, f"{where}: {name}")
        return
    empty = True
    for key, child in children:
        empty = False
        word = key_text(key, said)
        yield from _walk(child, where, f"{name}.{word}" if name else word, depth + 1, said)
    if empty:
        kind = "empty list" if isinstance(nest, (list, tuple)) else "empty dict"
        yield name or "value", Value(kind, (0,), b"")


def _fields(record: Record) -> list[tuple[Any, Any]]:
    """What a record holds: its ``__dict__``, or else what it was made from."""
    if record.label == "_io.BytesIO":
        state = record.state
        return [("bytes", state[0] if isinstance(state, tuple) and state else b"")]
    fields: list[tuple[Any, Any]] = []
    if record.arguments:
        fields.append((record.label.rpartition(".")[2], list(record.arguments)))
    if isinstance(record.state, Mapping):
        fields += record.state.items()
    elif record.state is not None:
        fields.append(("state", record.state))
    return fields or [("class", record.label)]


def _numbers(values: list[Any] | tuple[Any, ...]) -> Value | None:
    """A list of numbers of one type as one leaf; None for any other list."""
    kinds = {type(value) for value in values}
    if kinds == {int} and all(value in _INT64 for value in values):
        return Value("Python int", (len(values),), struct.pack(f"<{len(values)}q", *values))
    if kinds == {float}:
        return Value("Python float", (len(values),), struct.pack(f"<{len(values)}d", *values))
    return None


def _value(value: Any, where: str) -> Value:  # noqa: ANN401
    if value is None:
        return Value("None", (0,), b"")
    if isinstance(value, bool):
        return Value("Python bool", (), bytes([value]))
    if isinstance(value, int):
        if value in _INT64:
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
        data = value.encode("utf-8", "surrogatepass")
        return Value("text", (len(data),), data)
    if isinstance(value, (bytes, bytearray)):
        return Value("bytes", (len(value),), bytes(value))
    raise CheckpointError(f"{where}: a {type(value).__name__}, which cannot be compared")


def _array(array: NumpyArray, where: str) -> Any:  # noqa: ANN401
    state = array.state
    if not isinstance(state, tuple) or len(state) != 5:
        raise CheckpointError(f"{where}: a damaged numpy array")
    _, shape, dtype, fortran, data = state
    code = dtype.arguments[0] if isinstance(dtype, Record) and dtype.arguments else None
    if code == "O8" or isinstance(data, list):
        return data  # an array of Python objects is a list with a shape
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "|"
    if code in _NUMPY_DTYPES and isinstance(shape, tuple) and isinstance(data, bytes):
        import numpy as np

        try:
            kind = np.dtype(f"{'>' if order == '>' else '<'}{code}")
            values = np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")
            little = np.ascontiguousarray(values.astype(kind.newbyteorder("<")))
        except (ValueError, TypeError) as cause:
            raise CheckpointError(f"{where}: a damaged numpy array ({cause})") from cause
        return Value(_NUMPY_DTYPES[code], tuple(shape), little.tobytes())
    if isinstance(code, str) and code[:1] in "USV" and isinstance(data, bytes):
        return data
    raise CheckpointError(f"{where}: a numpy array of {code!r}, which is not read")
