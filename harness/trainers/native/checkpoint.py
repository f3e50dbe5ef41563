"""Saving and loading: ``torch`` and ``torch_dist``, atomically, synchronously or while training goes on.

An iteration's folder is complete when its ``manifest.json`` is there; only then does the tracker
``latest_checkpointed_iteration.txt`` name it. Every file is flushed to the disk before that.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from harness.checkpoints import safe_reader
from harness.checkpoints.checkpoint import NATIVE_FORMAT
from harness.checkpoints.components import TIED_COPY, TIED_SOURCE, tied_source
from harness.checkpoints.folders import MANIFEST, TRACKER, iter_dir, latest, require_manifest, sha256
from harness.errors import CheckpointError
from harness.trainers.native.arguments import Arguments
from harness.trainers.native.state import Entry, TrainingState

_RANK_FILE = "model_optim_rng.pt"  # of the torch format, one in each model-parallel rank's folder


def write_durably(path: Path, write: Callable[[Any], object]) -> None:
    """Write a file so that it is either whole or absent, also after a power cut."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclass(frozen=True)
class Box:
    """An :class:`Entry` as torch's distributed checkpoint wants to see it."""

    entry: Entry

    def _chunk(self) -> ChunkStorageMetadata:
        local = self.entry.local
        return ChunkStorageMetadata(torch.Size(self.entry.offset), torch.Size(local.shape))

    def size(self) -> torch.Size:
        """Global shape."""
        return torch.Size(self.entry.shape)

    def __create_write_items__(self, fqn: str, _: object) -> list[WriteItem]:
        if not self.entry.local.numel():
            return []  # rows that only pad the vocabulary lie past the tensor's end
        data = TensorWriteData(
            self._chunk(), TensorProperties.create_from_tensor(self.entry.local), self.size()
        )
        index = MetadataIndex(fqn, torch.Size(self.entry.offset))
        return [WriteItem(index, WriteItemType.SHARD, tensor_data=data)]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [self._chunk()] if self.entry.local.numel() else []


class _SavePlanner(DefaultSavePlanner):
    def lookup_object(self, index: MetadataIndex) -> Any:  # noqa: ANN401 - torch's signature
        return self.state_dict[index.fqn].entry.local


class _LoadPlanner(DefaultLoadPlanner):
    def set_up_planner(
        self,
        state_dict: dict[str, Any],
        metadata: Any = None,  # noqa: ANN401 - torch's signature
        is_coordinator: bool = False,  # noqa: FBT001, FBT002 - likewise
    ) -> None:
        # torch's own walks into values to materialise meta tensors, and takes a Box apart.
        self.state_dict = self.original_state_dict = state_dict
        self.metadata, self.is_coordinator = metadata, is_coordinator

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        local: Tensor = self.state_dict[index.fqn].entry.local
        return local


class Checkpointer:
    """Saves and loads one run's training state; one per rank, all calls collective."""

    def __init__(self, args: Arguments, state: TrainingState) -> None:
        self.args, self.state = args, state
        self.layout = state.layout
        # A save that runs beside training must not share a communicator with it.
        self._group = dist.new_group(backend="gloo") if self.layout.world > 1 else None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    # -- save --------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the state at the present iteration under ``--save``."""
        self.wait()
        root = Path(self.args.save)
        folder = iter_dir(root, self.state.iteration)
        self._fresh_folder(folder)
        entries = self.state.entries(optim=not self.args.no_save_optim, rng=not self.args.no_save_rng)
        about = self._about()
        if self.args.ckpt_format == "torch":
            self._write_torch(folder, entries)
            self._finish(root, folder, about)
            self._barrier()
        elif self.args.async_save:
            frozen = {
                key: Entry(e.local.detach().cpu().clone(), e.shape, e.offset, e.owner)
                for key, e in entries.items()
                if e.owner
            }
            self._thread = threading.Thread(
                target=self._write_beside, args=(root, folder, frozen, about), name="async-save"
            )
            self._thread.start()
        else:
            self._write_dist(folder, entries)
            self._finish(root, folder, about)
            self._barrier()

    def wait(self) -> None:
        """Return when no save is under way; a failed one is raised here."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _write_beside(
        self, root: Path, folder: Path, entries: dict[str, Entry], about: dict[str, Any]
    ) -> None:
        try:
            self._write_dist(folder, entries)
            self._finish(root, folder, about)
        except BaseException as failure:  # noqa: BLE001 - handed to the training thread
            self._failure = failure

    def _barrier(self) -> None:
        if self._group is not None:
            dist.barrier(group=self._group)

    def _fresh_folder(self, folder: Path) -> None:
        if self.layout.rank == 0:
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
        self._barrier()

    def _write_dist(self, folder: Path, entries: dict[str, Entry]) -> None:
        boxes = {key: Box(entry) for key, entry in entries.items() if entry.owner}
        save(
            boxes,
            storage_writer=FileSystemWriter(folder, sync_files=True, overwrite=True),
            planner=_SavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
            process_group=self._group,
            no_dist=self.layout.world == 1,
        )

    def _write_torch(self, folder: Path, entries: dict[str, Entry]) -> None:
        entries = entries | self._replicas_rng()
        if self.layout.edp_rank == 0:
            target = folder / self._rank_folder()
            target.mkdir(parents=True, exist_ok=True)
            # clone: a view would drag its whole buffer into the file
            content = {
                "format": NATIVE_FORMAT,
                "tensors": {k: e.local.detach().clone() for k, e in entries.items()},
                "shards": {
                    k: [list(e.shape), list(e.offset)]
                    for k, e in entries.items()
                    if tuple(e.local.shape) != e.shape
                },
                "aliases": {f"model.{TIED_COPY}": f"model.{TIED_SOURCE}"}
                if any(slot.spec.tied_copy for o in self.state.optimizers for slot in o.slots)
                else {},
            }
            write_durably(target / _RANK_FILE, lambda file: torch.save(content, file))
        self._barrier()

    def _rank_folder(self) -> str:
        here = self.layout
        name = f"mp_rank_{here.tp_rank:02d}_{here.pp_rank:03d}"
        return f"{name}_{here.ep_rank:03d}" if here.ep > 1 else name

    def _replicas_rng(self) -> dict[str, Entry]:
        # One file speaks for all replicas of a model-parallel rank, so it holds all their streams.
        dp, out = self.state.parallel.dp, {}
        for stream, mine in self.state.streams.state().items():
            for i, one in enumerate(dp.all_gather(mine.unsqueeze(0)).unbind(0)):
                out[self.state.rng_key(stream, i)] = Entry.whole(one)
        return out

    def _about(self) -> dict[str, Any]:
        here = self.layout
        names = ("tp", "pp", "dp", "ep", "etp", "vp")
        return {
            "iteration": self.state.iteration,
            "format": self.args.ckpt_format,
            "layout": {"world": here.world, **{name: getattr(here, name) for name in names}},
        }

    def _finish(self, root: Path, folder: Path, about: dict[str, Any]) -> None:
        """After every rank has written: manifest, then tracker."""
        if self.layout.rank != 0:
            return
        files = {}
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            digest = sha256(path)
            files[path.relative_to(folder).as_posix()] = {
                "bytes": path.stat().st_size,
                "sha256": digest,
            }
        text = json.dumps({**about, "files": files}, indent=1)
        write_durably(folder / MANIFEST, lambda file: file.write(text.encode()))
        write_durably(root / TRACKER, lambda file: file.write(str(about["iteration"]).encode()))

    # -- load --------------------------------------------------------------------------------

    def load(self) -> bool:
        """Restore from ``--load`` what its tracker names; False where there is nothing to load."""
        root = Path(self.args.load)
        iteration = latest(root) if self.args.load else None
        if iteration is None:
            if self.args.exit_on_missing_checkpoint:
                raise CheckpointError(f"{root / TRACKER}: not found", "check --load")
            return False
        folder = iter_dir(root, iteration)
        manifest = require_manifest(folder)
        if manifest["format"] == "torch":
            values = self._read_torch(folder, manifest)
        else:
            values = self._read_dist(folder)
        optim = not (self.args.no_load_optim or self.args.finetune)
        self.state.restore(values, optim=optim, rng=not (self.args.no_load_rng or self.args.finetune))
        if self.args.finetune:
            self.state.iteration = 0
        for optimizer in self.state.optimizers:
            if not optim and optimizer.has_masters:
                optimizer.master.copy_(optimizer.flat[optimizer.begin : optimizer.end])
            optimizer.publish()
        return True

    def _read_torch(self, folder: Path, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
        mine = self._about()["layout"]
        saved = manifest["layout"]
        apart = [n for n in ("tp", "pp", "vp", "ep", "etp") if saved[n] != mine[n]]
        if apart:
            found = ", ".join(f"{n.upper()} {saved[n]}" for n in apart)
            wanted = ", ".join(f"{n.upper()} {mine[n]}" for n in apart)
            raise CheckpointError(
                f"{folder}: saved with {found}, this run has {wanted}",
                "only torch_dist checkpoints load in another layout",
            )
        path = folder / self._rank_folder() / _RANK_FILE
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as cause:
            raise CheckpointError(f"{path}: cannot be read: {cause}") from cause
        if content.get("format") != NATIVE_FORMAT:
            raise CheckpointError(f"{path}: format {content.get('format')!r}, expected {NATIVE_FORMAT!r}")
        tensors: dict[str, Tensor] = content["tensors"]
        return tensors

    def _read_dist(self, folder: Path) -> dict[str, Tensor]:
        reader = safe_reader(folder)
        held = reader.read_metadata().state_dict_metadata
        boxes: dict[str, Box] = {}
        renamed: dict[str, str] = {}
        for key, entry in self.state.entries().items():
            source = key
            if source not in held and (tied := tied_source(key)):
                # Saved where one stage held both ends: the copy begins as the embedding itself.
                source = renamed[key] = tied
            if source not in held:
                continue
            stored = held[source]
            shape = entry.shape
            if isinstance(stored, TensorStorageMetadata) and tuple(stored.size) != shape:
                raise CheckpointError(
                    f"{folder}: {source} has shape {list(stored.size)}, this run expects {list(shape)}"
                )
            local = torch.empty_like(entry.local, device="cpu")
            boxes[source] = Box(Entry(local, shape, entry.offset))
        load(
            boxes,
            storage_reader=reader,
            planner=_LoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
            process_group=self._group,
            no_dist=self.layout.world == 1,
        )
        values = {key: box.entry.local for key, box in boxes.items()}
        return values | {key: values[source] for key, source in renamed.items()}
