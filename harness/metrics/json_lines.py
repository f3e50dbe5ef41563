"""JSON lines: one object a line, a step, and numbers by metric name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from harness.errors import MetricsError
from harness.metrics.below import named
from harness.metrics.rows import Row, has_steps, once_each, read_files, shown
from harness.metrics.series import Series

NAME = "metrics.jsonl"
#: What frameworks call theirs: LLaMA-Factory, mmengine, mmcv, detectron2; and people.
OTHERS = (
    "trainer_log.jsonl", "scalars.json", "*.log.json", "metrics.json", "log.jsonl", "logs.jsonl",
    "train_log.jsonl", "train.jsonl", "training.jsonl", "history.jsonl",
)  # fmt: skip


def files(folder: Path) -> list[Path]:
    """The one file in a phase's own folder; none where the trainer wrote none."""
    path = folder / NAME
    return [path] if path.is_file() else []


def others(folder: Path) -> list[Path]:
    """Files of other names, at any depth, whose first lines are objects of which one has a step."""
    return [path for path in (*named(folder, (NAME,)), *named(folder, OTHERS)) if _is_log(path)]


def read(paths: Sequence[Path], *, killed: bool, notes: list[str] | None = None) -> dict[str, Series]:
    """Read the lines of each file.

    ``NaN`` and ``Infinity`` are numbers here, and whole numbers stay exact beyond 2**53. Empty lines are
    passed over; so are fields that are no numbers and lines without a step, and ``notes`` says so.

    Args:
        paths: the files, the oldest first.
        killed: leave out a last line that does not end.
        notes: what was passed over is said there.

    Raises:
        MetricsError: a line that is something else or has a name twice, with its number; no line has a step.
    """
    return read_files(paths, lambda path: _lines(path, killed=killed), notes)


def _lines(path: Path, *, killed: bool) -> Iterator[Row]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise MetricsError(f"{path}: cannot be read: {error.strerror or error}") from error
    if killed:  # what follows the last line end is empty, or torn
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = json.loads(line, object_pairs_hook=partial(once_each, where))
        except (ValueError, RecursionError) as error:
            said = f"found {shown(line.decode(errors='replace'))}, expected one JSON object ({error})"
            raise MetricsError(f"{where}: {said}") from error
        if not isinstance(record, dict):
            raise MetricsError(f"{where}: found {shown(record)}, expected one JSON object")
        yield Row(where, record)


def _is_log(path: Path, most: int = 20) -> bool:
    steps = False
    try:
        with path.open("rb") as file:
            for _ in range(most):
                line = file.readline(1 << 20)
                if not line.strip():
                    continue
                record = json.loads(line)
                if not isinstance(record, dict):
                    return False
                steps = steps or has_steps(record)
    except (OSError, ValueError, RecursionError):
        return False
    return steps
