"""What became of a task: the verdict that it has left, or one that says what Slurm knows of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.diagnosis import Diagnosis
from harness.matrix import Cell
from harness.night.outcome import Outcome, read_outcome
from harness.sweep.folder import Record
from harness.sweep.queue import TAKEN, Key, Task
from harness.verdict.sweep import MARKER, leave

#: Slurm's words, as what happened to a task.
_SAID: Final = {
    "BOOT_FAIL": "its node did not come up",
    "CANCELLED": "it was cancelled",
    "COMPLETED": "it ended with status 0",
    "DEADLINE": "it came to its deadline",
    "FAILED": "it failed",
    "NODE_FAIL": "its node was lost",
    "OUT_OF_MEMORY": "it ran out of memory",
    "PREEMPTED": "it was preempted",
    "REVOKED": "it was revoked",
    "TIMEOUT": "it came to its time limit",
}


def place(results: Path, cell: Cell) -> Path:
    """Where a cell's results lie."""
    return results / cell.hardware / cell.track / cell.case


def left_by(results: Path, cell: Cell, record: Record | None, key: Key) -> Outcome | None:
    """What a task has left of its own; None where there is no verdict, or one of before or of another."""
    if record is None or taken_over(results, cell, record, key):
        return None
    found = read_outcome(cell, place(results, cell))
    if found.verdict is None:  # none, or one that nobody can read
        return found if found.state == "unreadable" else None
    run = found.verdict.run
    # Without a run it is of a harness that told none: of before.
    return found if run is not None and run.id and run.id != record.before else None


def taken_over(results: Path, cell: Cell, record: Record | None, key: Key) -> bool:
    """Whether the folder of a cell is another job's by now, of a sweep or by hand: it is left to that."""
    try:
        marker = json.loads((place(results, cell) / MARKER).read_bytes())
        job, run = marker.get("job", ""), marker.get("id", "")
    except (OSError, ValueError, AttributeError):
        return False
    if record is None or run == record.before:
        return False  # what stood there when the task began
    return bool(job != f"{key[0]}_{key[1]}")


def taken(task: Task | None) -> bool:
    """Whether others have ended a task, so that nobody knows how its cell would have."""
    return task is not None and task.state in TAKEN


def write(
    results: Path, cell: Cell, *, task: Task | None, record: Record | None, words: Sequence[str], last: str
) -> None:
    """Leave the verdict of a task that has left none.

    Args:
        task: what Slurm says of it; None where it knows nothing any more.
        record: what it said itself when it began.
        words: of the harness, that run the cell again.
        last: the last line that it said.
    """
    host = record.host if record is not None else task.host if task is not None else ""
    where = f" on {host}" if host else ""
    if task is None:
        happened = "it left the queue, and Slurm knows no more of it"
    else:
        said = f" ({task.reason})" if task.reason not in ("", "None", "NonZeroExitCode") else ""
        happened = f"{_SAID.get(task.state, 'it ended')}: {task.state}{said}"
    provenance = {"host": host, "results": str(place(results, cell))} if host else {}
    again = shlex.join(["harness", *words])
    if taken(task):
        leave(cell, "skipped", f"its job was taken away{where}: {happened}", results,
              again=again, provenance=provenance)  # fmt: skip
        return
    evidence = [f"its job has left no verdict{where}: {happened}"]
    if record is None:
        evidence.append("it never began: do the nodes see this folder and this Python?")
    if last:
        evidence.append(f"the last it said: {last}")
    leave(cell, "error", evidence[0], results, again=again, provenance=provenance,
          diagnosis=Diagnosis("crash", tuple(evidence)))  # fmt: skip
