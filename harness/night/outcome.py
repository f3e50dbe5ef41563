"""What became of one cell: its verdict, or why there is none."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from harness.errors import HarnessError
from harness.matrix import Cell
from harness.text import one_line

if TYPE_CHECKING:
    from harness.metrics import Series
    from harness.night.headline import Headline
    from harness.verdict import Verdict

VERDICT: Final = "verdict.json"
REPORT: Final = "report.html"
#: The signature of a cell without a verdict: it says something of the machine, nothing of the cell.
MISSING: Final = "missing"
NO_VERDICT: Final = "no verdict: its job never began, was cancelled, or ended before it could write one"
#: How a cell ended: a verdict's status, or why there is none.
State = Literal["passed", "failed", "error", "refused", "skipped", "unreadable", "missing", "unfinished"]
STATES: Final[dict[State, str]] = {
    "passed": "passed", "failed": "failed", "error": "error", "refused": "refused", "skipped": "skipped",
    "unreadable": "unreadable",
    "missing": "no verdict", "unfinished": "not finished",
}  # fmt: skip
#: Nothing is told by colour alone.
SIGNS: Final[dict[State, str]] = {
    "passed": "✓", "failed": "✗", "error": "!", "refused": "!", "skipped": "–", "unreadable": "?",
    "missing": "?", "unfinished": "…",
}  # fmt: skip
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True)
class Outcome:
    """What became of one cell.

    Args:
        cell: which one.
        folder: its results.
        verdict: None when there is none, or none that can be read.
        problem: why not; empty with a verdict, and while the cell has not finished.
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
        if self.missing:
            return "missing"
        return "unreadable" if self.problem else "unfinished"

    @property
    def green(self) -> bool:
        """Whether everything held."""
        return self.state == "passed"

    @property
    def red(self) -> bool:
        """Whether somebody must look at it."""
        return self.state not in ("passed", "unfinished")

    @property
    def missing(self) -> bool:
        """Whether the cell should have run, and left nothing."""
        return self.verdict is None and self.problem == NO_VERDICT

    @cached_property
    def headline(self) -> Headline:
        """What broke, since which step, what was lost, and the command to see it."""
        from harness.night.headline import Headline, headline, resumed_after

        if self.verdict is None:
            cell = self.cell
            command = f'nox -s "case({cell.hardware})({cell.track},{cell.case})"'
            return Headline(one_line(self.problem), "no step was judged", "not diagnosed", command)
        return headline(self.verdict, resumed_after(self.verdict))

    @property
    def component(self) -> str:
        """The word of the diagnosis; empty without one."""
        diagnosis = self.verdict.diagnosis if self.verdict else None
        return diagnosis.component if diagnosis else ""

    @property
    def commit(self) -> str | None:
        """Of the code that ran; None when nobody knows."""
        recorded = self.verdict.provenance.get("commit") if self.verdict else None
        return commit(recorded) or commit(os.environ.get("GITHUB_SHA"))

    @property
    def signature(self) -> str:
        """Equal on two nights when the cell is red for the same reason."""
        if self.verdict is None:
            return MISSING if self.missing else "unreadable"
        # Not the step: it moves with the hardware's mood, and each move would be one more comment.
        failed = sorted(check.name for check in self.verdict.failures)
        text = "\n".join([self.verdict.status, self.component, *failed])
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]

    @property
    def report(self) -> Path | None:
        """Its report, if there is one."""
        path = self.folder / REPORT
        return path if path.is_file() else None

    @property
    def seconds(self) -> float | None:
        """How long the cell took."""
        found = self.verdict.timing.get("total") if self.verdict else None
        return float(found) if isinstance(found, (int, float)) else None

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


def commit(found: object) -> str | None:
    """A commit as git names it, without the mark of a changed tree; None for anything else."""
    if not isinstance(found, str):
        return None
    name = found.strip().removesuffix("+").lower()
    return name if _COMMIT.fullmatch(name) else None


def read_outcome(cell: Cell, folder: Path) -> Outcome:
    """What a cell left in its folder of results.

    A torn verdict is no reason to be silent about the other cells: it is this cell's own red.
    """
    from harness.verdict.reading import read_verdict

    path = folder / VERDICT
    if not path.exists():
        return Outcome(cell, folder, None)
    try:
        verdict = read_verdict(path)
    except HarnessError as error:
        said = error.message.removeprefix(f"{path}: ").removeprefix("cannot be read: ")
        return Outcome(cell, folder, None, f"its {VERDICT} cannot be read: {said}")
    if verdict.cell != cell.id:
        return Outcome(cell, folder, None, f"its {VERDICT} is that of {verdict.cell}")
    return Outcome(cell, folder, verdict)
