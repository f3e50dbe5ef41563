"""Two environments, each a tree of results, and which runs of them can be held against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, NothingToDo, UsageError
from harness.goldens.approving import VERDICT, Refused, read_run, unsound
from harness.goldens.subjects import changes
from harness.matrix import TRACKS, Cell

if TYPE_CHECKING:
    from harness.verdict import Verdict

_TAKE_THEM = "(--across-commits takes them all the same)"


@dataclass(frozen=True)
class Environment:
    """Results that were made in one environment.

    Args:
        folder: a cell's results, or any folder above some.
        track: only this one's, in ``<folder>/<hardware>/<track>/<case>``; None: all that are there.
    """

    folder: Path
    track: str | None = None

    @classmethod
    def of(cls, said: str, results: Path) -> Environment:
        """A track's name, then of ``results``; else a folder.

        Raises:
            UsageError: it is neither.
        """
        if said in TRACKS:
            return cls(results, said)
        if not Path(said).is_dir():
            expected = f"expected a folder of results, or a track: {' or '.join(TRACKS)}"
            raise UsageError(f"{said}: {expected}", "e.g. --from results-old --to results")
        return cls(Path(said))

    @property
    def label(self) -> str:
        """For a person."""
        return f"track {self.track} of {self.folder}" if self.track else str(self.folder)


@dataclass(frozen=True)
class Run:
    """A cell's results in one environment."""

    folder: Path
    cell: Cell
    verdict: Verdict

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What it was made on and with; empty where it does not say."""
        found = self.verdict.provenance.get("fingerprint")
        return found if isinstance(found, dict) else {}

    @property
    def commit(self) -> str:
        """Of the code under test, with ``+`` where that was changed; empty where nobody knows."""
        return str(self.verdict.provenance.get("commit") or "")


@dataclass(frozen=True)
class Pairs:
    """What two environments share.

    Args:
        found: the old environment's run of a cell and the new one's, sorted by the new cell's name.
        refused: cells that only one of them has, or of which a verdict cannot be read.
    """

    found: tuple[tuple[Run, Run], ...]
    refused: tuple[Refused, ...]


@dataclass(frozen=True)
class _Side:
    runs: Mapping[Cell, Run]
    broken: Mapping[Cell, Refused]


def pairs(old: Environment, new: Environment, without: Sequence[str] = ()) -> Pairs:
    """The runs of the same cell in both.

    Cells are the same by hardware, track and case; by hardware and case where each side has one track only,
    and they are two.

    Args:
        without: cells, or patterns of some, that are left out.

    Raises:
        UsageError: an environment is compared with itself, or holds two runs of a cell.
        NothingToDo: one of them holds no verdict.
    """
    if (old.folder.resolve(), old.track) == (new.folder.resolve(), new.track):
        raise UsageError(f"{old.label}: is compared with itself", "--from and --to are two environments")
    sides = _side(old, without), _side(new, without)
    tracks = [{cell.track for cell in (*side.runs, *side.broken)} for side in sides]
    across = all(len(some) == 1 for some in tracks) and tracks[0] != tracks[1]

    def key(cell: Cell) -> tuple[str, ...]:
        return (cell.hardware, cell.case) if across else (cell.hardware, cell.track, cell.case)

    before, after = ({key(cell): run for cell, run in side.runs.items()} for side in sides)
    refused = [one for side in sides for one in side.broken.values()]
    for there, here, lacking, missing in ((before, after, sides[1], new), (after, before, sides[0], old)):
        said = {key(cell) for cell in lacking.broken}
        refused += [
            Refused(run.cell.id, f"was not run in {missing.label}")
            for name, run in there.items()
            if name not in here and name not in said
        ]
    found = [(before[name], after[name]) for name in sorted(before.keys() & after.keys())]
    return Pairs(tuple(found), tuple(refused))


def matches(cell: str, patterns: Sequence[str]) -> bool:
    """Whether a cell is one of ``patterns``, in which ``*`` stands for anything."""
    return any(fnmatchcase(cell, pattern) for pattern in patterns)


def unlike(old: Run, new: Run, *, across_commits: bool = False) -> str | None:
    """Why what differs between two runs may be something else than their environments; None if nothing.

    Args:
        across_commits: whether somebody vouches for what lies between the commits of the runs.
    """
    for where, run in (("old", old), ("new", new)):
        if reason := unsound(run.folder, run.verdict):
            return f"in the {where} environment: {reason}"
    if not across_commits:
        if old.commit != new.commit:
            both = f"{short(old.commit)} in the old environment, {short(new.commit)} in the new one"
            return f"is not of one commit: {both} {_TAKE_THEM}"
        if not old.commit:
            return f"its commit is not known, so it may be of two {_TAKE_THEM}"
        if old.commit.endswith("+"):
            return f"code was changed after commit {short(old.commit)}, and may be other code {_TAKE_THEM}"
    said = old.verdict.provenance, new.verdict.provenance
    if subject := changes(*said):
        return f"is another training (recorded: the old environment's, run: the new): {'; '.join(subject)}"
    if subject := changes(*said[::-1]):  # what the first does not say is not compared with it
        return f"is another training (recorded: the new environment's, run: the old): {'; '.join(subject)}"
    return None


def short(commit: str) -> str:
    """A commit for a person."""
    return commit[:12] + ("+" if commit.endswith("+") else "") if commit else "an unknown one"


def _side(environment: Environment, without: Sequence[str]) -> _Side:
    """Each cell's run; a verdict that is none is said by the name of the folder that it lies in."""
    folder, track = environment.folder, environment.track
    paths = sorted(folder.glob(f"*/{track}/*/{VERDICT}") if track else folder.rglob(VERDICT))
    if not paths:
        goldens = any(folder.glob("*/golden_values*.json"))
        advice = "goldens are older runs: harness goldens diff compares with them" if goldens else ""
        raise NothingToDo(f"{environment.label}: holds no {VERDICT}", advice or "run the cells there first")
    runs: dict[Cell, Run] = {}
    broken: dict[Cell, Refused] = {}
    for path in paths:
        try:
            cell, verdict = read_run(path)
        except HarnessError as error:
            parts = path.parent.absolute().parts
            cell = Cell(*(*("?", "?", "?"), *parts)[-3:])
            broken[cell] = Refused(cell.id, error.message)
            continue
        if cell in runs:
            raise UsageError(f"{folder}: holds two runs of {cell.id}", "give the folder that has one of them")
        runs[cell] = Run(path.parent, cell, verdict)
    kept = {cell: run for cell, run in runs.items() if not matches(cell.id, without)}
    return _Side(kept, {cell: one for cell, one in broken.items() if not matches(cell.id, without)})
