"""The end of a sweep in a terminal: a table of cells, and for each red one what somebody must know."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from harness.night.headline import Headline, headline, resumed_after
from harness.night.hosts import seat, suspects
from harness.night.outcome import SIGNS, STATES
from harness.report.tables import print_table
from harness.text import count, duration, one_line

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from harness.matrix import Cell
    from harness.night.outcome import Outcome, State
    from harness.verdict import Verdict

STYLES: dict[State, str] = {
    "passed": "green", "failed": "bold red", "error": "bold red", "refused": "bold red",
    "skipped": "yellow", "unreadable": "bold red",
    "missing": "bold red", "old": "bold red", "unfinished": "yellow",
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A cell in the table.

    Args:
        cell: its id.
        state: how it ended.
        held: how many of its checks held, in words.
        seconds: how long it took; None when nobody knows.
        said: the rest; None for a cell that is green or still runs.
    """

    cell: str
    state: State
    held: str
    seconds: float | None
    said: Headline | None

    @staticmethod
    def of_verdict(verdict: Verdict) -> Line:
        """A cell that has a verdict."""
        held = sum(check.passed for check in verdict.checks)
        seconds = verdict.timing.get("total")
        said = None if verdict.passed else headline(verdict, resumed_after(verdict))
        return Line(verdict.cell, verdict.status, f"{held}/{len(verdict.checks)}", seconds, said)

    @staticmethod
    def of(result: Outcome) -> Line:
        """A cell as its folder of results has it."""
        if result.verdict is not None:
            return Line.of_verdict(result.verdict)
        return Line(result.cell.id, result.state, "", None, result.headline if result.red else None)


def summary(verdicts: Iterable[Verdict], console: Console) -> None:
    """Print the table of ``verdicts`` and the lines of each red one."""
    show([Line.of_verdict(verdict) for verdict in verdicts], console)


def summary_of(results: Path, cells: Iterable[Cell], console: Console) -> None:
    """The same, of ``cells`` as they left their verdicts below ``results``, with suspected machines."""
    from harness.night.outcome import read_outcome

    lines, seats = [], []
    for cell in cells:  # one verdict at a time is held
        found = read_outcome(cell, results / cell.hardware / cell.track / cell.case)
        lines.append(Line.of(found))
        seats.append(seat(found))
    show(lines, console, suspects(one for one in seats if one is not None))


def show(lines: Sequence[Line], console: Console, suspected: Sequence[str] = ()) -> None:
    """Print the table, the lines of each red cell, and last how many there are of which.

    Args:
        suspected: a sentence for each machine, as of :func:`harness.night.hosts.suspects`.
    """
    print_table(console, table(lines))
    for line in lines:
        if line.said is not None:
            _red(line, line.said, console)
    if suspected:
        console.print()
    for said in suspected:
        console.print(Text(said, style="bold yellow"), soft_wrap=True)
    console.print(totals(lines), soft_wrap=True)


def table(lines: Sequence[Line]) -> Table:
    """One row per cell; names fold where the terminal ends."""
    found = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    found.add_column("cell", overflow="fold", ratio=1)
    found.add_column("result", no_wrap=True)
    found.add_column("checks", justify="right", no_wrap=True)
    found.add_column("time", justify="right", no_wrap=True)
    for line in lines:
        found.add_row(
            Text(one_line(line.cell)),
            state_text(line.state),
            line.held,
            "" if line.seconds is None else duration(line.seconds),
        )
    return found


def state_text(state: State) -> Text:
    """Sign and word: colour says nothing that they do not."""
    return Text(f"{SIGNS[state]} {STATES[state]}", style=STYLES[state])


def totals(lines: Sequence[Line]) -> Text:
    """``3 cells: 2 passed, 1 failed``."""
    counts = Counter(line.state for line in lines)
    said = ", ".join(f"{counts[state]} {word}" for state, word in STATES.items() if counts[state])
    states = {line.state for line in lines}
    red = any(line.said is not None for line in lines if line.state != "skipped")
    style = "bold red" if red else "bold yellow" if states == {"skipped"} else "bold green"
    return Text(f"{count(len(lines), 'cell')}: {said or 'none'}", style=style)


def _red(line: Line, said: Headline, console: Console) -> None:
    console.print()
    console.print(
        Text(f"{SIGNS[line.state]} {one_line(line.cell)}", style=STYLES[line.state]), soft_wrap=True
    )
    for word, text in said.facts:
        # Where no terminal ends a line, none is folded: a search finds every name and number.
        width = max(40, console.width) if console.file.isatty() else sys.maxsize
        folded = textwrap.fill(
            text, width, initial_indent=f"  {word + ':':<6} ", subsequent_indent=" " * 9,
            break_on_hyphens=False,
        )  # fmt: skip
        console.print(Text(folded), soft_wrap=True)
    # Never folded by us: it is there to be copied.
    console.print(Text(f"  again: {said.command}"), soft_wrap=True)
