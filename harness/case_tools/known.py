"""Cases by folder: run, not run with the reason, or unreadable with the error.

Nothing here stops at the first broken file: a whole checkout is to be accounted for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.errors import CaseError, HarnessError, NothingToDo
from harness.matrix import CASE_FILE, HARDWARE, MEGATRON_ON_CPU
from harness.repository import from_the_root

if TYPE_CHECKING:
    from harness.cases import Case

State = Literal["run", "not run", "unreadable"]
#: Where a checkout of Megatron-LM has its cases, and their goldens beside them.
IN_CHECKOUT = Path("tests", "functional_tests", "test_cases")
_HARDWARE = "h100"  # what Megatron-LM's cases are for; a case of ours says what else it runs on


@dataclass(frozen=True)
class KnownCase:
    """A case by its folder.

    Args:
        name: its folder's.
        path: its folder.
        state: whether the harness runs it.
        reason: why not; empty when it does.
        remark: what it needs to be run; empty for nothing.
        case: the case itself, when its file can be read.
    """

    name: str
    path: Path
    state: State
    reason: str
    remark: str
    case: Case | None

    def iterations(self, platform: str | None) -> int | None:
        """How many iterations it trains on a platform (on its GPUs, for one we do not know)."""
        if self.case is None:
            return None
        if platform == MEGATRON_ON_CPU:
            return _iterations(self.case.trained_by("megatron", "cpu"), "cpu")
        known = [name for name, hardware in HARDWARE.items() if hardware.platform == platform]
        return _iterations(self.case, known[0] if known else _HARDWARE)


def _iterations(case: Case, hardware: str) -> int | None:
    try:
        return case.train_iters(hardware)
    except HarnessError:
        return None


@dataclass(frozen=True)
class KnownCases:
    """All cases below a folder.

    Args:
        root: the folder.
        all: in the order of their folders.
        links: folders that are symbolic links, which are not followed.
    """

    root: Path
    all: tuple[KnownCase, ...] = ()
    links: tuple[Path, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, list[KnownCase]]:
        """The cases of each name; more than one is one too many."""
        found: dict[str, list[KnownCase]] = {}
        for case in self.all:
            found.setdefault(case.name, []).append(case)
        return found

    def of(self, folder: Path) -> KnownCase | None:
        """The case that the goldens in ``folder`` are of: the one there, else the one of its name."""
        same = self.by_name.get(folder.name, [])
        return next((case for case in same if case.path == folder), same[0] if same else None)


def root_of(path: Path) -> Path:
    """The folder that is meant: a checkout's cases for a checkout, a file's folder for a file."""
    inside = path / IN_CHECKOUT
    if inside.is_dir():
        return inside
    return path if path.is_dir() else path.parent


def known_cases(path: Path) -> KnownCases:
    """Every case below ``path``: a store, a part of one, a case's folder or file, a checkout.

    Raises:
        CaseError: there is nothing at ``path``.
    """
    if not path.exists():
        what = "is a symbolic link that leads nowhere" if path.is_symlink() else "is not there"
        advice = from_the_root(path) or "check the path"
        raise CaseError(f"{path}: {what}, expected a folder of cases", advice)
    root = root_of(path)
    links: list[Path] = []
    found = tuple(_known(folder) for folder in _case_folders(root, links))
    return KnownCases(root, found, tuple(links))


def some_cases(path: Path) -> KnownCases:
    """The same, and NothingToDo where there are none."""
    found = known_cases(path)
    if not found.all:
        raise NothingToDo(f"{path}: holds no case ({CASE_FILE})", "check the path")
    return found


def _case_folders(root: Path, links: list[Path]) -> Iterator[Path]:
    """Folders that hold a case file, at any depth; links to folders are left out."""
    for here, folders, files in os.walk(root):
        folders.sort()
        links += [Path(here, name) for name in folders if Path(here, name).is_symlink()]
        if CASE_FILE in files or CASE_FILE in folders:
            yield Path(here)
        folders[:] = [name for name in folders if not name.startswith(".") and name != CASE_FILE]


def _known(folder: Path) -> KnownCase:
    from harness.case_tools.reasons import needs, reason_not_run
    from harness.cases import load_case

    name = folder.absolute().name
    try:
        case = load_case(folder)
        reason = reason_not_run(case, _HARDWARE)
        if reason is None:
            _fit(case)
    except HarnessError as error:
        said = error.message.removeprefix(f"{(folder / CASE_FILE).absolute()}: ")
        return KnownCase(name, folder, "unreadable", said, "", None)
    state: State = "not run" if reason else "run"
    return KnownCase(name, folder, state, reason or "", "" if reason else needs(case), case)


def _fit(case: Case) -> None:
    """Numbers that a run would stumble over."""
    from harness.trainers import TRAINERS

    for hardware in HARDWARE:
        trainer = case.trainer(hardware)
        if trainer not in TRAINERS:
            raise CaseError(
                f"HARNESS: trainer: {hardware}: found {trainer!r}, expected {' or '.join(TRAINERS)}"
            )
        case.train_iters(hardware)
        case.save_interval(hardware)
        case.world_size(hardware)
