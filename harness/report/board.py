"""A sweep while it runs: a table of its cells, read from their folders of results.

Cells run in processes of their own (sessions of nox, workers of pytest-xdist, jobs), so what is on disk
is the one place where all of them can be seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.text import Text

from harness.errors import HarnessError, NothingToDo
from harness.night.hosts import seat, suspects
from harness.night.night import read_nights
from harness.night.outcome import Outcome
from harness.report.summary import Line, show, table, totals
from harness.text import count, one_line

if TYPE_CHECKING:
    from rich.console import Console

    from harness.matrix import Cell
    from harness.night.when import Since

#: The phases in the order they may run in; the last one that has a folder is the one that runs.
_PHASES = ("continuous", "interrupted", "resumed", "probe", "replicas")


@dataclass(frozen=True)
class Running:
    """Where a cell is that has no verdict yet.

    Args:
        phase: the newest one; empty before the first.
        step: the last iteration that it has logged; None before the first.
    """

    phase: str
    step: int | None

    def __str__(self) -> str:
        if not self.phase:
            return "starting"
        return f"{self.phase}, starting" if self.step is None else f"{self.phase}, step {self.step}"


def running(folder: Path) -> Running:
    """Look how far a cell is; a file that is being written is read as far as it goes."""
    from harness.metrics import read_metrics

    phases = (
        [path for path in folder.iterdir() if path.is_dir() and _is_phase(path.name)]
        if folder.is_dir()
        else []
    )
    newest = max(phases, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        return Running("", None)
    try:
        series = read_metrics(newest / "tensorboard", newest, killed=True)
        step = max((int(line.steps.max()) for line in series.values() if len(line)), default=None)
    except (HarnessError, OSError):
        step = None
    return Running(one_line(newest.name), step)


def _is_phase(name: str) -> bool:
    return name in _PHASES or name.startswith("repeat-")


class Board:
    """Shows a folder of results until all of its cells have a verdict, or somebody has seen enough."""

    def __init__(
        self, results: Path, console: Console, expected: Sequence[Cell] = (), since: Since | None = None
    ) -> None:
        self._results, self._console, self._expected, self._since = results, console, expected, since
        self._said: dict[str, str] = {}

    def look(self) -> list[Outcome]:
        """The cells as they are now: those that left nothing yet are to come."""
        expected = [Outcome(cell, self._folder(cell), None) for cell in self._expected]
        try:
            (night,) = read_nights([self._results], since=self._since)
        except NothingToDo:
            return expected
        return [*night.cells.values(), *(one for one in expected if one.cell.id not in night.cells)]

    def follow(self, *, interval: float = 1.0, wait: Callable[[float], None] = time.sleep) -> list[Outcome]:
        """Show the cells until no one is unfinished; without a terminal, a line for each change.

        Without ``expected`` nobody knows what is still to come: then it goes on until it is interrupted.

        Args:
            wait: called between two looks; ``KeyboardInterrupt`` from it ends the board.

        Returns:
            The cells as they were last seen.
        """
        cells = self.look()
        live = Live(self._shown(cells), console=self._console, auto_refresh=False, transient=True)
        try:
            with live if self._console.is_terminal else _Nothing():
                while not (self._expected and all(cell.state not in ("unfinished", "old") for cell in cells)):
                    wait(interval)
                    cells = self.look()
                    if self._console.is_terminal:
                        live.update(self._shown(cells), refresh=True)
                    else:
                        self._changes(cells)
        except KeyboardInterrupt:
            pass
        if not self._console.is_terminal:
            self._changes(cells)
        seats = [found for cell in cells if (found := seat(cell)) is not None]
        show([Line.of(cell) for cell in cells], self._console, suspects(seats))
        return cells

    def _shown(self, cells: Sequence[Outcome]) -> Group:
        lines = [Line.of(cell) for cell in cells]
        open_ = [cell for cell in cells if cell.state == "unfinished" and cell.folder.is_dir()]
        done = [line for line in lines if line.state != "unfinished"]
        # What does not fit on the screen would tear the board: done cells give way to running ones.
        room = max(3, self._console.height - 2 * len(open_) - 5)
        more = f"and {count(len(done) - room, 'cell')} more that ended" if len(done) > room else ""
        now = [Text(f"{one_line(cell.cell.id)}: {running(cell.folder)}", style="yellow") for cell in open_]
        waiting = len(lines) - len(done) - len(open_)
        return Group(
            table(done[-room:]),
            *([Text(more, style="dim")] if more else []),
            *now,
            totals(lines),
            *([Text(f"{count(waiting, 'cell')} to come")] if waiting else []),
            Text("Ctrl-C ends this board, not the cells", style="dim"),
        )

    def _changes(self, cells: Sequence[Outcome]) -> None:
        for cell in cells:
            if cell.state != "unfinished":
                now = f"{cell.state}"
            elif cell.folder.is_dir():
                now = running(cell.folder).phase or "starting"
            else:
                continue
            if self._said.get(cell.cell.id) != now:
                self._said[cell.cell.id] = now
                self._console.print(Text(f"{one_line(cell.cell.id)}: {now}"), soft_wrap=True)

    def _folder(self, cell: Cell) -> Path:
        return self._results / cell.hardware / cell.track / cell.case


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
