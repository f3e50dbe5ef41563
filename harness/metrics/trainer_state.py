"""transformers' ``trainer_state.json``: its ``log_history`` has what the Trainer logged.

The Trainer writes it into its checkpoints. The newest one that a phase has saved is copied into the phase's
own folder when it has ended, so that whoever reads the folder needs no checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import MetricsError
from harness.metrics.below import named
from harness.metrics.rows import Row, read_files, shown
from harness.metrics.series import Series

NAME = "trainer_state.json"


def files(folder: Path) -> list[Path]:
    """The newest one in a phase's own folder, if it has any history."""
    newest = _newest(folder)
    with suppress(MetricsError):
        return [newest] if newest is not None and _loaded(newest).get("log_history") else []
    return [newest] if newest is not None else []  # whose reader says what is wrong


def take(folder: Path, checkpoints: Iterable[Path]) -> None:
    """Copy the newest one below ``checkpoints`` into a phase's folder, where one is."""
    found = [one for place in checkpoints if place.is_dir() and (one := _newest(place)) is not None]
    newest = max(found, key=_step, default=None)
    if newest is not None:
        with suppress(OSError):
            shutil.copyfile(newest, folder / NAME)


def read(paths: Sequence[Path], *, killed: bool, notes: list[str] | None = None) -> dict[str, Series]:
    """Read the history of each file.

    Args:
        paths: the files.
        killed: no matter here: a file is written whole, or is none.
        notes: what was passed over is said there.

    Raises:
        MetricsError: it is no such file.
    """
    del killed
    return read_files(paths, _rows, notes)


def _rows(path: Path) -> Iterator[Row]:
    history = _loaded(path).get("log_history")
    if not isinstance(history, list) or not all(isinstance(one, dict) for one in history):
        raise MetricsError(f"{path}: log_history is {shown(history)}, expected a list of objects")
    yield from (Row(f"{path}: log_history[{i}]", one) for i, one in enumerate(history))


def _newest(folder: Path) -> Path | None:
    return max(named(folder, (NAME,)), key=lambda path: (_step(path), -len(path.parts)), default=None)


def _step(path: Path) -> int:
    with suppress(MetricsError):
        step = _loaded(path).get("global_step")
        return step if type(step) is int else -1
    return -1


def _loaded(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise MetricsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise MetricsError(f"{path}: no JSON ({error})", "run the phase again") from error
    if not isinstance(found, dict):
        raise MetricsError(f"{path}: found {shown(found)}, expected one JSON object")
    return found
