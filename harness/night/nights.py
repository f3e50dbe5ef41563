"""Folders of results as nights: what each cell's verdict was, and how it went from night to night."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError, NothingToDo
from harness.matrix import HARDWARE, TRACKS, Cell
from harness.report.html import REPORT
from harness.report.words import State, one_line

if TYPE_CHECKING:
    from harness.metrics import Series
    from harness.protocol.verdict import Verdict

VERDICT = "verdict.json"
MARKER = ".harness-cell"
LOSS, TIME, MEMORY = "lm loss", "iteration-time", "mem-max-allocated-bytes"
#: How many folders may lie between a folder of results and a cell's <hardware>/<track>/<case>:
#: CI unpacks each job's artifact into a folder of its own.
_DEEP = 2

MISSING = "it should have run, and left nothing"


@dataclass(frozen=True)
class CellResult:
    """What a cell left in one night.

    Args:
        cell: which.
        folder: its results.
        verdict: None when there is none, or none that can be read.
        problem: why there is no verdict; empty when there is one.
    """

    cell: Cell
    folder: Path
    verdict: Verdict | None
    problem: str = ""

    @property
    def state(self) -> State:
        """The verdict's status; ``unfinished`` before it is written."""
        if self.verdict is not None:
            return self.verdict.status
        if self.problem == MISSING:
            return "missing"
        return "unreadable" if self.problem else "unfinished"

    @property
    def red(self) -> bool:
        """Whether somebody must look at it."""
        return self.state not in ("passed", "unfinished")

    @property
    def report(self) -> Path | None:
        """Its report, if there is one."""
        path = self.folder / REPORT
        return path if path.is_file() else None

    @cached_property
    def series(self) -> Mapping[str, Series]:
        """What its longest phase logged; empty when nothing can be read."""
        from harness.metrics import read_metrics

        for phase in ("continuous", "resumed"):
            where = self.folder / phase
            try:
                return read_metrics(where / "tensorboard", where)
            except (HarnessError, OSError):
                continue
        return {}

    @property
    def seconds(self) -> float | None:
        """How long the cell took."""
        found = self.verdict.timing.get("total") if self.verdict else None
        return float(found) if isinstance(found, (int, float)) else None

    def final(self, metric: str) -> float | None:
        """The last value of a metric."""
        line = self.series.get(metric)
        return float(line.values[-1]) if line is not None and len(line) else None

    def highest(self, metric: str) -> float | None:
        """The highest value of a metric."""
        line = self.series.get(metric)
        return float(line.values.max()) if line is not None and len(line) else None

    def typical(self, metric: str) -> float | None:
        """The median of a metric, without its first step, which warms up."""
        import numpy as np

        line = self.series.get(metric)
        if line is None or not len(line):
            return None
        return float(np.median(line.values[1:] if len(line) > 1 else line.values))


@dataclass(frozen=True)
class Night:
    """The cells of one folder of results.

    Args:
        name: what the night is called: its folder's name.
        folder: where it lies.
        cells: by their id, sorted as the matrix is.
    """

    name: str
    folder: Path
    cells: Mapping[str, CellResult] = field(default_factory=dict)


def read_nights(folders: Sequence[Path], expected: Iterable[Cell] = ()) -> list[Night]:
    """Read folders of results, the oldest first, as they were given.

    Args:
        expected: cells that are red in the last night when they left nothing there.

    Raises:
        NothingToDo: one of them holds no cell's results.
    """
    nights = []
    for name, folder in zip(_names(folders), folders, strict=True):
        cells = {result.cell.id: result for result in _results(folder)}
        if not cells:
            raise NothingToDo(
                f"{folder}: holds no results of a cell ({VERDICT} below <hardware>/<track>/<case>/)",
                "give the folder that --results named, or the one that CI's artifacts were unpacked into",
            )
        if folder is folders[-1]:
            for cell in expected:
                where = folder / cell.hardware / cell.track / cell.case
                cells.setdefault(cell.id, CellResult(cell, where, None, MISSING))
        nights.append(Night(name, folder, dict(sorted(cells.items(), key=lambda item: _order(item[1].cell)))))
    return nights


def _names(folders: Sequence[Path]) -> list[str]:
    """The last part of the paths that tells them all apart."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    for place in range(1, min(map(len, parts), default=0) + 1):
        names = [part[-place] for part in parts]
        if len(set(names)) == len(names):
            return [one_line(name) for name in names]
    return [one_line(folder) for folder in folders]


def _order(cell: Cell) -> tuple[str, int, int]:
    return cell.case, list(HARDWARE).index(cell.hardware), list(TRACKS).index(cell.track)


def _results(folder: Path) -> Iterator[CellResult]:
    for base in _bases(folder, _DEEP):
        for hardware in HARDWARE:
            for track in TRACKS:
                for where in _folders(base / hardware / track):
                    if (where / VERDICT).exists() or (where / MARKER).exists():
                        yield read_cell(Cell(hardware, track, where.name), where)


def _bases(folder: Path, deep: int) -> Iterator[Path]:
    below = _folders(folder)
    if any(path.name in HARDWARE for path in below):
        yield folder
    elif deep:
        for path in below:
            yield from _bases(path, deep - 1)


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def read_cell(cell: Cell, folder: Path) -> CellResult:
    """What a cell left in its folder of results."""
    from harness.protocol.verdict import read_verdict

    if not (folder / VERDICT).exists():
        return CellResult(cell, folder, None)
    try:
        verdict = read_verdict(folder / VERDICT)
    except HarnessError as error:
        return CellResult(cell, folder, None, one_line(error))
    if verdict.cell != cell.id:
        return CellResult(cell, folder, None, f"its {VERDICT} is about {one_line(verdict.cell)}")
    return CellResult(cell, folder, verdict)


# -- from night to night ---------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """One cell over several nights.

    Args:
        cell: its id.
        results: by night, in order; None where the cell did not run.
    """

    cell: str
    results: tuple[tuple[Night, CellResult | None], ...]

    @property
    def red_since(self) -> Night | None:
        """The first night of the streak that it is red in now; None when it is not red.

        A night in which it did not run neither begins nor ends a streak.
        """
        since = None
        for night, result in reversed(self.results):
            if result is None or result.state == "unfinished":
                continue
            if not result.red:
                break
            since = night
        return since

    @property
    def ever_green(self) -> bool:
        """Whether it passed in any of the nights."""
        return any(result is not None and result.state == "passed" for _, result in self.results)


def histories(nights: Sequence[Night]) -> list[History]:
    """Every cell that ran in any night: those that are red now first, the newest of them on top."""
    cells = {cell: result.cell for night in nights for cell, result in night.cells.items()}
    found = [
        History(cell, tuple((night, night.cells.get(cell)) for night in nights))
        for cell in sorted(cells, key=lambda cell: _order(cells[cell]))
    ]
    age = {night.name: i for i, night in enumerate(nights)}
    return sorted(found, key=lambda one: -age[one.red_since.name] if one.red_since else 1)
