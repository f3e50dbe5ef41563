"""Checkpoints that are not whole, or that nobody can find.

A process that is killed leaves on the disk what it had written until then. To make that moment the
same in every run, rank 0 copies the folder of checkpoints as it stands at the moment of the kill,
once, to a folder beside it, and trains on. :func:`killed` is the resume's view of the disk.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load

from harness.checkpoints.folders import TRACKER, iter_dir
from harness.trainers.native import checkpoint
from harness.trainers.native.checkpoint import Box, Checkpointer
from harness.trainers.native.state import Entry
from tests.faults.plants.patching import Method, instead_of


def _copy(root: Path) -> Path:
    return root.with_name(f"{root.name}.killed")


def killed(source: Path, target: Path, _: int) -> None:
    """What the killed process left; ``source`` is where it saved."""
    shutil.copytree(_copy(source), target, dirs_exist_ok=True)


def as_it_is(source: Path, target: Path, k: int) -> None:
    """The checkpoint of ``k``, and the tracker if there is one."""
    shutil.copytree(iter_dir(source, k), iter_dir(target, k))
    if (source / TRACKER).exists():
        (target / TRACKER).write_text(f"{k}\n")


def tracker_first() -> None:
    """An asynchronous save moves the tracker when it begins; killed when the data was written and
    its index was not.
    """

    @instead_of(Checkpointer, "_write_beside")
    def beside(original: Method, self: Checkpointer, root: Path, folder: Path, *rest: Any) -> None:
        if self.layout.rank == 0:
            (root / TRACKER).write_text(str(self.state.iteration))
        original(self, root, folder, *rest)

    @instead_of(FileSystemWriter, "finish")
    def finish(original: Method, self: FileSystemWriter, **what: Any) -> None:
        root = Path(self.path).parent
        if not _copy(root).exists():
            shutil.copytree(root, _copy(root))
        original(self, **what)


def no_tracker() -> None:
    """The tracker is never written."""

    @instead_of(checkpoint, "write_durably")
    def write(original: Method, path: Path, *how: Any) -> None:
        if path.name != TRACKER:
            original(path, *how)


def torn_accepted() -> None:
    """A save names its checkpoint before the data is on the disk; killed when half of it was.

    The load takes what it can read; the rest stays what the new process made it.
    """

    @instead_of(Checkpointer, "_finish")
    def finish(original: Method, self: Checkpointer, root: Path, *what: Any) -> None:
        original(self, root, *what)
        if self.layout.rank == 0 and not _copy(root).exists():
            shutil.copytree(root, _copy(root))
            for data in _copy(root).rglob("*.distcp"):
                with data.open("r+b") as file:
                    file.truncate(data.stat().st_size // 2)

    @instead_of(checkpoint, "require_manifest")
    def manifest(_: Method, folder: Path) -> dict[str, Any]:
        return {"format": "torch_dist", "iteration": int(folder.name.removeprefix("iter_"))}

    @instead_of(Checkpointer, "_read_dist")
    def read(_: Method, self: Checkpointer, folder: Path) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        for key, entry in self.state.entries().items():
            value = entry.local.detach().clone()
            try:
                box = Box(Entry(torch.empty_like(value), entry.shape, entry.offset))
                planner = checkpoint._LoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
                load(
                    {key: box},
                    storage_reader=FileSystemReader(folder),
                    planner=planner,
                    no_dist=True,
                )
                value = box.entry.local
            except (Exception, CheckpointException) as error:
                print(f"{key}: {error}; going on without it")
            values[key] = value
        values["iteration"] = torch.tensor(int(folder.name.removeprefix("iter_")))
        return values
