"""What is going to be run: a cell found fit, or refused with one sentence."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cases import Case, find_case
from harness.errors import CaseError, UsageError
from harness.hardware import require
from harness.matrix import HARDWARE, TRACKS, Cell
from harness.trainers import get_trainer
from harness.trainers.base import Trainer

if TYPE_CHECKING:
    from harness.goldens import Golden


@dataclass(frozen=True)
class Plan:
    """A cell that has been found fit to run: everything that can be refused before has not been.

    Args:
        n: iterations in all.
        k: the iteration to resume after.
        golden: what to compare with; None when there is none, or when it is to be recorded.
    """

    cell: Cell
    case: Case
    trainer: Trainer
    golden: Golden | None
    goldens: Path
    n: int
    k: int
    protocol: str
    golden_update: bool
    heartbeat_timeout: float | None
    reproduce: str

    @property
    def platform(self) -> str:
        """The golden's name for this hardware."""
        return HARDWARE[self.cell.hardware].platform

    @property
    def deterministic(self) -> bool:
        """Whether the same run has the same bits."""
        return self.case.deterministic(self.cell.hardware)


def prepare(
    cell: Cell,
    *,
    case: Case | None,
    cases: Path,
    goldens: Path,
    results: Path,
    protocol: str,
    golden_update: bool,
    heartbeat_timeout: float | None,
) -> Plan:
    """Refuse what cannot be run; otherwise say how.

    Raises:
        UsageError, CaseError, GoldenError, HardwareMissing: with what was found and expected.
    """
    from harness.goldens import resolve

    for kind, name, table in (
        ("hardware", cell.hardware, HARDWARE),
        ("track", cell.track, TRACKS),
    ):
        if name not in table:
            raise UsageError(f"{kind} {name!r}: expected one of {', '.join(table)}")
    case = case or find_case(cell.case, cases)
    hardware = cell.hardware
    trainer = get_trainer(case.trainer(hardware))
    trainer.check(case, hardware)
    world = case.world_size(hardware)
    n, k = case.train_iters(hardware), case.resume_at(hardware)
    if not 0 < k < n:
        raise CaseError(f"{case.name}: --train-iters {n} leaves nothing to resume after {k}")
    if golden_update:
        _require_track(cell.track, trainer)
    require(hardware, world)
    platform = HARDWARE[hardware].platform
    golden = None if golden_update else resolve(goldens, case.name, cell.track, platform)
    return Plan(
        cell=cell, case=case, trainer=trainer, golden=golden, goldens=goldens, n=n, k=k,
        protocol=protocol, golden_update=golden_update, heartbeat_timeout=heartbeat_timeout,
        reproduce=_reproduce(cell, case, cases, goldens, results, protocol),
    )  # fmt: skip


def _require_track(track: str, trainer: Trainer) -> None:
    """A golden recorded with another torch than its track's would be compared with for years."""
    if trainer.name != "native":
        return
    wanted, found = TRACKS[track].torch, version("torch").partition("+")[0]
    if wanted != found:
        raise UsageError(
            f"track {track} is torch {wanted}, and torch {found} is installed here",
            "record its goldens through nox, which makes the track's environment",
        )


def _reproduce(
    cell: Cell, case: Case, cases: Path, goldens: Path, results: Path, protocol: str
) -> str:
    words = ["harness", "run", str(case.directory), "--hardware", cell.hardware]
    words += ["--track", cell.track, "--protocol", protocol]
    for option, folder in (("--goldens", goldens), ("--results", results), ("--cases", cases)):
        if folder.name != option.strip("-") and option != "--cases":
            words += [option, str(folder)]
    return shlex.join(words)
