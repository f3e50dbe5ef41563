"""A cell in a terminal: bars with the time left while it runs, then the verdict.

Without a terminal the same is said in plain lines. ``NO_COLOR`` is respected (by rich).
"""

from __future__ import annotations

import time
from collections import Counter
from io import StringIO
from types import TracebackType
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from harness.checks.wording import OTHER_VALUE
from harness.report.tables import print_table
from harness.text import exact, one_line

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.verdict import Verdict

_WORTH_SHOWING = 12  # failed checks in full; the rest is in verdict.json
_QUIET = 5.0  # s between two plain lines of progress
_STYLES = {
    "passed": "bold green",
    "failed": "bold red",
    "error": "bold red",
    "refused": "bold red",
    "skipped": "bold yellow",
}


class Terminal:
    """An observer that prints; a context manager, so that the bars are gone before the verdict."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._steps: dict[str, tuple[int, int]] = {}
        self._first: dict[str, tuple[float, int]] = {}
        self._said: dict[str, float] = {}

    @classmethod
    def on(cls, stream: IO[str]) -> Terminal:
        """On ``stream``; bars if it is a terminal."""
        return cls(Console(file=stream, highlight=False, markup=False, soft_wrap=True))

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    # -- while it runs -----------------------------------------------------------------------

    def phase_started(self, phase: str, start: int, stop: int) -> None:
        """A bar, or a line."""
        self._steps[phase] = (start, stop)
        self._said[phase] = time.monotonic()
        self._first.pop(phase, None)
        if not self._console.is_terminal:
            self._say(f"{phase}: iterations {start} to {stop}")
            return
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description:<11}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("left"),
                TimeRemainingColumn(compact=True),
                console=self._console,
                transient=True,
            )
            self._bars.start()
        task = self._bars.add_task(phase, total=stop, completed=start)
        self._tasks[phase] = task

    def progress(self, phase: str, iteration: int) -> None:
        """Move the bar; without one, say a line now and then."""
        if self._bars is not None:
            self._bars.update(self._tasks[phase], completed=iteration)
            return
        now, stop = time.monotonic(), self._steps[phase][1]
        # Counted from the first sign of training: starting up says nothing of how fast it goes.
        began, first = self._first.setdefault(phase, (now, iteration))
        if not first < iteration < stop or now < self._said[phase] + _QUIET:
            return
        self._said[phase] = now
        left = (now - began) * (stop - iteration) / (iteration - first)
        self._say(f"{phase}: {iteration} of {stop}, about {left:.0f} s left")

    def phase_ended(self, phase: str, seconds: float) -> None:
        """A line that stays."""
        start, stop = self._steps[phase]
        if self._bars is not None:
            self._bars.remove_task(self._tasks[phase])
        self._say(f"{phase}: {start} to {stop} in {seconds:.1f} s")

    def note(self, text: str) -> None:
        """A line that stays."""
        self._say(text)

    # -- when it is over ---------------------------------------------------------------------

    def verdict(self, verdict: Verdict) -> None:
        """Say what held, what did not, and what was lost; the last line is the verdict."""
        self._stop()
        self._details(verdict)
        if not verdict.passed:
            self._say(f"again: {verdict.reproduce}")
        line = Text(verdict.status.upper(), style=_STYLES[verdict.status])
        self._console.print(line.append(f" {_outcome(verdict)}", style="not bold default"))

    def _details(self, verdict: Verdict) -> None:
        if verdict.diagnosis is not None:
            self._console.print(Text(f"lost: {one_line(verdict.diagnosis.component)}", style="bold"))
            for evidence in verdict.diagnosis.evidence:
                self._say(f"  {evidence}")
            for candidate in verdict.diagnosis.candidates:
                self._say(f"  may be: {candidate.sentence()}")
            for recipe in verdict.diagnosis.recipes[:_WORTH_SHOWING]:
                self._say(f"recipe: {recipe} of resume-harness")
        shown = verdict.failures[:_WORTH_SHOWING]
        if shown:
            print_table(self._console, _table(shown))
        known = " ".join(verdict.diagnosis.evidence) if verdict.diagnosis is not None else ""
        for check in _telling(shown):
            if all(part in known for part in check.message.split("; ")):
                continue  # it was said above
            self._say(f"  {check.name}: {check.message}")
        if more := len(verdict.failures) - len(shown):
            self._say(f"  and {more} more in verdict.json")
        if verdict.coverage is not None:
            self._say(f"state: {verdict.coverage.sentence()}")
            for rule in verdict.coverage.rules[:_WORTH_SHOWING]:
                self._say(f"  {rule.sentence()}")
            if (more := len(verdict.coverage.rules) - _WORTH_SHOWING) > 0:
                self._say(f"  and {more} more rules in verdict.json")
        for said in verdict.provenance.get("notes") or ():
            self._say(f"note: {said}")
        if golden := verdict.provenance.get("golden"):
            self._say(f"golden: {golden}")
        for check in verdict.checks:
            if check.passed and OTHER_VALUE in check.message:
                self._say(f"  {check.name}: {check.message}")
        if verdict.failures and (folder := verdict.provenance.get("results")):
            self._say(f"report: {folder}/report.html")

    def _say(self, text: str) -> None:
        self._console.print(Text(one_line(text)))

    def _stop(self) -> None:
        bars, self._bars = self._bars, None
        if bars is not None:
            bars.stop()


def _outcome(verdict: Verdict) -> str:
    held = Counter(check.against for check in verdict.checks if check.passed)
    made = Counter(check.against for check in verdict.checks)
    parts = [f"{against} {held[against]}/{count}" for against, count in made.items()]
    seconds = verdict.timing.get("total", 0.0)
    said = f"{one_line(verdict.message)}: " if verdict.message else ""
    return f"{one_line(verdict.cell)}: {said}{', '.join(parts) or 'no check'} held, {seconds:.1f} s"


def _telling(checks: tuple[Check, ...]) -> list[Check]:
    """Those whose sentence is worth its line: without numbers in the table, and the earliest of each kind."""
    earliest: dict[str, Check] = {}
    for check in checks:
        before = earliest.setdefault(check.against, check)
        if (check.first_bad_step or 0) < (before.first_bad_step or 0):
            earliest[check.against] = check
    return [check for check in checks if check.worst is None or check in earliest.values()]


def _table(checks: tuple[Check, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("check", "kind", "first bad step", "expected", "actual"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        worst = check.worst
        table.add_row(
            Text(one_line(check.name), style="red"),
            Text(check.kind),
            "" if check.first_bad_step is None else str(check.first_bad_step),
            Text("" if worst is None else exact(worst.expected)),
            Text("" if worst is None else exact(worst.actual)),
        )
    return table


def render(verdict: Verdict) -> str:
    """Everything as plain text; the first line is the verdict."""
    stream = StringIO()
    console = Console(file=stream, width=160, no_color=True, force_terminal=False)
    Terminal(console)._details(verdict)  # noqa: SLF001 - its own class
    again = "" if verdict.passed else f"again: {one_line(verdict.reproduce)}"
    return f"{verdict.status.upper()} {_outcome(verdict)}\n{stream.getvalue()}{again}".rstrip()
