"""A night: the cells below a folder of results, and those that should have left something there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from harness.errors import HarnessError, NothingToDo, UsageError
from harness.matrix import HARDWARE, TRACKS, Cell
from harness.night.outcome import NO_VERDICT, NOT_FINISHED, Outcome, commit, read_outcome
from harness.night.when import Since
from harness.text import one_line
from harness.verdict.sweep import MARKER, VERDICT

#: How many folders may lie between a folder of results and a cell's <hardware>/<track>/<case>:
#: CI unpacks each job's artifact into a folder of its own.
_DEEP = 2


@dataclass(frozen=True)
class Night:
    """The cells of one folder of results.

    Args:
        name: what the night is called: its folder's name.
        folder: where it lies.
        outcomes: one per cell.
        expected: the cells that should have run; empty when nobody said.
    """

    name: str
    folder: Path
    outcomes: tuple[Outcome, ...]
    expected: frozenset[Cell] = frozenset()

    @cached_property
    def cells(self) -> Mapping[str, Outcome]:
        """The outcomes by the cell's id."""
        return {outcome.cell.id: outcome for outcome in self.outcomes}

    @property
    def commit(self) -> str | None:
        """Of the code that ran, when all cells agree on it."""
        commits = {outcome.commit for outcome in self.outcomes if outcome.verdict is not None}
        return commits.pop() if len(commits) == 1 else commit(os.environ.get("GITHUB_SHA"))

    @cached_property
    def digest(self) -> str:
        """Names the night by what it found: the same results have the same one."""
        parts = [
            f"{outcome.cell.id} {outcome.verdict.to_json() if outcome.verdict else outcome.problem}"
            for outcome in self.outcomes
        ]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def read_night(results: Path, expected: Iterable[Cell] = (), since: Since | None = None) -> Night:
    """A night that is over, its cells by their ids: what did not finish will not any more.

    Args:
        expected: cells that count as red when they have no verdict, or were skipped.
        since: when the night began; a verdict of another night is none.

    Raises:
        UsageError: there is nothing to look at, or something that is no cell's.
    """
    wanted = frozenset(expected)
    found = {one.cell: _over(one, expected=one.cell in wanted) for one in _outcomes(results, since)}
    for cell in wanted - found.keys():
        found[cell] = _missing(results, cell)
    if not found:
        raise UsageError(
            f"{results}: expected HARDWARE/TRACK/CASE/{VERDICT}, found none",
            "name the folder that the cells were run with as --results",
        )
    outcomes = tuple(sorted(found.values(), key=lambda outcome: outcome.cell.id))
    return Night(results.name, results, outcomes, wanted)


def read_nights(
    folders: Sequence[Path], expected: Iterable[Cell] = (), since: Since | None = None
) -> list[Night]:
    """Folders of results, the oldest first, as they were given; their cells in the matrix's order.

    Args:
        expected: cells that are red in the last night when they left nothing there.
        since: when the last night began; a verdict of another night is none.

    Raises:
        NothingToDo: one of them holds no cell's results.
        UsageError: one of them holds something that is no cell's.
    """
    nights = []
    for name, folder in zip(_names(folders), folders, strict=True):
        begun = since if folder is folders[-1] else None
        cells = {outcome.cell: outcome for outcome in _outcomes(folder, begun)}
        if not cells:
            raise NothingToDo(
                f"{folder}: holds no results of a cell ({VERDICT} below <hardware>/<track>/<case>/)",
                "give the folder that --results named, or the one that CI's artifacts were unpacked into",
            )
        wanted = frozenset(expected) if folder is folders[-1] else frozenset()
        for cell in wanted - cells.keys():
            cells[cell] = _missing(folder, cell)
        outcomes = tuple(sorted(cells.values(), key=lambda outcome: order(outcome.cell)))
        nights.append(Night(name, folder, outcomes, wanted))
    return nights


def order(cell: Cell) -> tuple[str, int, int]:
    """Sorts cells as the matrix has them."""
    return cell.case, list(HARDWARE).index(cell.hardware), list(TRACKS).index(cell.track)


def _missing(folder: Path, cell: Cell) -> Outcome:
    return Outcome(cell, folder / cell.hardware / cell.track / cell.case, None, NO_VERDICT)


def _over(outcome: Outcome, *, expected: bool) -> Outcome:
    outcome = replace(outcome, expected=expected)
    return replace(outcome, problem=NOT_FINISHED) if outcome.state == "unfinished" else outcome


def _outcomes(folder: Path, since: Since | None) -> Iterator[Outcome]:
    for base in list(_bases(folder, _DEEP)) or [folder]:
        for hardware in _folders(base):
            for track in _folders(hardware):
                for where in _folders(track):
                    if (where / VERDICT).exists() or (where / MARKER).exists():
                        yield read_outcome(_cell(base, where), where, since)


def _cell(base: Path, where: Path) -> Cell:
    try:
        return Cell.parse("/".join(where.relative_to(base).parts))
    except HarnessError as error:
        advice = "remove it, if it is left of a track of before: only results of cells belong there"
        raise UsageError(f"{where / VERDICT}: {error.message}", advice) from None


def _bases(folder: Path, deep: int) -> Iterator[Path]:
    below = _folders(folder)
    if any(path.name in HARDWARE for path in below):
        yield folder
    elif deep:
        for path in below:
            yield from _bases(path, deep - 1)


def _folders(folder: Path) -> list[Path]:
    """Hidden ones are left out: what a run puts aside before it begins."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def _names(folders: Sequence[Path]) -> list[str]:
    """The last part of the paths that tells them all apart."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    for place in range(1, min(map(len, parts), default=0) + 1):
        names = [part[-place] for part in parts]
        if len(set(names)) == len(names):
            return [one_line(name) for name in names]
    return [one_line(folder) for folder in folders]
