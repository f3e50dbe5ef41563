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

    def __repr__(self) -> str:
        return f"<{self.label}>"  # never where it lies in memory

    def field(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - untyped by nature
        """A value of the stored ``__dict__``."""
        return self.state.get(name, default) if isinstance(self.state, Mapping) else default


class Unknown(Record):
    """What was stored for something that no table knows, as a list, a table or an object of it."""

    __slots__ = ("items", "pairs")

    items: list[object]
    pairs: list[tuple[object, object]]

    def __new__(cls, *arguments: object, **named: object) -> Unknown:
        """Keep the arguments, those with names after the others."""
        self = super().__new__(cls, *arguments, *((named,) if named else ()))
        assert isinstance(self, Unknown)
        self.items, self.pairs = [], []
        return self

    def __call__(self, *arguments: object) -> Unknown:
        """What would be called is not: a record of it, as an argument among the others."""
        return Called(self, *arguments)

    def __setstate__(self, state: object) -> None:
        # Whoever sets a state twice hides nothing by it.
        self.state = state if self.state is None else [self.state, state]

    def append(self, item: object) -> None:
        """One more part of a list, a set, a queue."""
        self.items.append(item)

    def extend(self, items: Iterable[object]) -> None:
        """Several."""
        self.items.extend(items)

    add = append

    def __setitem__(self, key: object, value: object) -> None:
        self.pairs.append((key, value))


class Called(Unknown):
    """A call of what is itself a record: the first argument is what would have been called."""

    __slots__ = ()
    label = "call"


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

    def __repr__(self) -> str:
        return self.name


class Named(metaclass=Inert):
    """A device or a path: a text that is not equal to one that is only a text."""

    __slots__ = ("kind", "text")

    def __init__(self, kind: str, text: str) -> None:
        self.kind, self.text = kind, text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and (self.kind, self.text) == (other.kind, other.text)

    def __hash__(self) -> int:
        return hash((self.kind, self.text))

    def __repr__(self) -> str:
        return f"{self.kind}({self.text})"

    def __setstate__(self, state: object) -> None:
        raise Refused(f"an assignment to a {self.kind}")


class Frozen(tuple[Any, ...], metaclass=Inert):
    """A frozen set as pickled, in an order that depends on what is in it alone; no equal of any tuple."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash((Frozen.__name__, tuple(self)))


class StorageType(DType):
    """A torch storage class; ``name`` is its element dtype."""


class Storage:
    """The bytes behind tensors: where they are in a file; set once the container knows."""

    __slots__ = ("data", "dtype", "extent", "locate", "numel")

    def __init__(
        self,
        dtype: str,
        numel: int,
        locate: Callable[[], tuple[int, int]],
        extent: Extent,
        data: Callable[[], bytes] | None = None,
    ) -> None:
        self.dtype, self.numel, self.locate, self.extent = dtype, numel, locate, extent
        #: Of one that lies in a pickle, not in a file: what gives its bytes.
        self.data = data

    def whole(self) -> TensorRef:
        """All of it, as a tensor of one dimension."""
        return TensorRef(self, self.dtype, 0, (self.numel,), (1,))

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
