"""Folders of results as a night leaves them, made by the classes that write the real ones."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

from harness.checks import Check, Worst
from harness.diagnosis import Diagnosis
from harness.verdict import Run, Verdict

COMMITS = {name: name * 40 for name in "abcdef"}


def green(cell: str, *, commit: str = "a", **provenance: Any) -> Verdict:
    """A cell in which everything held."""
    check = Check("golden: lm loss", "lm loss", "golden", "exact", passed=True, message="equal")
    return Verdict(
        cell,
        "passed",
        (check,),
        None,
        {"total": 1.0},
        _provenance(commit, provenance),
        _again(cell),
        run=ran(),
    )


def not_run(cell: str, status: Literal["refused", "skipped"], message: str = "because") -> Verdict:
    """A cell that could not be run."""
    return Verdict(cell, status, (), None, {}, {}, _again(cell), message, ran())


def ran(ago: timedelta = timedelta()) -> Run:
    """An invocation that took no time."""
    at = (datetime.now(timezone.utc) - ago).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Run(uuid.uuid4().hex, at, at)


def red(
    cell: str,
    *,
    commit: str = "b",
    component: str = "lr-schedule",
    metric: str = "lm loss",
    step: int = 52,
    message: str = "differs from step 52 on",
    evidence: tuple[str, ...] = ("learning rate at step 51: 0.0001, expected 0.00009",),
    command: str = "",
    more: tuple[Check, ...] = (),
) -> Verdict:
    """A cell that lost something."""
    check = Check(
        f"resumed: {metric}", metric, "continuous", "exact",
        passed=False, first_bad_step=step, worst=Worst(step, 10.5, 10.75), message=message,
    )  # fmt: skip
    diagnosis = Diagnosis(component, evidence)
    checks = (check, *more)
    return Verdict(
        cell, "failed", checks, diagnosis, {"total": 1.0}, _provenance(commit, {}), command or _again(cell),
        run=ran(),
    )  # fmt: skip


def write(results: Path, *verdicts: Verdict) -> Path:
    """One night: the folder that was there is left as it is, cells are replaced."""
    for verdict in verdicts:
        verdict.write(results / verdict.cell / "verdict.json")
    return results


def listing(*cells: str) -> list[dict[str, Any]]:
    """What ``nox -l --json`` prints for ``cells``."""
    sessions = [{"session": "tests", "name": "tests", "tags": [], "call_spec": {}}]
    for cell in cells:
        hardware, track, case = cell.split("/")
        sessions.append(
            {
                "session": f"case({hardware})({track},{case})",
                "name": f"case({hardware})",
                "tags": [hardware, track, case],
                "call_spec": {"track": track, "case": case},
            }
        )
    return sessions


def _provenance(commit: str, more: Mapping[str, Any]) -> dict[str, Any]:
    return {"commit": COMMITS.get(commit, commit), "resumed_after": 50, **more}


def _again(cell: str) -> str:
    hardware, track, case = cell.split("/")
    return f'nox -s "case({hardware})({track},{case})"'
