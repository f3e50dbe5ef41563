"""What stands for the functions and classes that a pickle names: ours, with checks, in place of theirs."""

from __future__ import annotations

import posixpath
import reprlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

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
from harness.checkpoints.texts import ordered, text_of

_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128", "UntypedStorage": "uint8",
    "QInt8Storage": "int8", "QUInt8Storage": "uint8", "QInt32Storage": "int32",
    "QUInt4x2Storage": "uint8", "QUInt2x4Storage": "uint8",
}  # fmt: skip


_WRAPPER = "torch._utils._rebuild_wrapper_subclass"
#: Of a mesh of devices: what is another in every process, and no state.
_OF_THE_PROCESS = (
    "_hash", "_thread_id", "_root_mesh", "_flatten_mapping", "_dim_group_names", "_dim_group_infos",
    "_rank", "_pg_registry",
)  # fmt: skip


@cache
def unknown_class(module: str, name: str) -> type[Unknown]:
    """The class of records of what no table knows, by its name."""
    made = Inert(name, (Unknown,), {"__slots__": (), "label": f"{module}.{name}"})
    assert issubclass(made, Unknown)
    return made


class Call:
    """A function that a pickle may call: one of ours, with checks, in place of what it names."""

    __slots__ = ("_run", "label")
    _run: Callable[..., Any]
    label: str

    def __init__(self, run: Callable[..., Any], label: str = "") -> None:
        object.__setattr__(self, "_run", run)
        object.__setattr__(self, "label", label)

    def named(self, module: str, name: str) -> Call:
        """The same, for what a pickle calls so."""
        return Call(self._run, f"{module}.{name}")

    def or_unknown(self) -> Call:
        """The same, and an inert record of the call where it is none of those that are expected."""

        def run(*arguments: object) -> object:
            try:
                return self._run(*arguments)
            except Exception:  # noqa: BLE001 - nearly anything, of arguments that are not as they should be
                return unknown_class(*self.label.rsplit(".", 1))(*arguments)

        return Call(run, self.label)

    def __repr__(self) -> str:
        return f"<{self.label}>"

    def __call__(self, *arguments: object) -> Any:  # noqa: ANN401 - untyped by nature
        """What ours makes of the arguments."""
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
    hooks: object = None,
    metadata: object = None,
) -> TensorRef | Attributed | Unknown:
    held = _storage(storage)
    if metadata:  # a lazy conjugate or negative bit
        return unknown_class("torch._utils", "_rebuild_tensor_v2")(
            storage, offset, sizes, strides, grad, hooks, metadata
        )
    ref = TensorRef(held, held.dtype, offset, sizes, strides)
    return Attributed(ref, {"requires_grad": True}) if grad is True else ref


def _tensor_v3(
    storage: object,
    offset: int,
    sizes: Iterable[int],
    strides: Iterable[int],
    grad: object,
    hooks: object,
    dtype: object,
    metadata: object = None,
) -> TensorRef | Attributed | Unknown:
    held = _storage(storage)
    if metadata or not isinstance(dtype, DType):
        return unknown_class("torch._utils", "_rebuild_tensor_v3")(
            storage, offset, sizes, strides, grad, hooks, dtype, metadata
        )
    ref = TensorRef(held, dtype.name, offset, sizes, strides)
    return Attributed(ref, {"requires_grad": True}) if grad is True else ref


def _parameter(data: object, grad: object = True, _hooks: object = None, state: object = None) -> object:  # noqa: FBT002
    """A Parameter needs its gradient unless it says otherwise."""
    found: list[tuple[Any, object]] = [] if grad is True else [("requires_grad", grad)]
    if isinstance(data, Attributed):
        found = [pair for pair in _state(data.attributes) if pair[0] != "requires_grad"] + found
        data = data.value
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


def _from_type(function: object, kind: object, arguments: Iterable[object], state: object) -> Any:  # noqa: ANN401
    if isinstance(function, type) and issubclass(function, Unknown):
        made: object = function(*arguments)
    elif isinstance(function, Call):
        made = function(*arguments)
    else:
        raise Refused(f"a tensor made by {reprlib.repr(function)}")
    found = dict(_state(state)) if state else {}
    if isinstance(made, Unknown) and made.label == _WRAPPER and "_local_tensor" in found:
        return _distributed(made, found)
    if isinstance(kind, type) and not isinstance(made, Unknown):
        found = {"class": kind, **found}  # a subclass of a tensor that no table knows
    return Attributed(made, found) if found else made


def _distributed(made: Unknown, found: dict[Any, Any]) -> Attributed:
    """A DTensor: what this rank holds of it, and of what that is a part."""
    local = found.pop("_local_tensor")
    spec = found.pop("_spec", None)
    held = dict(_state(local.attributes)) if isinstance(local, Attributed) else {}
    local = local.value if isinstance(local, Attributed) else local
    kept = {key: value for key, value in found.items() if (key, value) != ("_is_param", True)}
    about = [*made.arguments[1:4], *made.arguments[7:]]  # type, sizes, strides, gradient
    if isinstance(spec, Record):
        mesh = spec.field("mesh")
        about += [spec.field("placements"), _mesh(mesh)]
        ranks = [mesh.field(name) for name in ("_rank_map", "mesh")] if isinstance(mesh, Record) else []
        kept.update(("ranks", tensor) for tensor in ranks if isinstance(tensor, (TensorRef, Attributed)))
    return Attributed(local, {**held, **kept, "distributed": text_of(about)})


def _mesh(mesh: object) -> object:
    """A mesh of devices, without the hashes, thread and groups of the process that saved it."""
    state = mesh.state if isinstance(mesh, Record) else None
    if not isinstance(state, Mapping):
        return mesh
    return {key: value for key, value in state.items() if key not in _OF_THE_PROCESS}


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


def _numpy_buffer(data: object, dtype: object, shape: object = (), order: object = "C") -> NumpyArray:
    array = _reconstruct_array()
    array.__setstate__((1, shape, dtype, order == "F", bytes(data) if isinstance(data, bytearray) else data))
    return array


def _reconstructor(kind: object, base: object, state: object = None) -> object:
    """Of protocols 0 and 1: an object, and what it was as a number, a text or a list."""
    if isinstance(kind, type) and issubclass(kind, Record):
        return kind() if getattr(base, "label", "") == "builtins.object" else kind(state)
    return unknown_class("copyreg", "_reconstructor")(kind, base, state)


def _new(kind: object, *arguments: object) -> object:
    if isinstance(kind, type) and issubclass(kind, Record):
        return kind(*arguments)
    return unknown_class("copyreg", "__newobj__")(kind, *arguments)


def _set_state(record: object, state: object, *_rest: object) -> object:
    """A state that a function would set: it is kept, as any other."""
    if not isinstance(record, Record):
        raise Refused("a state that is no object's")
    record.__setstate__(state)
    return record


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
def table() -> dict[tuple[str, str], Any]:
    """By module and name."""
    table: dict[tuple[str, str], Any] = {
        ("torch", "Size"): Call(lambda values=(): tuple(values)),
        ("torch", "device"): Call(_device),
        ("torch.serialization", "_get_layout"): Call(_first),
        ("torch._utils", "_rebuild_tensor"): Call(_tensor_v2),
        ("torch._utils", "_rebuild_tensor_v2"): Call(_tensor_v2),
        ("torch._utils", "_rebuild_tensor_v3"): Call(_tensor_v3),
        ("torch._utils", "_rebuild_parameter"): Call(_parameter),
        ("torch._utils", "_rebuild_parameter_with_state"): Call(_parameter),
        ("torch._utils", "_rebuild_sparse_tensor"): Call(_sparse),
        ("torch._tensor", "_rebuild_from_type_v2"): Call(_from_type),
        ("torch", "Tensor"): DType("Tensor"),
        ("torch.nn.parameter", "Parameter"): DType("Parameter"),
        ("torch.nn.parameter", "Buffer"): DType("Buffer"),
        ("collections", "OrderedDict"): _Dict,
        ("collections", "Counter"): _Dict,
        ("collections", "defaultdict"): _DefaultDict,
        ("collections", "deque"): _Deque,
        ("_codecs", "encode"): Call(_encode),
        ("numpy", "ndarray"): DType("ndarray"),
    }
    for module in ("torch", "torch.cuda", "torch.storage"):
        table |= {(module, name): StorageType(dtype) for name, dtype in _STORAGES.items()}
    table |= {("torch", name): DType(name) for name in ITEMSIZE}
    for module in ("builtins", "__builtin__"):
        table |= {
            (module, "set"): Call(_set),
            (module, "frozenset"): Call(_frozen_set),
            (module, "complex"): Call(lambda re=0.0, im=0.0: complex(float(re), float(im))),
            (module, "bytes"): Call(_bytes),
            (module, "bytearray"): Call(_bytes),
            (module, "dict"): _Dict,
            (module, "list"): _Deque,
            (module, "int"): DType("int"),
            (module, "float"): DType("float"),
        }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        table[module, "_reconstruct"] = Call(_reconstruct_array)
        table[module, "scalar"] = Call(_numpy_scalar)
    for module in ("numpy.core.numeric", "numpy._core.numeric"):
        table[module, "_frombuffer"] = Call(_numpy_buffer)
    for module in ("copyreg", "copy_reg"):
        table[module, "_reconstructor"] = Call(_reconstructor)
        table[module, "__newobj__"] = Call(_new)
    for module in ("cloudpickle.cloudpickle", "ray.cloudpickle.cloudpickle"):
        table |= {(module, f"_{kind}_setstate"): Call(_set_state) for kind in ("class", "function")}
    for name in ("PosixPath", "PurePosixPath", "WindowsPath", "Path"):
        table |= {(module, name): Call(_path) for module in ("pathlib", "pathlib._local")}
    return table
