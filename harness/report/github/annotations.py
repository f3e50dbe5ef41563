"""Annotations: for each red cell its worst check, on the line of the golden file that it disagrees with."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.matrix import CASE_FILE, Cell, platform_of
from harness.report.github.markdown import cut

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.night.outcome import Outcome
    from harness.night.quarantine import Entry
    from harness.verdict import Verdict

#: GitHub shows so many errors of a step, and so many warnings; it drops the rest without a word.
MOST = 10
_LONGEST = 4000  # characters of a message; GitHub cuts at 4 KB


def commands(
    outcomes: Sequence[Outcome], held: Mapping[Cell, Entry], goldens: Path, cases: Mapping[str, Path]
) -> list[str]:
    """One workflow command a line: errors first, then warnings for cells in quarantine.

    Args:
        outcomes: of all cells; those that are not red are not annotated.
        held: the quarantine entry of each cell that has one.
        goldens: folder of goldens, relative to the root of the repository.
        cases: each case's folder by its name, relative too.
    """
    red = [outcome for outcome in outcomes if outcome.red]
    lines = []
    for level in ("error", "warning"):
        some = [outcome for outcome in red if (outcome.cell in held) == (level == "warning")]
        shown = some if len(some) <= MOST else some[: MOST - 1]
        lines += [_command(level, outcome, held.get(outcome.cell), goldens, cases) for outcome in shown]
        if more := len(some) - len(shown):
            lines.append(f"::{level} title={more} more cells::they are in the job summary")
    return lines


def worst(verdict: Verdict) -> Check | None:
    """The failed check that says most; None when none failed.

    Of a curve or state before time and memory, of a resumed run before the golden (as in the headline), then
    the earliest step, then the largest relative deviation.
    """

    def weight(check: Check) -> tuple[bool, bool, bool, float, float]:
        step = check.first_bad_step
        rel = check.worst.rel if check.worst else None
        late = float("inf") if step is None else step
        size = float("inf") if rel is None else rel
        return (check.kind == "upper-bound", step is None, check.against == "golden", late, -size)

    return min(verdict.failures, key=weight, default=None)


def _command(
    level: str, outcome: Outcome, entry: Entry | None, goldens: Path, cases: Mapping[str, Path]
) -> str:
    check = worst(outcome.verdict) if outcome.verdict else None
    head = outcome.headline
    lines = [f"{head.what}; since {head.since}; lost: {head.lost}"]
    if check is not None:
        lines.append(f"{check.name}: {check.message}")
    if entry is not None:
        lines.append(f"in quarantine until {entry.expires} ({entry.owner}): {entry.reason}")
    lines.append(f"again: {head.command}")
    provenance = outcome.verdict.provenance if outcome.verdict else {}
    place = _place(outcome.cell, platform_of(outcome.cell.hardware, provenance), check, goldens, cases)
    properties = {**place, "title": f"{outcome.cell.id} is red"}
    said = ",".join(f"{key}={_property(str(value))}" for key, value in properties.items())
    return f"::{level} {said}::{_data(cut(chr(10).join(lines), _LONGEST))}"


def _place(
    cell: Cell, platform: str, check: Check | None, goldens: Path, cases: Mapping[str, Path]
) -> dict[str, str | int]:
    """The golden's line; without a golden the case's file; without that nowhere."""
    for name in (f"golden_values_{cell.track}_{platform}.json", f"golden_values_{cell.track}.json"):
        path = goldens / cell.case / name
        if path.is_file():
            step = check.first_bad_step if check else None
            return {"file": path.as_posix(), "line": _line(path, check.metric if check else None, step)}
    if cell.case in cases:
        return {"file": (cases[cell.case] / CASE_FILE).as_posix(), "line": 1}
    return {}


def _line(path: Path, metric: str | None, step: int | None) -> int:
    """Of the metric's value at ``step``, else of the metric, else 1; a parser would know no lines."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return 1
    found = re.search(re.escape(json.dumps(metric)) + r"\s*:\s*\{", text) if metric else None
    if found is None:
        return 1
    at = found.start()
    if step is not None:
        values = re.compile(r'"values"\s*:\s*\{([^{}]*)').search(text, at)
        value = re.compile(rf'"{step}"\s*:').search(text, *values.span(1)) if values else None
        at = value.start() if value else at
    return text.count("\n", 0, at) + 1


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
