"""JSON lines: one object a line, ``step`` or ``iteration``, and numbers by metric name."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import MetricsError
from harness.metrics.series import Series

NAME = "metrics.jsonl"
_STEP_KEYS = ("step", "iteration")


def files(folder: Path) -> list[Path]:
    """The one file in a phase's own folder; none where the trainer wrote none."""
    path = folder / NAME
    return [path] if path.is_file() else []


def read(paths: Sequence[Path], *, killed: bool) -> dict[str, Series]:
    """Read the lines of each file.

    ``NaN`` and ``Infinity`` are numbers here, and whole numbers stay exact beyond 2**53. Empty lines are
    passed over.

    Args:
        paths: the files, the oldest first.
        killed: leave out a last line that does not end.

    Raises:
        MetricsError: a line that is something else, with its number.
    """
    steps: dict[str, list[int]] = {}
    values: dict[str, list[float]] = {}
    for path in paths:
        for where, step, numbers in _lines(path, killed=killed):
            for name, value in numbers.items():
                if type(value) is not float and (type(value) is not int or abs(value) > sys.float_info.max):
                    raise MetricsError(f"{where}: {name!r} is {_shown(value)}, expected a number")
                if name not in steps:
                    steps[name], values[name] = [], []
                steps[name].append(step)
                values[name].append(value)
    return {name: Series.of(name, steps[name], values[name]) for name in steps}


def _lines(path: Path, *, killed: bool) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """``file:line``, step and the rest of each line."""
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
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            said = f"found {_shown(line.decode(errors='replace'))}, expected one JSON object ({error})"
            raise MetricsError(f"{where}: {said}") from error
        if not isinstance(record, dict):
            raise MetricsError(f"{where}: found {_shown(record)}, expected one JSON object")
        found = [record.pop(key) for key in _STEP_KEYS if key in record]
        if not found:
            raise MetricsError(
                f"{where}: found keys {_shown(sorted(record))}, expected 'step' or 'iteration'"
            )
        if any(type(step) is not int or not -(1 << 63) <= step < 1 << 63 for step in found):
            raise MetricsError(f"{where}: the step is {_shown(found[0])}, expected a whole number")
        if found[0] != found[-1]:
            raise MetricsError(f"{where}: step {found[0]} and iteration {found[-1]}, expected the same")
        yield where, found[0], record


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
