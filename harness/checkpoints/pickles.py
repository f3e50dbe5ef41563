"""Unpickling that executes nothing: what a pickle names is looked up in a table, never imported.

Stricter than ``weights_only``: classes become inert records of what was stored, tensors become
descriptions of where their bytes lie. A pickle that names anything else is refused by name.
"""

from __future__ import annotations

import pickle
import posixpath
import reprlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import IO, Any

from harness.checkpoints.inert import (
    ITEMSIZE,
    Attributed,
    DType,
    Frozen,
    Inert,
    Named,
    NumpyArray,
    Record,
    Refused,
    Storage,
    StorageType,
    TensorRef,
    Unknown,
)
from harness.checkpoints.texts import ordered

_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128", "UntypedStorage": "uint8",
}  # fmt: skip

_DCP = "torch.distributed.checkpoint."
_OLD_DCP = "torch.distributed._shard.sharded_tensor.metadata"

#: Classes that are kept as inert records; the name of a megatron class (an enum in ``args``) too.
_RECORDS = {
    ("argparse", "Namespace"), ("types", "SimpleNamespace"), ("_io", "BytesIO"),
    ("signal", "Signals"), ("numpy", "dtype"), ("decimal", "Decimal"), ("uuid", "UUID"),
    *(("datetime", name) for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *((_DCP + "metadata", name) for name in (
        "Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties",
        "ChunkStorageMetadata", "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING",
    )),
    *((_DCP + "filesystem", name) for name in ("_StorageInfo", "_StoragePrefix")),
    (_OLD_DCP, "TensorProperties"), (_OLD_DCP, "MEM_FORMAT_ENCODING"),
}  # fmt: skip


class _Call:
    """A function that a pickle may call: one of ours, with checks, in place of what it names."""

    __slots__ = ("_run", "label")
    _run: Callable[..., Any]
    label: str

    def __init__(self, run: Callable[..., Any], label: str = "") -> None:
        object.__setattr__(self, "_run", run)
        object.__setattr__(self, "label", label)

    def named(self, module: str, name: str) -> _Call:
        """The same, for what a pickle calls so."""
        return _Call(self._run, f"{module}.{name}")

    def or_unknown(self) -> _Call:
        """The same, and an inert record of the call where it is none of those that are expected."""

        def run(*arguments: object) -> object:
            try:
                return self._run(*arguments)
            except Exception:  # noqa: BLE001 - nearly anything, of arguments that are not as they should be
                return _unknown_class(*self.label.rsplit(".", 1))(*arguments)

        return _Call(run, self.label)

    def __repr__(self) -> str:
        return f"<{self.label}>"

    def __call__(self, *arguments: object) -> Any:  # noqa: ANN401 - untyped by nature
        return self._run(*arguments)

    def __setattr__(self, name: str, value: object) -> None:
        raise Refused(f"an assignment to a function's {name}")

    def __setstate__(self, state: object) -> None:
        raise Refused("an assignment to a function")


class _Dict(dict[Any, Any], metaclass=Inert):
    attributes: object = None

    def __setstate__(self, state: object) -> None:
        # torch hangs ``_metadata`` onto the OrderedDict of a module's state.
        self.attributes = state


class _DefaultDict(_Dict):
    def __init__(self, factory: object = None, *rest: Any) -> None:  # noqa: ARG002
        super().__init__(*rest)


class _Deque(list[Any], metaclass=Inert):
    attributes: object = None

    def __init__(self, items: Iterable[Any] = (), maxlen: object = None) -> None:
        super().__init__(items)
        if maxlen is not None:
            self.attributes = {"maxlen": maxlen}

    def __setstate__(self, state: object) -> None:
        self.attributes = {**(self.attributes if isinstance(self.attributes, dict) else {}), "state": state}


def _storage(storage: object) -> Storage:
    if not isinstance(storage, Storage):
        raise Refused("a tensor without a storage")
    return storage


def _tensor_v2(
    storage: object,
    offset: int,
    sizes: Iterable[int],
    strides: Iterable[int],
    grad: object = False,  # noqa: FBT002 - as the pickle has it
    _hooks: object = None,
    metadata: object = None,
) -> TensorRef | Attributed:
    if metadata:
        raise Refused("a tensor with a lazy conjugate or negative bit")
    held = _storage(storage)
    ref = TensorRef(held, held.dtype, offset, sizes, strides)
    return Attributed(ref, {"requires_grad": True}) if grad is True else ref


def _tensor_v3(
    storage: object,
    offset: int,
    sizes: Iterable[int],
    strides: Iterable[int],
    grad: object,
    _hooks: object,
    dtype: object,
    metadata: object = None,
) -> TensorRef | Attributed:
    if metadata:
        raise Refused("a tensor with a lazy conjugate or negative bit")
    if not isinstance(dtype, DType):
        raise Refused("a tensor without a dtype")
    ref = TensorRef(_storage(storage), dtype.name, offset, sizes, strides)
    return Attributed(ref, {"requires_grad": True}) if grad is True else ref


def _parameter(data: object, grad: object = True, _hooks: object = None, state: object = None) -> object:  # noqa: FBT002
    """A Parameter needs its gradient unless it says otherwise."""
    found: list[tuple[Any, object]] = [] if grad is True else [("requires_grad", grad)]
    data = data.value if isinstance(data, Attributed) else data
    if state:
        found += _state(state)
    return Attributed(data, dict(found)) if found else data


def _state(state: object) -> list[tuple[Any, object]]:
    """Attributes of an object: its ``__dict__``, alone or with its slots."""
    parts = state if isinstance(state, tuple) else (state,)
    found: list[tuple[Any, object]] = []
    for part in parts:
        if isinstance(part, Mapping):
            found += part.items()
        elif part is not None:
            found.append(("state", part))
    return found


def _first(first: object, *_rest: object) -> object:
    return first


def _from_type(function: object, _type: object, arguments: Iterable[object], state: object) -> Any:  # noqa: ANN401
    if not isinstance(function, _Call):
        raise Refused(f"a tensor made by {reprlib.repr(function)}")
    made = function(*arguments)
    return Attributed(made, dict(_state(state))) if state else made


def _sparse(layout: object, data: object) -> dict[str, object]:
    return {"layout": layout, "data": data}


def _encode(text: object, encoding: object = "latin1", *_rest: object) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "ascii", "utf-8"):
        raise Refused(f"an encoding {reprlib.repr(encoding)}")
    return text.encode(str(encoding))


def _bytes(*arguments: object) -> bytes:
    if not arguments:
        return b""
    first, *rest = arguments
    return first if isinstance(first, bytes) else _encode(first, *rest)


def _reconstruct_array(*_arguments: object) -> NumpyArray:
    array = NumpyArray()
    assert isinstance(array, NumpyArray)
    return array


def _numpy_scalar(dtype: object, data: object = b"") -> NumpyArray:
    array = _reconstruct_array()
    array.state = (1, (), dtype, False, data)
    return array


def _path(*parts: object) -> Named:
    return Named("path", posixpath.join("", *_words(parts)))


def _device(*parts: object) -> Named:
    return Named("device", ":".join(_words(parts)))


def _words(parts: Iterable[object]) -> Iterable[str]:
    for part in parts:
        # Of a nest that holds itself many times over there is no text that ends.
        if not isinstance(part, (str, int, Named)):
            raise Refused(f"a path or a device of {reprlib.repr(part)}")
        yield part.text if isinstance(part, Named) else str(part)


def _set(items: Iterable[object] = ()) -> list[object]:
    """A set as a list, in an order that depends on what is in it alone."""
    return ordered(list(items))


def _frozen_set(items: Iterable[object] = ()) -> Frozen:
    return Frozen(ordered(list(items)))


@cache
def _table() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = {
        ("torch", "Size"): _Call(lambda values=(): tuple(values)),
        ("torch", "device"): _Call(_device),
        ("torch.serialization", "_get_layout"): _Call(_first),
        ("torch._utils", "_rebuild_tensor"): _Call(_tensor_v2),
        ("torch._utils", "_rebuild_tensor_v2"): _Call(_tensor_v2),
        ("torch._utils", "_rebuild_tensor_v3"): _Call(_tensor_v3),
        ("torch._utils", "_rebuild_parameter"): _Call(_parameter),
        ("torch._utils", "_rebuild_parameter_with_state"): _Call(_parameter),
        ("torch._utils", "_rebuild_sparse_tensor"): _Call(_sparse),
        ("torch._tensor", "_rebuild_from_type_v2"): _Call(_from_type),
        ("torch", "Tensor"): DType("Tensor"),
        ("torch.nn.parameter", "Parameter"): DType("Parameter"),
        ("torch.nn.parameter", "Buffer"): DType("Buffer"),
        ("collections", "OrderedDict"): _Dict,
        ("collections", "Counter"): _Dict,
        ("collections", "defaultdict"): _DefaultDict,
        ("collections", "deque"): _Deque,
        ("_codecs", "encode"): _Call(_encode),
        ("numpy", "ndarray"): DType("ndarray"),
    }
    for module in ("torch", "torch.cuda", "torch.storage"):
        table |= {(module, name): StorageType(dtype) for name, dtype in _STORAGES.items()}
    table |= {("torch", name): DType(name) for name in ITEMSIZE}
    for module in ("builtins", "__builtin__"):
        table |= {
            (module, "set"): _Call(_set),
            (module, "frozenset"): _Call(_frozen_set),
            (module, "complex"): _Call(lambda re=0.0, im=0.0: complex(float(re), float(im))),
            (module, "bytes"): _Call(_bytes),
            (module, "bytearray"): _Call(_bytes),
            (module, "dict"): _Dict,
            (module, "list"): _Deque,
            (module, "int"): DType("int"),
            (module, "float"): DType("float"),
        }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        table[module, "_reconstruct"] = _Call(_reconstruct_array)
        table[module, "scalar"] = _Call(_numpy_scalar)
    for name in ("PosixPath", "PurePosixPath", "WindowsPath", "Path"):
        table |= {(module, name): _Call(_path) for module in ("pathlib", "pathlib._local")}
    return table


@cache
def _record_class(module: str, name: str) -> type[Record]:
    made = Inert(name, (Record,), {"__slots__": (), "label": f"{module}.{name}"})
    assert issubclass(made, Record)
    return made


@cache
def _unknown_class(module: str, name: str) -> type[Unknown]:
    made = Inert(name, (Unknown,), {"__slots__": (), "label": f"{module}.{name}"})
    assert issubclass(made, Unknown)
    return made


class _Unpickler(pickle.Unpickler):
    def __init__(
        self, file: IO[bytes], load_storage: Callable[[Any], Storage] | None, *, unknown: bool
    ) -> None:
        super().__init__(file, encoding="utf-8")
        self._load_storage, self._unknown = load_storage, unknown

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - untyped by nature
        found = _table().get((module, name))
        if isinstance(found, _Call):
            found = found.named(module, name)
            return found.or_unknown() if self._unknown else found
        if found is not None:
            return found
        if (module, name) in _RECORDS or module.partition(".")[0] == "megatron":
            return _record_class(module, name)
        if self._unknown:
            return _unknown_class(module, name)
        raise Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:  # noqa: ANN401 - untyped by nature
        if self._load_storage is None and self._unknown:
            return _unknown_class("pickle", "persistent_load")(pid)
        if self._load_storage is None:
            raise Refused("a reference to something outside the file")
        return self._load_storage(pid)


def load(
    file: IO[bytes],
    load_storage: Callable[[Any], Storage] | None = None,
    *,
    unknown: bool = False,
) -> Any:  # noqa: ANN401
    """Read one pickle into plain containers, :class:`Record`, :class:`TensorRef`.

    Args:
        load_storage: describes the storage of a persistent id; None where none may occur.
        unknown: what the table does not know becomes :class:`Unknown`, as inert as all else; for whoever
            takes of it only what it knows, and says so where that is not all.

    Raises:
        Refused: it names something outside the table.
        Exception: whatever a damaged pickle makes the unpickler raise.
    """
    return _Unpickler(file, load_storage, unknown=unknown).load()
