"""What a pickle becomes, nothing of it executed: inert records, and tensors as where their bytes lie."""

from __future__ import annotations

import pickle
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from harness.checkpoints.extents import MOST_DIMENSIONS, SIZES, Extent

#: Bytes per element of the dtypes that a checkpoint may hold.
ITEMSIZE = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1,
    "complex32": 4, "complex64": 8, "complex128": 16,
}  # fmt: skip


class Refused(pickle.UnpicklingError):
    """A pickle that would have to execute something; the message says what."""


class Inert(type):
    """Classes that a pickle cannot change."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise Refused(f"an assignment to {cls.__name__}.{name}")


class Record(metaclass=Inert):
    """What was stored for an object of a class: the arguments and the state, nothing called."""

    __slots__ = ("arguments", "state")
    label = ""

    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: object) -> Record:
        """Keep the arguments; whatever class this stands for is not made."""
        self = super().__new__(cls)
        self.arguments = arguments
        self.state = None
        return self

    def __setstate__(self, state: object) -> None:
        self.state = state

    def field(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - untyped by nature
        """A value of the stored ``__dict__``."""
        return self.state.get(name, default) if isinstance(self.state, Mapping) else default


class NumpyArray(Record):
    """A pickled ndarray; its state is (version, shape, dtype, Fortran order, bytes)."""

    label = "numpy.ndarray"

    def __setstate__(self, state: object) -> None:
        shape = state[1] if isinstance(state, tuple) and len(state) > 1 else ()
        if (
            not isinstance(shape, tuple)
            or len(shape) > MOST_DIMENSIONS
            or not all(type(n) is int and n in SIZES for n in shape)
        ):
            raise Refused(f"a numpy array of shape {reprlib.repr(shape)}")
        self.state = state


class DType(metaclass=Inert):
    """A torch dtype by name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        raise Refused("an assignment to a dtype")


class StorageType(DType):
    """A torch storage class; ``name`` is its element dtype."""


class Storage:
    """The bytes behind tensors: where they are in a file; set once the container knows."""

    __slots__ = ("dtype", "extent", "locate", "numel")

    def __init__(self, dtype: str, numel: int, locate: Callable[[], tuple[int, int]], extent: Extent) -> None:
        self.dtype, self.numel, self.locate, self.extent = dtype, numel, locate, extent

    def __setstate__(self, state: object) -> None:
        raise Refused("an assignment to a storage")


class TensorRef:
    """A tensor as pickled: ``sizes`` and ``strides`` (elements) over a storage from ``offset`` on."""

    __slots__ = ("dtype", "offset", "sizes", "storage", "strides")

    def __init__(
        self,
        storage: Storage,
        dtype: str,
        offset: int,
        sizes: Iterable[int],
        strides: Iterable[int],
    ) -> None:
        self.storage, self.dtype, self.offset = storage, dtype, offset
        self.sizes, self.strides = tuple(sizes), tuple(strides)
        numbers = (offset, *self.sizes, *self.strides)
        if not all(type(n) is int and n in SIZES for n in numbers):
            raise Refused("a tensor whose sizes are not numbers")
        if len(self.sizes) != len(self.strides):
            raise Refused("a tensor with more sizes than strides")
        if len(self.sizes) > MOST_DIMENSIONS:
            raise Refused(f"a tensor of {len(self.sizes)} dimensions")
        storage.extent.take(ITEMSIZE.get(dtype, 1), self.sizes)

    def __setstate__(self, state: object) -> None:
        raise Refused("an assignment to a tensor")


class Attributed:
    """A tensor or a container, and what hangs on it: attributes, as they were stored."""

    __slots__ = ("attributes", "value")

    def __init__(self, value: Any, attributes: object) -> None:  # noqa: ANN401 - untyped by nature
        self.value, self.attributes = value, attributes
