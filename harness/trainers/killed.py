"""What a run that was killed has left: which checkpoints are whole, which are torn, which one is named."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.checkpoints import MANIFEST, TRACKER, iter_dir, iterations, verify
from harness.errors import CheckpointError

#: In the place of an iteration: the one checkpoint of a folder in which no name tells one.
UNNUMBERED = -1


@dataclass(frozen=True)
class Left:
    """What there is in the folder that a killed run has saved into.

    Args:
        whole: iterations whose checkpoint is complete, as far as its files tell.
        torn: iterations whose checkpoint is not, each with what is wrong with it.
        odd: of ``whole``, what those lack that an uninterrupted run's checkpoint has: too little to call them
            torn, and enough to explain a run that does not go on from one as it should.
        committed: the newest iteration that a run must not fall behind; 0 where none is.
        files: whether there is any file at all.
        sure: whether what does not tell its iteration is a checkpoint, and nothing else that stands there.
    """

    whole: frozenset[int] = frozenset()
    torn: Mapping[int, str] = field(default_factory=dict)
    odd: Mapping[int, str] = field(default_factory=dict)
    committed: int = 0
    files: bool = False
    sure: bool = True

    @property
    def unnumbered(self) -> bool:
        """Whether no name there tells an iteration."""
        return UNNUMBERED in self.whole or UNNUMBERED in self.torn

    def sentence(self) -> str:
        """For people."""
        whole = ", ".join(map(str, sorted(self.whole - {UNNUMBERED} - self.odd.keys())))
        said = [f"whole: {whole}"] if whole else []
        if UNNUMBERED in self.whole - self.odd.keys():
            what = "a whole checkpoint that does not tell" if self.sure else "files that do not tell"
            said.append(f"{what} its iteration")
        for iteration, why in sorted(self.odd.items()):
            said.append(f"doubtful: {'the only one' if iteration == UNNUMBERED else iteration} ({why})")
        for iteration, why in sorted(self.torn.items()):
            said.append(f"torn: {'the only one' if iteration == UNNUMBERED else iteration} ({why})")
        if not said:
            return "files, and no checkpoint" if self.files else "nothing"
        return "; ".join(said)


class Saving(Protocol):
    """A folder that is looked at while a run saves into it."""

    @property
    def tracker(self) -> str:
        """What is written when all of a checkpoint is there, and names it; empty where nothing is."""

    def begun(self, iteration: int) -> bool:
        """Whether there is anything of the checkpoint of ``iteration``."""

    def written(self, iteration: int) -> bool:
        """Whether all of it is there, but for what names it."""

    def named(self, iteration: int) -> bool:
        """Whether it is named, too."""


@dataclass(frozen=True)
class IterSaving:
    """Of folders ``iter_<iteration>`` beside a tracker.

    Args:
        folder: which a run saves into.
        like: which an uninterrupted one has saved into; where it has a checkpoint, that one's files are all.
    """

    folder: Path
    like: Path

    tracker = TRACKER

    def begun(self, iteration: int) -> bool:
        """Whether there is a file."""
        here = iter_dir(self.folder, iteration)
        return here.is_dir() and any(here.iterdir())

    def written(self, iteration: int) -> bool:
        """By the manifest, which comes after all data; without one, by the files of another run's."""
        here, there = iter_dir(self.folder, iteration), iter_dir(self.like, iteration)
        if (there / MANIFEST).exists() or not there.is_dir():
            return (here / MANIFEST).exists()
        for path in there.rglob("*"):
            mine = here / path.relative_to(there)
            if path.is_file() and not (mine.is_file() and mine.stat().st_size >= path.stat().st_size):
                return False
        return True

    def named(self, iteration: int) -> bool:
        """By the tracker."""
        return (_tracked(self.folder) or -1) >= iteration


def left_in_iter_folders(folder: Path, like: Path, *, manifest: bool) -> Left:
    """Of folders ``iter_<iteration>`` beside a tracker.

    Args:
        folder: which the killed run has saved into.
        like: the uninterrupted run's.
        manifest: each has one, written last.
    """
    whole, torn, odd = set[int](), dict[int, str](), dict[int, str]()
    for iteration in iterations(folder):
        here = iter_dir(folder, iteration)
        try:
            verify(here, hashes=True, manifest=manifest)
            whole.add(iteration)
            if why := _lacking(here, iter_dir(like, iteration)):
                odd[iteration] = why
        except (CheckpointError, OSError) as error:
            torn[iteration] = error.message if isinstance(error, CheckpointError) else str(error)
    named = _tracked(folder)
    if named is not None and named not in whole:
        torn.setdefault(named, f"{folder / TRACKER} names it, and it is not there")
    committed = max((i for i in whole if named is not None and i <= named), default=0)
    return Left(frozenset(whole), torn, odd, committed, files=any(folder.iterdir()))


def _tracked(folder: Path) -> int | None:
    """The iteration that a tracker names."""
    try:
        text = (folder / TRACKER).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdigit() else None


def _lacking(here: Path, there: Path) -> str:
    """A file that the same checkpoint of another run has, and this one has not."""
    for path in sorted(there.rglob("*")) if there.is_dir() else ():
        if path.is_file() and not (here / path.relative_to(there)).is_file():
            return f"{here / path.relative_to(there)} is not there"
    return ""


def linked(source: Path, target: Path) -> None:
    """Make ``target`` what ``source`` is; data are hard-linked, which nobody writes into again."""

    def place(path: str, copy: str) -> None:
        if os.path.basename(path) != TRACKER:
            with contextlib.suppress(OSError):
                os.link(path, copy)
                return
        shutil.copy2(path, copy)

    shutil.copytree(source, target, copy_function=place, symlinks=True, dirs_exist_ok=True)
