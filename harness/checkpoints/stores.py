"""Arrays in pieces below a folder, by ``tensorstore``: zarr, and orbax's databases of them (OCDBT).

``pip install resume-harness[tensorstore]``: without it none of them is looked at, and that is said.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.checkpoints import components, foreign
from harness.checkpoints.entries import UNREAD, Entry, Part
from harness.checkpoints.extents import Extent
from harness.checkpoints.inert import ITEMSIZE
from harness.checkpoints.places import Places
from harness.errors import CheckpointError

if TYPE_CHECKING:
    from harness.checkpoints.entries import Bits

MANIFEST = "manifest.ocdbt"
ADVICE = "pip install resume-harness[tensorstore]"
#: Files that say how an array is stored, by the version of zarr that has them.
_V2, _V3 = ".zarray", "zarr.json"
#: Files of one array below its folder: what says how it is stored, and its pieces.
_PIECE = re.compile(r"\.zarray|zarr\.json|c|(?:c[./])?\d+(?:[./]\d+)*")
#: What scripts hang on an array; on the disk it is a file of its own.
_ATTRIBUTES = ".zattrs"
#: Pieces that were unpacked are kept, of all arrays together.
_CACHE = 128 << 20
#: Of a larger value that is of no array a hash is compared.
_LARGE = 1 << 20
_TORN = "the checkpoint is torn: take an earlier one"


@dataclass(frozen=True)
class Store:
    """A folder that holds arrays.

    Args:
        kind: an OCDBT database, or one array.
        files: that belong to it.
    """

    folder: Path
    kind: Literal["ocdbt", "zarr", "zarr3"]
    files: tuple[Path, ...]


def find(files: Collection[Path]) -> list[Store]:
    """The stores among the files of a checkpoint, none within another."""
    marks = {file for file in files if file.name in (MANIFEST, _V2, _V3) and file.is_file()}
    roots: dict[Path, Literal["ocdbt", "zarr", "zarr3"]] = {}
    for file in sorted(marks, key=lambda path: (len(path.parts), path.name)):
        if file.parent in roots or any(roots.get(above) == "ocdbt" for above in file.parents):
            continue
        if file.name == MANIFEST:
            roots[file.parent] = "ocdbt"
        elif file.name == _V2:
            roots[file.parent] = "zarr"
        elif _kind(file) == "array":  # what a group says of itself is a file as any other
            roots[file.parent] = "zarr3"
    # What processes wrote, and nobody has put together: the save was not finished.
    for file in marks:
        if file.name == MANIFEST and file.parent.name.startswith("ocdbt.process_"):
            whole = file.parent.parent
            if not any(roots.get(above) == "ocdbt" for above in (whole, *whole.parents)):
                roots[whole] = "ocdbt"
                roots = {root: kind for root, kind in roots.items() if root.parent != whole}
    return [
        Store(root, kind, tuple(sorted(_below(root, kind, files)))) for root, kind in sorted(roots.items())
    ]


def _below(root: Path, kind: str, files: Collection[Path]) -> Iterator[Path]:
    for file in files:
        if root in file.parents:
            first = file.relative_to(root).parts[0]
            whole = first in (MANIFEST, "d") or first.startswith("ocdbt.process_")
            if whole if kind == "ocdbt" else _PIECE.fullmatch(file.relative_to(root).as_posix()):
                yield file


def _kind(file: Path) -> object:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return "array"  # torn: whoever opens it says so
    return content.get("node_type") if isinstance(content, dict) else "array"


def readable() -> bool:
    """Whether ``tensorstore`` is there."""
    from importlib.util import find_spec

    return find_spec("tensorstore") is not None


def unlooked(held: list[Store]) -> str:
    """Stores as nothing can read them that is here; empty where something can, or there are none."""
    if not held or readable():
        return ""
    many = f"{len(held)} stores of arrays (zarr, OCDBT)" if len(held) > 1 else "a store of arrays"
    return f"{many}, not looked at without tensorstore"


def mark(held: list[Store]) -> Path:
    """The file by which the first of some stores is known."""
    files = [file for store in held for file in store.files]
    known = [file for file in files if file.name in (MANIFEST, _V2, _V3)]
    return min(known or files, key=lambda file: len(file.parts))


def unread(said: str, where: str) -> Iterator[Entry]:
    """What :func:`unlooked` says as the one entry that stands for all of them.

    Args:
        where: a file of one of them.
    """
    yield Entry(said, "unknown", UNREAD, (), key=said, file=where, reason=f"{said} ({ADVICE})")


def entries(store: Store, where: str, places: Places) -> Iterator[Entry]:
    """The arrays of a store, what hangs on them, and whatever else a database holds.

    Args:
        where: its folder's name in the checkpoint.
        places: folders that stand in names and texts by their placeholders.

    Raises:
        CheckpointError: torn.
    """
    context, extent = _context(), _extent(store)
    names = []
    for order, (name, driver, kvstore) in enumerate(_arrays(store)):
        names.append(name)
        opened = Opened(store.folder, name, driver, kvstore, context)
        extent.take(opened.array().dtype.numpy_dtype.itemsize, opened.array().shape)
        entry = _entry(store, name, opened, order, where)
        yield entry
        if driver == "zarr3" or store.kind == "ocdbt":
            said = _attributes(_read(store.folder, kvstore, _V3 if driver == "zarr3" else _ATTRIBUTES))
            hung = said.get("attributes") if driver == "zarr3" else said
            if hung:
                file = store.folder / entry.file.rpartition("/")[2]
                yield from foreign.leaves(hung, file, entry.file, places, name=f"{name}@" if name else "@")
    if store.kind == "ocdbt":
        yield from _others(store, names, where)


def _extent(store: Store) -> Extent:
    try:
        return Extent(str(store.folder), sum(file.stat().st_size for file in store.files))
    except OSError as cause:
        raise CheckpointError(f"{cause.filename}: cannot be read: {cause.strerror}", _TORN) from cause


def _attributes(content: bytes) -> Mapping[str, Any]:
    """A table; empty for what is none, which tensorstore does not open either."""
    try:
        found = json.loads(content) if content else {}
    except (ValueError, RecursionError):
        return {"attributes": content, "damaged": content}
    return found if isinstance(found, dict) else {"attributes": found}


def _others(store: Store, names: list[str], where: str) -> Iterator[Entry]:
    """What lies in a database under keys that are of no array."""
    held, database = set(names), _database(store)
    for key in _listed(store.folder, database):
        parts = key.split("/")
        splits = (("/".join(parts[:i]), "/".join(parts[i:])) for i in range(len(parts)))
        if any(name in held and (_PIECE.fullmatch(rest) or rest == _ATTRIBUTES) for name, rest in splits):
            continue
        value = _read(store.folder, database, key)
        data = value if len(value) <= _LARGE else hashlib.sha256(value).digest()
        file = f"{where}/{MANIFEST}" if where else MANIFEST
        yield Entry(key, components.foreign(key), "bytes", (len(data),), data=data, key=key, file=file)


def _arrays(store: Store) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(name, driver, key-value store) of each array."""
    base = {"driver": "file", "path": f"{store.folder.resolve()}/"}
    if store.kind in ("zarr", "zarr3"):
        yield "", store.kind, base
        return
    if not (store.folder / MANIFEST).is_file():
        raise CheckpointError(f"{store.folder / MANIFEST}: not found: the save was not finished", _TORN)
    database = _database(store)
    for key in sorted(_listed(store.folder, database)):
        name, _, last = key.rpartition("/")
        if last in (_V2, _V3):
            content = _read(store.folder, database, key) if last == _V3 else b"{}"
            if last == _V2 or _node(content) == "array":
                kvstore = {**database, "path": f"{name}/" if name else ""}
                yield name, "zarr" if last == _V2 else "zarr3", kvstore


def _database(store: Store) -> Mapping[str, Any]:
    return {"driver": "ocdbt", "base": {"driver": "file", "path": f"{store.folder.resolve()}/"}}


def _node(content: bytes) -> object:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found.get("node_type") if isinstance(found, dict) else None


def _listed(folder: Path, kvstore: Mapping[str, Any]) -> list[str]:
    import tensorstore as ts  # type: ignore[import-not-found,import-untyped,unused-ignore]

    try:
        keys = ts.KvStore.open(dict(kvstore), context=ts.Context()).result().list().result()
    except (ValueError, OSError, RuntimeError) as cause:
        raise CheckpointError(f"{folder}: {_said(cause)}", _TORN) from cause
    return [key.decode("utf-8", "surrogateescape") for key in keys]


def _read(folder: Path, kvstore: Mapping[str, Any], key: str) -> bytes:
    import tensorstore as ts

    try:
        return bytes(ts.KvStore.open(dict(kvstore), context=ts.Context()).result().read(key).result().value)
    except (ValueError, OSError, RuntimeError) as cause:
        raise CheckpointError(f"{folder}: {_said(cause)}", _TORN) from cause


def _said(cause: Exception) -> str:
    """The first thing that tensorstore says, without where in its source it says so."""
    return str(cause).partition(" [source locations")[0].partition(" [tensorstore_spec")[0][:300]


def _context() -> Any:  # noqa: ANN401 - tensorstore's
    """What pieces are kept in: never for longer than one look at a store, which may be written anew."""
    import tensorstore as ts

    return ts.Context({"cache_pool": {"total_bytes_limit": _CACHE}})


class Opened:
    """An array of a store; ``where``: what it is called in messages."""

    def __init__(
        self,
        folder: Path,
        name: str,
        driver: str,
        kvstore: Mapping[str, Any],
        context: Any,  # noqa: ANN401 - tensorstore's
    ) -> None:
        self.where = f"{folder}/{name}".rstrip("/")
        self._spec = {"driver": driver, "kvstore": dict(kvstore), "recheck_cached_data": False}
        self._context = context
        self._array: Any = None
        self._lock = threading.Lock()

    def array(self) -> Any:  # noqa: ANN401 - tensorstore's
        """As tensorstore opens it.

        Raises:
            CheckpointError: torn.
        """
        import tensorstore as ts

        with self._lock:
            if self._array is None:
                try:
                    self._array = ts.open(
                        self._spec, read=True, write=False, open=True, context=self._context
                    ).result()
                except (ValueError, OSError, RuntimeError) as cause:
                    raise CheckpointError(f"{self.where}: {_said(cause)}", _TORN) from cause
            return self._array

    def rewrite(self, change: Callable[[Any], Any]) -> None:
        """Write what ``change`` makes of all of it in its place.

        Raises:
            CheckpointError: it cannot be written.
        """
        import tensorstore as ts

        try:
            spec = {**self._spec, "recheck_cached_data": True}
            array = ts.open(spec, read=True, write=True, open=True, context=ts.Context()).result()
            array.write(change(array.read().result())).result()
        except (ValueError, OSError, RuntimeError) as cause:
            raise CheckpointError(f"{self.where}: cannot be written: {_said(cause)}") from cause

    def box(self, start: tuple[int, ...], sizes: tuple[int, ...]) -> Bits:
        """A copy of a box.

        Raises:
            CheckpointError: a piece is damaged.
        """
        import numpy as np

        array = self.array()
        places = tuple(slice(o, o + n) for o, n in zip(start, sizes, strict=True))[: array.ndim]
        try:
            found: Any = array[places].read().result()
        except (ValueError, OSError, RuntimeError) as cause:
            raise CheckpointError(f"{self.where}: {_said(cause)}", _TORN) from cause
        bits: Bits = np.ascontiguousarray(found).reshape(sizes)
        return bits


def _entry(store: Store, name: str, opened: Opened, order: int, where: str) -> Entry:
    array = opened.array()
    dtype, shape = str(array.dtype.name), tuple(map(int, array.shape))
    key = name or where
    component = components.foreign(key)
    file = store.folder / (MANIFEST if store.kind == "ocdbt" else _V2 if store.kind == "zarr" else _V3)
    relative = f"{where}/{file.name}" if where else file.name
    if dtype not in ITEMSIZE:
        reason = f"{key}: an array of {dtype}, which is not read"
        return Entry(name, component, UNREAD, (), key=key, file=relative, reason=reason)
    if component == "unknown" and shape:
        component = "rng" if _is_key(key, dtype, shape) else "weights"
    part = Part((0,) * len(shape), shape, (str(file), order), lambda: opened)
    return Entry(name, component, dtype, shape, () if 0 in shape else (part,), key=key, file=relative)


def _is_key(name: str, dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether an array is one of JAX's random keys, or several."""
    last = name.replace("/", ".").rpartition(".")[2].lower()
    return dtype == "uint32" and shape[-1] in (2, 4) and (last == "key" or last.endswith(("_key", "keys")))


def verify(store: Store) -> None:
    """Check that each array of a store can be opened, and each piece of it read.

    Raises:
        CheckpointError: torn, or not to be looked at.
    """
    context, extent = _context(), _extent(store)
    for name, driver, kvstore in _arrays(store):
        opened = Opened(store.folder, name, driver, kvstore, context)
        array = opened.array()
        extent.take(array.dtype.numpy_dtype.itemsize, array.shape)
        _require_pieces(store.folder, array, name, kvstore)
        shape = tuple(map(int, array.shape))
        rows = max(1, _CACHE // 4 // max(1, math.prod(shape[1:]) * array.dtype.numpy_dtype.itemsize))
        for start in range(0, shape[0] if shape else 1, rows):
            size = min(rows, shape[0] - start) if shape else 1
            opened.box((start, *(0 for _ in shape[1:])), (size, *shape[1:]))


def _require_pieces(folder: Path, array: Any, name: str, kvstore: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Where no value stands for a piece that is not there, all of them must be."""
    if array.fill_value is not None or 0 in array.shape:
        return
    chunks = array.chunk_layout.write_chunk.shape or array.shape
    expected = math.prod(-(-n // c) for n, c in zip(array.shape, chunks, strict=True))
    keys = (key.rpartition("/")[2] for key in _listed(folder, kvstore))
    held = sum(not key.startswith((".z", _V3)) for key in keys)
    if held < expected:
        raise CheckpointError(f"{folder}/{name}: found {held} pieces, expected {expected}", _TORN)
