"""Which iterations a finished run of anybody's script has left whole, so that it can be resumed from them."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from pathlib import Path

from harness.trainers.command.checkpoint_names import files_below, found
from harness.trainers.command.names import Saves
from harness.trainers.command.putting_back import is_pointer, text_of

_LOGS = (".log", ".jsonl", ".csv", ".out", ".err")


def whole_since(folder: Path, end: int, saves: Saves) -> tuple[int, ...]:
    """Iterations of whose checkpoint nothing was written again since, ascending.

    What stands beside the checkpoints and is overwritten by each is the last one's; a copy of a checkpoint, a
    text that names one, and logs are put back with it or are no state.

    Args:
        folder: where the run saved.
        end: its last iteration.
        saves: when it saved.
    """
    there = {iteration: paths for iteration, paths in found(folder, end, saves).items() if iteration > 0}
    parts = [path for paths in there.values() for path in paths]
    written = {iteration: max(map(_time, _files(paths)), default=0) for iteration, paths in there.items()}
    beside = [
        path
        for path in files_below(folder)
        if not (any(path == part or part in path.parents for part in parts) or _is_no_state(path, parts))
    ]
    last = max(map(_time, beside), default=0)
    return tuple(sorted(i for i, when in written.items() if i == max(there) or last <= when))


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        yield from files_below(path) if path.is_dir() else [path]


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _is_no_state(path: Path, parts: list[Path]) -> bool:
    if path.is_symlink() or path.suffix in _LOGS or "tfevents" in path.name:
        return True
    if is_pointer(path) and text_of(path) is not None:
        return True
    return any(part.is_file() and filecmp.cmp(part, path, shallow=False) for part in parts)
