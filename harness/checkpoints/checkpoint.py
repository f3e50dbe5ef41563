"""Open a checkpoint of any format as one table of global names.

Native checkpoints (``torch`` and ``torch_dist``) give the same names whatever the layout. Anybody
else's files are nests flattened into dotted names; files that are no nest are compared as bytes.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.checkpoints import components
from harness.checkpoints.archives import Stored, is_torch_file, read_json, read_nest, resolve
from harness.checkpoints.distcp import METADATA, Item, read_metadata
from harness.checkpoints.entries import Entry, Part, Reader
from harness.checkpoints.flatten import Value, flatten
from harness.checkpoints.folders import (
    MANIFEST,
    TRACKER,
    iter_dir,
    latest,
    read_manifest,
)
from harness.checkpoints.pickles import TensorRef
from harness.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

NATIVE_FORMAT = "native-torch-1"
_RANK_FOLDER = re.compile(r"mp_rank_(\d+)(?:_(\d+))?(?:_(\d+))?")
#: Files that stand beside a training state and are none.
_BESIDE = (
    "*.log", "*.txt", "*.md", "*.html", "*.png", "*.lock", "*.yaml", "*.yml", "*.toml", "*.csv",
    "events.out.tfevents.*", "metrics.jsonl", MANIFEST,
)  # fmt: skip
_TORN = "the checkpoint is torn: take an earlier one"


@dataclass(frozen=True)
class Checkpoint:
    """Names and where their values are; nothing is read until it is asked for.

    Args:
        path: file or folder.
        format: ``torch`` (mp_rank folders), ``torch_dist`` (DCP) or ``generic``.
        native: written by the native trainer: names are global and follow its naming.
        entries: by name.
        layout: tp, pp, dp, ep, etp as the manifest says; empty when nothing does.
        aliases: tied copies, by name, and what each must equal.
        skipped: files that are no training state (logs, text).
    """

    path: Path
    format: Literal["torch", "torch_dist", "generic"]
    native: bool
    entries: Mapping[str, Entry]
    layout: Mapping[str, int] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self.entries)

    def component(self, name: str) -> str:
        """The design's word for what a name belongs to."""
        return self._entry(name).component

    def meta(self, name: str) -> tuple[str, tuple[int, ...]]:
        """(dtype, global shape) of a name."""
        entry = self._entry(name)
        return entry.dtype, entry.shape

    def read(self, name: str) -> torch.Tensor:
        """The whole tensor of a name; text and bytes as uint8, Python numbers as 64 bits.

        Raises:
            CheckpointError: no such name, torn, or parts of it are missing.
        """
        import numpy as np
        import torch

        entry = self._entry(name)
        with Reader() as reader:
            found = [bits.copy() for _, bits in reader.stream(entry)]
        empty = np.empty(0, "u1")
        flat: NDArray[Any] = np.concatenate([b.reshape(-1) for b in found]).view("u1") if found else empty
        python = {"Python int": "int64", "Python float": "float64", "Python bool": "bool",
                  "Python complex": "complex128"}  # fmt: skip
        dtype = getattr(torch, python.get(entry.dtype, entry.dtype), torch.uint8)
        if not flat.size:
            return torch.empty(entry.shape, dtype=dtype)
        return torch.from_numpy(flat).view(dtype).reshape(entry.shape)

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise CheckpointError(f"{self.path}: holds no {name}")
        return self.entries[name]


def open_checkpoint(path: Path) -> Checkpoint:
    """Open an iteration's folder, a folder with a tracker (its latest), any folder, or one file.

    Raises:
        CheckpointError: not there, torn, or it would need code to be read.
    """
    path = Path(path)
    if path.is_file():
        return _generic(path, [path], {})
    if not path.is_dir():
        raise CheckpointError(f"{path}: not found, expected a checkpoint", "check the path")
    if (path / TRACKER).is_file() and not (path / METADATA).is_file():
        iteration = latest(path)
        if iteration is not None:
            path = iter_dir(path, iteration)
    manifest = read_manifest(path) or {}
    layout = {
        key: value
        for key, value in (manifest.get("layout") or {}).items()
        if isinstance(value, int) and key in ("tp", "pp", "dp", "ep", "etp")
    }
    if (path / METADATA).is_file() or any(path.glob("*.distcp")):
        return _dist(path, layout)
    ranks = sorted(p for p in path.iterdir() if p.is_dir() and _RANK_FOLDER.fullmatch(p.name))
    if ranks:
        return _ranks(path, ranks, layout)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    if not files:
        raise CheckpointError(f"{path}: holds no file, expected a checkpoint", _TORN)
    return _generic(path, files, layout)


# -- parts ---------------------------------------------------------------------------------------


def _part(ref: TensorRef, path: Path, offsets: tuple[int, ...], key: int = 0) -> Part:
    @cache
    def opened() -> Stored:
        return resolve(ref, path)

    return Part(offsets, ref.sizes, (str(path), key), opened)


def _whole(name: str, leaf: TensorRef | Value, path: Path, order: int, rank: str = "") -> Entry:
    """A leaf of somebody's nest as an entry of its own."""
    component = components.foreign(name)
    if isinstance(leaf, Value):
        return Entry(
            name,
            component,
            leaf.dtype,
            leaf.shape,
            data=leaf.data,
            per_rank=bool(rank),
            state=components.is_training_state(name),
        )
    part = _part(leaf, path, (0,) * len(leaf.sizes), order)
    if component == "unknown" and leaf.sizes:
        component = "weights"
    return Entry(name, component, leaf.dtype, leaf.sizes, (part,), per_rank=bool(rank))


# -- torch_dist ----------------------------------------------------------------------------------


def _dist_part(item: Item, dtype: str) -> Part:
    @cache
    def opened() -> Stored:
        ref = read_nest(item.path, item.start, item.length, item.name)
        where = f"{item.path} ({item.name})"
        if not isinstance(ref, TensorRef):
            raise CheckpointError(f"{where}: found {type(ref).__name__}, expected a tensor", _TORN)
        if (ref.dtype, ref.sizes) != (dtype, item.sizes):
            raise CheckpointError(
                f"{where}: found {ref.dtype} {list(ref.sizes)}, expected {dtype} {list(item.sizes)}",
                _TORN,
            )
        return resolve(ref, item.path)

    return Part(item.offsets or (), item.sizes, (str(item.path), item.start), opened)


def _dist(path: Path, layout: Mapping[str, int]) -> Checkpoint:
    found = read_metadata(path)
    native = not found.objects and components.all_native(found.tensors)
    entries: dict[str, Entry] = {}
    for name, tensor in found.tensors.items():
        parts = tuple(_dist_part(item, tensor.dtype) for item in tensor.items if 0 not in item.sizes)
        component = components.native(name) if native else components.foreign(name)
        if component == "unknown" and tensor.shape:
            component = "weights"
        entries[name] = Entry(
            name,
            component,
            tensor.dtype,
            tensor.shape,
            parts,
            per_rank=native and components.is_per_rank(name),
        )
    for name, item in found.objects.items():
        nest = read_nest(item.path, item.start, item.length, name)
        for i, (key, leaf) in enumerate(flatten(nest, f"{item.path} ({name})", name).items()):
            entries[key] = _whole(key, leaf, item.path, item.start + i)
    beside = {item.path for item in found.objects.values()}
    beside |= {item.path for tensor in found.tensors.values() for item in tensor.items}
    others = [
        p
        for p in sorted(path.rglob("*"))
        if p.is_file() and p not in beside and p.suffix != ".distcp" and p.name != METADATA
    ]
    if others and not native:
        more = _generic(path, others, {}, single=False)
        entries |= more.entries
        return Checkpoint(path, "torch_dist", native, entries, layout, {}, more.skipped)
    return Checkpoint(path, "torch_dist", native, entries, layout)


# -- torch ---------------------------------------------------------------------------------------


def _ranks(path: Path, ranks: list[Path], layout: Mapping[str, int]) -> Checkpoint:
    _check_grid(path, ranks)
    files = [p for rank in ranks for p in sorted(rank.rglob("*.pt"))]
    for rank in ranks:
        if not any(rank in p.parents for p in files):
            raise CheckpointError(f"{rank}: holds no .pt file, expected model_optim_rng.pt", _TORN)
    nests = [(file, read_nest(file)) for file in files]
    if all(isinstance(n, Mapping) and n.get("format") == NATIVE_FORMAT for _, n in nests):
        return _native_torch(path, nests, layout)
    entries: dict[str, Entry] = {}
    for file, nest in nests:
        place = file.relative_to(path).with_suffix("").as_posix()
        for i, (key, leaf) in enumerate(flatten(nest, str(file)).items()):
            name = f"{place}:{key}"
            entries[name] = _whole(key, leaf, file, i, rank=place)
            entries[name] = _renamed(entries[name], name)
    return Checkpoint(path, "torch", native=False, entries=entries, layout=layout)


def _renamed(entry: Entry, name: str) -> Entry:
    from dataclasses import replace

    return replace(entry, name=name)


def _check_grid(path: Path, ranks: list[Path]) -> None:
    """Every tensor rank below the highest must have every pipeline rank below the highest."""
    matches = [m for m in (_RANK_FOLDER.fullmatch(p.name) for p in ranks) if m]
    there = {(int(m[1]), int(m[2] or 0)) for m in matches}
    tensor, pipeline = (max(pair[i] for pair in there) + 1 for i in (0, 1))
    for tp in range(tensor):
        for pp in range(pipeline):
            if (tp, pp) not in there:
                name = f"mp_rank_{tp:02d}" + (f"_{pp:03d}" if pipeline > 1 else "")
                raise CheckpointError(
                    f"{path / name}: not found; found {len(ranks)} rank folders of at least "
                    f"{tensor} x {pipeline}",
                    _TORN,
                )


def _native_torch(path: Path, nests: list[tuple[Path, Any]], layout: Mapping[str, int]) -> Checkpoint:
    boxes: dict[str, dict[tuple[tuple[int, ...], tuple[int, ...]], list[Part]]] = {}
    global_: dict[str, tuple[str, tuple[int, ...], Path]] = {}
    aliases: dict[str, str] = {}
    for file, nest in nests:
        tensors, shards = nest.get("tensors"), nest.get("shards", {})
        if not isinstance(tensors, Mapping) or not isinstance(shards, Mapping):
            raise CheckpointError(f"{file}: holds no tensors, expected {NATIVE_FORMAT}", _TORN)
        aliases |= {str(k): str(v) for k, v in (nest.get("aliases") or {}).items()}
        for i, (name, ref) in enumerate(tensors.items()):
            if not isinstance(ref, TensorRef):
                raise CheckpointError(f"{file}: {name} is no tensor", _TORN)
            shape, offsets = _shard(shards.get(name), ref, f"{file}: {name}")
            known = global_.setdefault(name, (ref.dtype, shape, file))
            if known[:2] != (ref.dtype, shape):
                raise CheckpointError(
                    f"{file}: {name} is {ref.dtype} {list(shape)}, but {known[0]} {list(known[1])} "
                    f"in {known[2]}",
                    _TORN,
                )
            same = boxes.setdefault(name, {}).setdefault((offsets, ref.sizes), [])
            same.append(_part(ref, file, offsets, i))
    entries = {}
    for name, (dtype, shape, _) in global_.items():
        held = [parts for (_, sizes), parts in boxes[name].items() if 0 not in sizes]
        entries[name] = Entry(
            name,
            components.native(name),
            dtype,
            shape,
            tuple(parts[0] for parts in held),
            copies=tuple(copy for parts in held for copy in parts[1:]),
            per_rank=components.is_per_rank(name),
        )
    return Checkpoint(path, "torch", native=True, entries=entries, layout=layout, aliases=aliases)


def _shard(about: Any, ref: TensorRef, where: str) -> tuple[tuple[int, ...], tuple[int, ...]]:  # noqa: ANN401
    """(global shape, offsets) of a stored tensor."""
    if about is None:
        return ref.sizes, (0,) * len(ref.sizes)
    try:
        shape, offsets = (_ints(numbers) for numbers in about)
    except (TypeError, ValueError) as cause:
        raise CheckpointError(f"{where}: shard {about!r:.80}, expected [shape, offset]") from cause
    fits = len(shape) == len(offsets) == len(ref.sizes) and all(
        o >= 0 and o + n <= whole for o, n, whole in zip(offsets, ref.sizes, shape, strict=True)
    )
    if not fits:
        raise CheckpointError(
            f"{where}: {list(ref.sizes)} at {list(offsets)} does not fit into {list(shape)}", _TORN
        )
    return shape, offsets


def _ints(numbers: Any) -> tuple[int, ...]:  # noqa: ANN401 - untyped by nature
    """A list of numbers as unpickled; :func:`flatten` is not involved here."""
    if not isinstance(numbers, (list, tuple)) or not all(type(n) is int for n in numbers):
        raise TypeError(numbers)
    return tuple(numbers)


# -- anybody's -----------------------------------------------------------------------------------


def _generic(
    path: Path, files: Iterable[Path], layout: Mapping[str, int], *, single: bool | None = None
) -> Checkpoint:
    entries: dict[str, Entry] = {}
    skipped: list[str] = []
    wanted: list[Path] = []
    for file in files:
        beside = file != path and any(fnmatch.fnmatch(file.name, known) for known in _BESIDE)
        (skipped if beside else wanted).append(file)  # type: ignore[arg-type]
    alone = len(wanted) == 1 if single is None else single
    for file in wanted:
        place = "" if alone else file.relative_to(path).as_posix() + ":"
        for i, (key, leaf) in enumerate(_leaves(file).items()):
            name = f"{place}{key}"
            entries[name] = leaf(name, i)
    names = tuple(str(Path(file).relative_to(path)) for file in skipped)
    return Checkpoint(path, "generic", native=False, entries=entries, layout=layout, skipped=names)


def _leaves(file: Path) -> dict[str, Callable[[str, int], Entry]]:
    """What makes the entries of a file, by name inside it."""
    size = file.stat().st_size
    if size == 0 and file.suffix in (".pt", ".pth", ".ckpt", ".bin"):
        raise CheckpointError(f"{file}: has 0 bytes, expected a torch.save archive", _TORN)
    if is_torch_file(file) or file.suffix in (".pt", ".pth", ".ckpt"):
        nest: Any = read_nest(file)
    elif file.suffix == ".json":
        nest = read_json(file)
    else:
        stored = Stored(file, 0, "uint8", (size,), (1,))
        part = Part((0,), (size,), (str(file), 0), lambda: stored)
        component = components.foreign(file.name)

        def raw(name: str, _: int) -> Entry:
            parts = (part,) if size else ()
            return Entry(name, component, "uint8", (size,), parts)

        return {"bytes": raw}

    def maker(leaf: TensorRef | Value) -> Callable[[str, int], Entry]:
        return lambda name, order: _whole(name, leaf, file, order)

    return {key: maker(leaf) for key, leaf in flatten(nest, str(file)).items()}
