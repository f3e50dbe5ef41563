"""Which sides a matrix of saved-by × resumed-by has: the tracks there are, the layouts asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from harness.errors import CaseError, UsageError
from harness.machine import environment
from harness.matrix import TRACKS, Cell
from harness.protocol.cross import Side
from harness.protocol.layouts import BY_DEFAULT, OWN, Laid, Layout, distinct, lay
from harness.protocol.plan import Options, Plan, prepare

if TYPE_CHECKING:
    from harness.cases import Case

AXES = ("track", "layout")
_ASKED = """
import harness.launch.parent
from harness.machine.environment import version_of
print(version_of("torch"))
"""
_LONG = 120.0  # s; an import of torch from a cold disk


@dataclass(frozen=True)
class Asked:
    """What a command line asks to cross.

    Args:
        by: of :data:`AXES`, in order.
        layouts: words; empty: :data:`harness.protocol.layouts.BY_DEFAULT`, as far as they factor.
        track: whose environment this is, which crosses layouts; empty: dev, or the first.
        pythons: by track, of its environment; a track without one is this environment's, if it is.
        arguments: of the case, set otherwise on all sides.
        trainer, heartbeat_timeout: as of :class:`harness.protocol.plan.Options`.
    """

    by: Sequence[str] = AXES
    layouts: Sequence[str] = ()
    track: str = ""
    pythons: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    trainer: str = ""
    heartbeat_timeout: float | None = None

    def __post_init__(self) -> None:
        if not self.by or set(self.by) - set(AXES):
            raise UsageError(f"--by {','.join(self.by)}: expected track, layout, or track,layout")
        for name in [*self.pythons, *([self.track] if self.track else [])]:
            if name not in TRACKS:
                raise UsageError(f"track {name!r}: expected one of {', '.join(TRACKS)}")
        if self.layouts and "layout" not in self.by:
            raise UsageError("--layout names what is crossed --by layout", "add it to --by")


@dataclass(frozen=True)
class Sides:
    """What is crossed.

    Args:
        sides: of every axis.
        notes: what was left out, a sentence each.
    """

    sides: tuple[Side, ...]
    notes: tuple[str, ...] = ()


def sides_of(case: Case, hardware: str, asked: Asked, results: Path) -> Sides:
    """The sides of a matrix.

    Raises:
        UsageError: a track has no environment, or fewer than two sides are left on an axis.
        CaseError: a layout does not factor.
    """
    case = _with(case, hardware, asked)
    own = lay(case, hardware, Layout(OWN))
    here = asked.track or _here()
    sides: list[Side] = []
    notes: list[str] = []
    for axis in dict.fromkeys(asked.by):
        if axis == "track":
            found = _tracks(own, hardware, asked, results)
        else:
            laid, python = _layouts(case, hardware, asked, notes), python_of(here, asked.pythons, own=True)
            found = [Side("layout", one.name, _plan(one.case, hardware, here, asked, results),
                          one.name, python) for one in laid]  # fmt: skip
        if len(found) < 2:
            only = ", ".join(side.name for side in found) or "none"
            raise UsageError(f"--by {axis}: there is one side ({only}), and a matrix has two or more")
        sides += found
    return Sides(tuple(sides), tuple(notes))


def _here() -> str:
    return "dev" if "dev" in TRACKS else next(iter(TRACKS))


def _with(case: Case, hardware: str, asked: Asked) -> Case:
    """The case with the trainer and the arguments that were asked for."""
    if asked.trainer:
        Options(trainer=asked.trainer)
        case = case.trained_by(asked.trainer, hardware)
    if not asked.arguments:
        return case
    if case.trainer(hardware) == "command":
        raise UsageError(f"--argument: {case.name} is trained by a command, whose words are its case's own")
    changed = MappingProxyType({**case.arguments(hardware), **asked.arguments})
    return replace(case, model_args=changed, harness=replace(case.harness, profiles=MappingProxyType({})))


def _tracks(own: Laid, hardware: str, asked: Asked, results: Path) -> list[Side]:
    found = []
    for track in TRACKS:
        python = python_of(track, asked.pythons)
        found.append(Side("track", track, _plan(own.case, hardware, track, asked, results), own.name, python))
    return found


def _layouts(case: Case, hardware: str, asked: Asked, notes: list[str]) -> list[Laid]:
    found = []
    for word in asked.layouts or BY_DEFAULT:
        try:
            found.append(lay(case, hardware, Layout.parse(word)))
        except CaseError as error:
            if asked.layouts:
                raise
            notes.append(f"left out, it does not factor: {error.message}")
    return distinct(found)


def _plan(case: Case, hardware: str, track: str, asked: Asked, results: Path) -> Plan:
    options = Options(protocol="full", heartbeat_timeout=asked.heartbeat_timeout)
    plan = prepare(
        Cell(hardware, track, case.name), case=case, cases=case.directory.parent,
        goldens=Path(os.devnull, "none"), results=results, options=options,
    )  # fmt: skip
    if not plan.resumes:
        raise UsageError(f"{case.name}: is never resumed (TEST_TYPE), so there is nothing to cross")
    if not plan.deterministic:
        raise UsageError(
            f"{case.name}: is not deterministic: what two sides do otherwise cannot be told from noise",
            "cross a case that is",
        )
    return plan


def python_of(track: str, pythons: Mapping[str, str], *, own: bool = False) -> str:
    """The Python of a track's environment; empty where that is the present one.

    Args:
        own: the track is not crossed with another: then the present one will do, whatever it has.

    Raises:
        UsageError: there is none, or it has other pins than the track's.
    """
    wanted, given = TRACKS[track].torch, pythons.get(track, "")
    if not given:
        found = environment.version_of("torch")
        if own or wanted in ("", found):
            return ""
        raise UsageError(
            f"track {track} is torch {wanted}, and torch {found} is installed here",
            f'--python {track}=PATH names that of its environment; nox -s "cross(cpu)" makes all of them',
        )
    python = shutil.which(given)
    if python is None:
        raise UsageError(f"--python {track}={given}: there is no such program")
    asking = [os.path.abspath(python), "-c", _ASKED]
    try:
        done = subprocess.run(
            asking, capture_output=True, text=True, check=True, timeout=_LONG, cwd=os.path.sep
        )
        found = done.stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        raise UsageError(
            f"--python {track}={given}: has no harness that could run there: {''.join(said)}",
            "install resume-harness beside the track's pins there",
        ) from None
    if wanted not in ("", found):
        raise UsageError(f"--python {track}={given}: has torch {found}, and track {track} is torch {wanted}")
    return asking[0]
