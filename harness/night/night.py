"""One night: the verdicts below a folder of results, and the cells that should have one and do not."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError, UsageError
from harness.matrix import Cell

if TYPE_CHECKING:
    from harness.protocol.verdict import Verdict
    from harness.report.words import Headline

#: The signature of a cell without a verdict: it says something of the machine, nothing of the cell.
MISSING = "missing"
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True)
class Outcome:
    """What became of one cell.

    Args:
        cell: which one.
        verdict: None when there is none that can be read.
        problem: why not; empty with a verdict.
    """

    cell: Cell
    verdict: Verdict | None
    problem: str = ""

    @property
    def green(self) -> bool:
        """Whether everything held."""
        return self.verdict is not None and self.verdict.passed

    @property
    def missing(self) -> bool:
        """Whether the cell should have run, and left nothing."""
        return self.verdict is None and self.problem == _NO_VERDICT

    @cached_property
    def headline(self) -> Headline:
        """What broke, since which step, what was lost, and the command to see it."""
        from harness.report.words import Headline, headline

        if self.verdict is None:
            cell = self.cell
            command = f'nox -s "case({cell.hardware})({cell.track},{cell.case})"'
            return Headline(self.problem, "no step was judged", "not diagnosed", command)
        k = self.verdict.provenance.get("resumed_after")
        return headline(self.verdict, k if type(k) is int else None)

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


_NO_VERDICT = "no verdict: its job never began, was cancelled, or ended before it could write one"


@dataclass(frozen=True)
class Night:
    """All outcomes, sorted by cell.

    Args:
        outcomes: one per cell.
        expected: the cells that should have run; empty when nobody said.
    """

    outcomes: tuple[Outcome, ...]
    expected: frozenset[Cell] = frozenset()

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


def commit(found: object) -> str | None:
    """A commit as git names it, without the mark of a changed tree; None for anything else."""
    if not isinstance(found, str):
        return None
    name = found.strip().removesuffix("+").lower()
    return name if _COMMIT.fullmatch(name) else None


def read_night(results: Path, expected: Iterable[Cell] = ()) -> Night:
    """Read every ``<hardware>/<track>/<case>/verdict.json`` below ``results``.

    Args:
        expected: cells that count as red when they have no verdict.

    Raises:
        UsageError: there is nothing to look at.
    """
    wanted = frozenset(expected)
    found = {}
    for path in sorted(results.glob("*/*/*/verdict.json")):
        names = path.parent.relative_to(results).parts
        if any(name.startswith(".") for name in names):  # what a run puts aside before it begins
            continue
        outcome = _outcome(path, "/".join(names))
        found[outcome.cell] = outcome
    for cell in wanted - found.keys():
        found[cell] = Outcome(cell, None, _NO_VERDICT)
    if not found:
        raise UsageError(
            f"{results}: expected HARDWARE/TRACK/CASE/verdict.json, found none",
            "name the folder that the cells were run with as --results",
        )
    outcomes = tuple(sorted(found.values(), key=lambda outcome: outcome.cell.id))
    return Night(outcomes, wanted)


def _outcome(path: Path, name: str) -> Outcome:
    from harness.protocol.verdict import read_verdict

    try:
        cell = Cell.parse(name)
    except HarnessError as error:
        raise UsageError(f"{path}: {error.message}", "only results of cells belong into the folder") from None
    try:
        verdict = read_verdict(path)
    # A torn file is no reason to be silent about the other cells: it is this cell's own red.
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Outcome(cell, None, f"its verdict.json cannot be read: {type(error).__name__}: {error}")
    if verdict.cell != name:
        return Outcome(cell, None, f"its verdict.json is that of {verdict.cell}")
    return Outcome(cell, verdict)
