"""The verdict of one cell."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import EXIT_CRASHED, EXIT_FAILED, EXIT_NOTHING, EXIT_PASSED, EXIT_USAGE
from harness.text import strict_json

if TYPE_CHECKING:
    from harness.checkpoints.coverage import Coverage
    from harness.checks import Check
    from harness.diagnosis import Diagnosis

Status = Literal["passed", "failed", "error", "refused", "skipped"]
_EXIT_CODES: dict[Status, int] = {
    "passed": EXIT_PASSED,
    "failed": EXIT_FAILED,
    "error": EXIT_CRASHED,
    "refused": EXIT_USAGE,
    "skipped": EXIT_NOTHING,
}
#: Of a cell that was not run at all.
NOT_RUN: tuple[Status, ...] = ("refused", "skipped")


@dataclass(frozen=True)
class Run:
    """Which invocation a verdict is of.

    Args:
        id: made anew by every invocation.
        started, finished: UTC, ``2026-11-27T01:02:03Z``; the beginning is before anything could be refused.
    """

    id: str
    started: str
    finished: str


@dataclass(frozen=True)
class Verdict:
    """All checks of a cell, the diagnosis, the timings, the provenance.

    Args:
        cell: ``cpu/dev/<case>``.
        status: ``passed``; ``failed``: a check did; ``error``: a phase could not be run to its end;
            ``refused``: it cannot be run at all; ``skipped``: this machine has not what it needs.
        checks: every comparison that was made, passed or not.
        diagnosis: what was lost; None when nothing was.
        timing: seconds by what they were spent on.
        provenance: what ran, on what, and which golden it was compared with.
        reproduce: the one command line that runs this cell again.
        message: one sentence, of a cell that was not run why not; else what there is to say of it as a whole.
        run: the invocation; None in a verdict that was written before there was any.
        coverage: what of the saved state was compared; None where there was none to compare.
    """

    cell: str
    status: Status
    checks: tuple[Check, ...]
    diagnosis: Diagnosis | None
    timing: Mapping[str, float]
    provenance: Mapping[str, Any]
    reproduce: str
    message: str = ""
    run: Run | None = None
    coverage: Coverage | None = None

    def __post_init__(self) -> None:
        if self.status not in _EXIT_CODES:
            raise ValueError(f"status {self.status!r}")
        if self.status == "passed" and self.failures:
            raise ValueError(f"passed with {len(self.failures)} failed checks")
        if self.status == "passed" and not self.checks:
            raise ValueError("passed without a check")
        if self.status in NOT_RUN and (self.checks or not self.message):
            raise ValueError(f"{self.status}: expected no checks, and a message that says why")

    @property
    def passed(self) -> bool:
        """Whether everything held."""
        return self.status == "passed"

    @property
    def exit_code(self) -> int:
        """What the process that ran the cell should return."""
        return _EXIT_CODES[self.status]

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not hold."""
        return tuple(check for check in self.checks if not check.passed)

    def to_json(self) -> str:
        """The content of ``verdict.json``; keys as in the design."""
        written = asdict(self)
        for candidate in (written["diagnosis"] or {}).get("candidates", ()):
            candidate["for"] = candidate.pop("speaks_for")  # "for" cannot be the name of an attribute
        return strict_json(written)

    def write(self, path: Path) -> None:
        """Write it at once or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(self.to_json(), encoding="utf-8")
        beside.replace(path)
