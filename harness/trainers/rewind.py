"""Checkpoint folders as Megatron-LM lays them out, put back to an earlier iteration."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from harness.checkpoints.folders import TRACKER, iter_dir, iterations
from harness.errors import CheckpointError
from harness.trainers.killed import IterSaving, Left, left_in_iter_folders, linked

if TYPE_CHECKING:
    from harness.trainers.base import Phase


def rewind_folder(source: Path, target: Path, k: int) -> None:
    """Make ``target`` look as if the run that saved into ``source`` had stopped at iteration ``k``.

    The checkpoint is hard-linked, copied where the file system cannot; ``source`` stays as it is.

    Raises:
        CheckpointError: there is no checkpoint of ``k`` in ``source``.
    """
    wanted = iter_dir(source, k)
    if not wanted.is_dir():
        there = ", ".join(map(str, iterations(source))) or "none"
        raise CheckpointError(
            f"{source}: no checkpoint of iteration {k}; found: {there}",
            "see the log of the phase that should have saved it",
        )
    shutil.copytree(wanted, target / wanted.name, copy_function=_link)
    (target / TRACKER).write_text(f"{k}\n")


class IterFolders:
    """Of trainers whose checkpoints are folders ``iter_<iteration>``."""

    #: Whether each has a manifest, which is written last.
    manifests: ClassVar[bool] = False

    def take_over(self, source: Phase, target: Path) -> None:
        """Fill ``target`` with what ``source`` had left when it was killed, as it stands there."""
        linked(source.save, target)

    def left(self, phase: Phase, like: Phase) -> Left:
        """What ``phase`` has left, which was killed."""
        return left_in_iter_folders(phase.save, like.save, manifest=self.manifests)

    def saved_before(self, phase: Phase, iteration: int, like: Phase) -> Path:  # noqa: ARG002
        """``iter_<iteration>``, whether it is there or not."""
        return iter_dir(phase.save, iteration)

    def saving(self, phase: Phase, like: Phase) -> IterSaving:
        """What ``phase`` saves into, to be looked at while it runs."""
        return IterSaving(phase.save, like.save)

    def kept(self, phase: Phase) -> tuple[int, ...]:
        """All that it has saved."""
        return tuple(sorted(iterations(phase.save)))

    def saved_until(
        self,
        folder: Path,
        k: int,
        *,
        after: Path | None = None,  # noqa: ARG002
    ) -> frozenset[tuple[str, int, int]]:
        """Name, size and time of the files of all checkpoints of ``k`` and before."""
        found = set()
        for iteration in iterations(folder):
            for path in iter_dir(folder, iteration).rglob("*") if iteration <= k else ():
                about = path.stat()
                found.add((str(path), about.st_size, about.st_mtime_ns))
        return frozenset(found)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
