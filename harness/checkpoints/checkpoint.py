"""Open a checkpoint of any format as one table of global names.

Native checkpoints (``torch`` and ``torch_dist``) give the same names whatever the layout. Anybody
else's files are nests flattened into dotted names; files that are no nest are compared as bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.checkpoints import components, distributed
from harness.checkpoints.archives import read_nest
from harness.checkpoints.distcp import METADATA
from harness.checkpoints.entries import Entry, Part, Reader
from harness.checkpoints.folders import (
    MANIFEST,
    TRACKER,
    iter_dir,
    latest,
    read_manifest,
)
from harness.checkpoints.foreign import files_below, leaves, part_of
from harness.checkpoints.gathering import Found, entries_of
from harness.checkpoints.inert import TensorRef
from harness.checkpoints.places import Places
from harness.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

NATIVE_FORMAT = "native-torch-1"
_NATIVE_KEYS = ("format", "tensors", "shards", "aliases")
#: What the native trainer writes into its manifest: all of it speaks of files, or is compared as an entry.
_MANIFEST_KEYS = {"iteration", "format", "layout", "files"}
_RANK_FOLDER = re.compile(r"mp_rank_(\d+)(?:_(\d+))?(?:_(\d+))?")
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
        structure: files that say where the entries are, and hold nothing else; relative to the path.
        files: every file, likewise.
    """

    path: Path
    format: Literal["torch", "torch_dist", "generic"]
    native: bool
    entries: Mapping[str, Entry]
    layout: Mapping[str, int] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    structure: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

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

    def files_of(self, entry: Entry) -> tuple[str, ...]:
        """The files that an entry lies in, relative to the checkpoint."""
        if entry.file:
            return (entry.file,)
        where = {part.order[0] for part in (*entry.parts, *entry.copies)}
        return tuple(sorted(os.path.relpath(file, self.path) for file in where))

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise CheckpointError(f"{self.path}: holds no {name}")
        return self.entries[name]


def iteration_of(path: Path) -> Path:
    """The folder of an iteration: the latest of a folder with a tracker, which is not one itself.

    Raises:
        CheckpointError: the tracker names none that is there.
    """
    if (path / TRACKER).is_file() and not (path / METADATA).is_file():
        iteration = latest(path)
        if iteration is not None:
            return iter_dir(path, iteration)
    return path


def open_checkpoint(
    path: Path,
    places: Places | None = None,
    *,
    single: bool | None = None,
    as_bytes: Collection[Path] = (),
) -> Checkpoint:
    """Open an iteration's folder, a folder with a tracker (its latest), any folder, or one file.

    Args:
        places: folders that stand in names and texts by their placeholders; None: none.
        single: of anybody's only file: leave its name out of the entries' (None: yes).
        as_bytes: files that are not looked into.

    Raises:
        CheckpointError: not there, or nothing in it can be read: torn, or it would need code. Where some of
            its files can be read, an entry stands for each that cannot.
    """
    path, places = Path(path), places or Places()
    if path.is_file():
        entries = entries_of(path, [path], places, single=single, as_bytes=as_bytes).entries
        return Checkpoint(path, "generic", native=False, entries=entries, files=(path.name,))
    if not path.is_dir():
        raise CheckpointError(f"{path}: not found, expected a checkpoint", "check the path")
    path = iteration_of(path)
    manifest = read_manifest(path)
    layout = {
        key: value
        for key, value in ((manifest or {}).get("layout") or {}).items()
        if isinstance(value, int) and key in ("tp", "pp", "dp", "ep", "etp")
    }
    files = files_below(path)
    if not files:
        raise CheckpointError(f"{path}: holds no file, expected a checkpoint", _TORN)
    ours = manifest is not None and manifest.keys() <= _MANIFEST_KEYS
    folder = _Folder(path, files, places, layout, ours, as_bytes)
    if (path / METADATA).is_file() or any(path.glob("*.distcp")):
        return _dist(folder)
    ranks = sorted(p for p in path.iterdir() if p.is_dir() and _RANK_FOLDER.fullmatch(p.name))
    inside = [file for file in files if _inside(file, ranks)]
    if ranks and (not inside or any(file.suffix == ".pt" for file in inside)):
        return _ranks(folder, ranks)
    others = folder.others((), single=single)
    return folder.checkpoint("generic", others.entries, read=others.structure)


@dataclass(frozen=True)
class _Folder:
    """A folder that is being opened.

    Args:
        ours: its manifest is one of the native trainer.
        as_bytes: files that are not looked into.
    """

    path: Path
    files: list[Path]
    places: Places
    layout: Mapping[str, int]
    ours: bool
    as_bytes: Collection[Path] = ()

    def relative(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()

    def others(self, known: Collection[Path], *, single: bool | None = False) -> Found:
        """What all files hold that were not read yet."""
        structure = {self.path / MANIFEST} if self.ours else set()
        rest = [file for file in self.files if file not in known and file not in structure]
        return entries_of(self.path, rest, self.places, single=single, as_bytes=self.as_bytes)

    def checkpoint(
        self,
        kind: Literal["torch", "torch_dist", "generic"],
        entries: Mapping[str, Entry],
        *,
        read: Collection[Path],
        native: bool = False,
        aliases: Mapping[str, str] | None = None,
    ) -> Checkpoint:
        if entries and all(entry.unread_file for entry in entries.values()):
            raise CheckpointError(*next(iter(entries.values())).reason.split(" — ", 1))
        structure = {self.relative(file) for file in read}
        if self.ours:
            structure.add(MANIFEST)
        files = tuple(map(self.relative, self.files))
        return Checkpoint(
            self.path, kind, native, entries, self.layout, aliases or {}, tuple(sorted(structure)), files
        )


# -- torch_dist ----------------------------------------------------------------------------------


def _dist(folder: _Folder) -> Checkpoint:
    own = distributed.folders(folder.files).get(folder.path, [])
    try:
        found = distributed.read(folder.path, folder.path, own, folder.places, ours=folder.ours)
    except CheckpointError:
        others = folder.others(())
        return folder.checkpoint("torch_dist", others.entries, read=others.structure)
    others = folder.others(found.files)
    read = {*found.files, *others.structure}
    return folder.checkpoint("torch_dist", found.entries | others.entries, read=read, native=found.native)


# -- torch ---------------------------------------------------------------------------------------


def _ranks(folder: _Folder, ranks: list[Path]) -> Checkpoint:
    _check_grid(folder.path, ranks)
    files = [file for file in folder.files if file.suffix == ".pt" and _inside(file, ranks)]
    for rank in ranks:
        if not any(rank in p.parents for p in files):
            raise CheckpointError(f"{rank}: holds no .pt file, expected model_optim_rng.pt", _TORN)
    nests = list(_readable(files))
    if nests and all(isinstance(n, Mapping) and n.get("format") == NATIVE_FORMAT for _, n in nests):
        return _native_torch(folder, nests)
    entries: dict[str, Entry] = {}
    for file, nest in nests:
        where = folder.relative(file)
        place = where.removesuffix(".pt")
        for leaf in leaves(nest, file, where, folder.places, rank=True):
            name = f"{place}:{leaf.key}"
            entries[name] = leaf.named(name)
    others = folder.others([file for file, _ in nests])
    return folder.checkpoint("torch", entries | others.entries, read=others.structure)


def _readable(files: Iterable[Path]) -> Iterator[tuple[Path, Any]]:
    """What can be read; whoever looks at the other files says why they cannot."""
    for file in files:
        try:
            yield file, read_nest(file)
        except CheckpointError:
            continue


def _inside(file: Path, folders: Collection[Path]) -> bool:
    return any(folder in file.parents for folder in folders)


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


def _native_torch(folder: _Folder, nests: list[tuple[Path, Any]]) -> Checkpoint:
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
            same.append(part_of(ref, file, offsets, i))
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
            key=name,
        )
    for file, nest in nests:  # what the format has no place for
        more = {key: value for key, value in nest.items() if key not in _NATIVE_KEYS}
        where = folder.relative(file)
        for leaf in leaves(more, file, where, folder.places) if more else ():
            entries[f"{where}:{leaf.key}"] = leaf.named(f"{where}:{leaf.key}")
    read = [file for file, _ in nests]
    others = folder.others(read)
    entries |= others.entries
    read += others.structure
    return folder.checkpoint("torch", entries, read=read, native=True, aliases=aliases)


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
