"""Files of a phase's folder by their names, however deep a logger has put them."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

_DEEPEST = 5
_MOST = 20_000  # files; a cache of data may have more
#: Of a phase's folder, what the harness itself writes.
_OWN = ("logs", "stdout_metrics.json", "provenance.json")
_LOGS = (
    "*.csv",
    "*.tsv",
    "*.jsonl",
    "*.json",
    "*.log",
    "*.txt",
    "*tfevents*",
    "*.parquet",
    "*.wandb",
    "*.db",
)


def _all(folder: Path) -> Iterator[Path]:
    """Files, those above first, without following links."""
    count = 0
    for place, folders, names in os.walk(folder):
        here = Path(place)
        depth = len(here.relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if depth < _DEEPEST and (depth or name not in _OWN))
        for name in sorted(names):
            count += 1
            if count > _MOST:
                return
            if depth or name not in _OWN:
                yield here / name


def named(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files with a name of one of the patterns, in the order of their paths."""
    found = [path for path in _all(folder) if any(fnmatch.fnmatchcase(path.name, p) for p in patterns)]
    return sorted(path for path in found if path.is_file())


def seen(folder: Path, most: int = 4) -> str:
    """What looks like a log there, in words; nothing where nothing does."""
    paths = named(folder, _LOGS)
    shown = [path.relative_to(folder).as_posix() for path in paths[:most]]
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return f"{', '.join(shown)}{more}"
