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
from harness.verdict import NOT_RUN
from harness.verdict.sweep import REPORT, VERDICT

if TYPE_CHECKING:
    from harness.metrics import Series
    from harness.night.headline import Headline
    from harness.night.when import Since
    from harness.verdict import Verdict

#: The signature of a cell without a verdict: it says something of the machine, nothing of the cell.
MISSING: Final = "missing"
NO_VERDICT: Final = "no verdict: its job never began, was cancelled, or ended before it could write one"
NOT_FINISHED: Final = "its run began, and left no verdict: it was ended, or the machine was"
#: How a cell ended: a verdict's status, or why there is none.
State = Literal[
    "passed", "failed", "error", "refused", "skipped", "unreadable", "missing", "old", "unfinished"
]
STATES: Final[dict[State, str]] = {
    "passed": "passed", "failed": "failed", "error": "error", "refused": "refused", "skipped": "skipped",
    "unreadable": "unreadable",
    "missing": "no verdict", "old": "old", "unfinished": "not finished",
}  # fmt: skip
#: Nothing is told by colour alone.
SIGNS: Final[dict[State, str]] = {
    "passed": "✓", "failed": "✗", "error": "!", "refused": "!", "skipped": "–", "unreadable": "?",
    "missing": "?", "old": "?", "unfinished": "…",
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
        old: whether there is one, of another night; says nothing of this one.
        expected: whether it should have run: then it is red when it was skipped.
        remark: what is to be said of it whatever it found; empty for nothing.
    """

    cell: Cell
    folder: Path
    verdict: Verdict | None
    problem: str = ""
    old: bool = False
    expected: bool = False
    remark: str = ""

    @property
    def state(self) -> State:
        """The verdict's status; ``unfinished`` before it is written."""
        if self.verdict is not None:
            return self.verdict.status
        if self.missing:
            return "old" if self.old else "missing"
        return "unreadable" if self.problem else "unfinished"

    @property
    def green(self) -> bool:
        """Whether everything held."""
        return self.state == "passed"

    @property
    def red(self) -> bool:
        """Whether somebody must look at it."""
        return self.state not in ("passed", "unfinished") and (self.state != "skipped" or self.expected)

    @property
    def missing(self) -> bool:
        """Whether the cell should have run, and left nothing of this night."""
        return self.verdict is None and (self.old or self.problem in (NO_VERDICT, NOT_FINISHED))

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
        why = [self.verdict.message] if self.verdict.status in NOT_RUN else []
        text = "\n".join([self.verdict.status, self.component, *failed, *why])
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
        """What its longest phase logged; empty when nothing can be read, or it is of another night."""
        from harness.metrics import read_metrics

        if self.old:
            return {}
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


def read_outcome(cell: Cell, folder: Path, since: Since | None = None) -> Outcome:
    """What a cell left in its folder of results.

    A torn verdict is no reason to be silent about the other cells: it is this cell's own red.

    Args:
        since: when the night began; a verdict of another night is none.
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
    if since is not None and (problem := since.problem(verdict)):
        return Outcome(cell, folder, None, problem, old=True)
    return Outcome(cell, folder, verdict, remark=since.remark(verdict) if since else "")
