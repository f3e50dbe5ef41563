"""Unpickling that executes nothing: what a pickle names is looked up in a table, never imported.

Stricter than ``weights_only``: tensors become descriptions of where their bytes lie, and every class or
function that the table does not know an inert record of what was stored for it. What could only have been
stored to do harm is refused by its name.
"""

from __future__ import annotations

import io
import mmap
import pickle
from collections.abc import Callable
from functools import cache
from typing import IO, Any

from harness.checkpoints.inert import Inert, Record, Refused, Storage
from harness.checkpoints.opcodes import look_over
from harness.checkpoints.placed import Origin
from harness.checkpoints.placing import Machine, placing_call
from harness.checkpoints.stand_ins import Call, table, unknown_class

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

#: What nobody's state is made of: to read it is as harmless as all else, but a file that would run it when it
#: is loaded is no checkpoint to go on with.
_HARMFUL = {
    "os",
    "posix",
    "nt",
    "subprocess",
    "pty",
    "runpy",
    "socket",
    "shutil",
    "webbrowser",
    "_posixsubprocess",
}
_HARMFUL_BUILTINS = {
    "eval", "exec", "execfile", "compile", "open", "__import__", "input", "breakpoint",
    "setattr", "delattr", "globals", "vars",
}  # fmt: skip
#: Results of system calls are plain tuples.
_HARMLESS = ("_result", "_size", "_Environ", "PathLike")
#: More names than these in one file are no program's.
NAMES_LIMIT = 20_000


def _is_harmful(module: str, name: str) -> bool:
    if module in ("builtins", "__builtin__", "io", "_io"):
        return name in _HARMFUL_BUILTINS
    if module == "importlib" or (module, name) == ("sys", "exit"):
        return True
    return module in _HARMFUL and not name.endswith(_HARMLESS)


@cache
def _record_class(module: str, name: str) -> type[Record]:
    made = Inert(name, (Record,), {"__slots__": (), "label": f"{module}.{name}"})
    assert issubclass(made, Record)
    return made


class _Names:
    """Looks up what a pickle names."""

    def __init__(
        self,
        load_storage: Callable[[Any], Storage] | None,
        load_bytes: Callable[[bytes], Any] | None,
        *,
        lenient: bool,
    ) -> None:
        self._load_storage, self._load_bytes, self._lenient = load_storage, load_bytes, lenient
        self._names: set[tuple[str, str]] = set()

    def class_of(self, module: str, name: str) -> Any:  # noqa: ANN401 - untyped by nature
        if _is_harmful(module, name) and not self._lenient:
            raise Refused(f"{module}.{name}")
        found = table().get((module, name))
        if isinstance(found, Call):
            found = found.named(module, name)
            return found.or_unknown() if self._lenient else found
        if found is not None:
            return found
        if self._load_bytes is not None and (module, name) == ("torch.storage", "_load_from_bytes"):
            return Call(self._load_bytes, f"{module}.{name}")
        self._names.add((module, name))
        if len(self._names) > NAMES_LIMIT:
            raise Refused(f"more than {NAMES_LIMIT} classes")
        if (module, name) in _RECORDS or module.partition(".")[0] == "megatron":
            return _record_class(module, name)
        return unknown_class(module, name)

    def storage_of(self, pid: Any) -> Any:  # noqa: ANN401 - untyped by nature
        if self._load_storage is None and self._lenient:
            return unknown_class("pickle", "persistent_load")(pid)
        if self._load_storage is None:
            raise Refused("a reference to something outside the file")
        return self._load_storage(pid)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], names: _Names) -> None:
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self._found = names

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - untyped by nature
        return self._found.class_of(module, name)

    def persistent_load(self, pid: Any) -> Any:  # noqa: ANN401 - untyped by nature
        return self._found.storage_of(pid)


class _Placing(Machine):
    """The same; its values know where they lie."""

    def __init__(self, file: IO[bytes], names: _Names, origin: Origin) -> None:
        super().__init__(file, origin, encoding="utf-8", errors="surrogateescape")
        self._found = names

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - untyped by nature
        found = self._found.class_of(module, name)
        return placing_call(found, module, name) if isinstance(found, Call) else found

    def persistent_load(self, pid: Any) -> Any:  # noqa: ANN401 - untyped by nature
        return self._found.storage_of(pid)


def load(
    file: IO[bytes],
    load_storage: Callable[[Any], Storage] | None = None,
    *,
    load_bytes: Callable[[bytes], Any] | None = None,
    lenient: bool = False,
    origin: Origin | None = None,
) -> Any:  # noqa: ANN401
    """Read one pickle into plain containers, :class:`Record`, :class:`TensorRef`.

    Args:
        load_storage: describes the storage of a persistent id; None where none may occur.
        load_bytes: the same of what ``torch.save`` wrote, where a pickle holds its bytes.
        lenient: what the table knows and does not find as it should be becomes :class:`Unknown` too; for
            whoever takes of it only what it knows, and says so where that is not all.
        origin: where ``file`` begins; every value then knows where it lies. None: it need not.

    Raises:
        Refused: it names what could only do harm, or what the table knows is not as it should be.
        Exception: whatever a damaged pickle makes the unpickler raise.
    """
    _look_over(file)
    names = _Names(load_storage, load_bytes, lenient=lenient)
    reader = _Unpickler(file, names) if origin is None else _Placing(file, names, origin)
    return reader.load()


def _look_over(file: IO[bytes]) -> None:
    if isinstance(file, io.BytesIO):
        look_over(file.getvalue(), file.tell())
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        look_over(held, file.tell())
