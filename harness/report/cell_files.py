"""What lies beside a verdict: the state diff, layouts, logs. Untrusted, and often not there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.report.curves import PHASES
from harness.text import one_line, short

_SIZE_LIMIT = 64 << 20  # bytes of a JSON file


@dataclass(frozen=True)
class Beside:
    """What lies beside a verdict.

    Args:
        folder: the cell's results.
        state: ``state_diff.json``; empty without one.
        layouts: how each phase was laid out, in words.
        logs: paths of the ranks' logs, relative to ``folder``.
    """

    folder: Path
    state: Mapping[str, Any]
    layouts: Mapping[str, str]
    logs: tuple[str, ...]


def look(folder: Path) -> Beside:
    """Read what lies beside a verdict; what is not there is empty."""
    layouts = {}
    for phase in PHASES:
        layout = read_json(folder / phase / "provenance.json").get("layout")
        if isinstance(layout, str):
            layouts[phase] = layout
    logs = sorted(
        path.relative_to(folder).as_posix()
        for phase in (*PHASES, "probe", "replicas")
        for path in (folder / phase / "logs").glob("**/*")
        if path.is_file() and not path.is_symlink()
    )
    return Beside(folder, read_json(folder / "state_diff.json"), layouts, tuple(logs))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        if path.stat().st_size > _SIZE_LIMIT:
            return {}
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def items(value: object) -> Sequence[Any]:
    """A list; empty for anything else."""
    return value if isinstance(value, (list, tuple)) else ()


def objects(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list."""
    return [item for item in items(value) if isinstance(item, Mapping)]


def number(value: object) -> str:
    """A number for a narrow column."""
    return short(value) if isinstance(value, (int, float)) else "" if value is None else one_line(value)


def plain(value: object) -> str:
    """Any value in one line."""
    if value is None:
        return "–"
    scalar = isinstance(value, (str, int, float, bool))
    return one_line(value) if scalar else one_line(json.dumps(value, default=str))
