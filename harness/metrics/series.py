"""Series, and their readers: TensorBoard event files, JSON lines."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import MetricsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

JSON_LINES = "metrics.jsonl"
#: Megatron-LM logs every curve once more over consumed samples: the same values, another axis.
_OTHER_AXIS = " vs samples"
_STEP_KEYS = ("step", "iteration")


@dataclass(frozen=True, eq=False)
class Series:
    """One metric's values by step.

    Args:
        name: the metric.
        steps: int64, in the order they were logged: repeated and backward steps are kept, checks
            judge them. Read-only from here on.
        values: float64, same length; NaN and infinities are kept, checks judge them too.
    """

    name: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        import numpy as np

        # A view: the caller's own array stays as writable as it was.
        steps = np.asarray(self.steps, np.int64).view()
        values = np.asarray(self.values, np.float64).view()
        if steps.ndim != 1 or steps.shape != values.shape:
            raise ValueError(f"{self.name}: steps {steps.shape} and values {values.shape}")
        steps.flags.writeable = values.flags.writeable = False
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        span = f"steps {self.steps[0]}..{self.steps[-1]}" if len(self) else "no steps"
        return f"Series({self.name!r}, {len(self)} values, {span})"

    @functools.cached_property
    def clean(self) -> bool:
        """Whether its steps only go up and its values are finite."""
        import numpy as np

        return bool(np.all(self.steps[1:] > self.steps[:-1]) and np.isfinite(self.values).all())

    def at(self, first: int, last: int) -> Series:
        """What was logged at the steps ``first..last``, both included, in the same order."""
        if len(self) and self.steps[0] >= first and self.steps.min() >= first and self.steps.max() <= last:
            return self
        inside = (self.steps >= first) & (self.steps <= last)
        return Series(self.name, self.steps[inside], self.values[inside])

    def followed_by(self, later: Series) -> Series:
        """This series and then ``later``, as one run would have logged them."""
        import numpy as np

        return Series(
            self.name,
            np.concatenate([self.steps, later.steps]),
            np.concatenate([self.values, later.values]),
        )


def join(before: Mapping[str, Series], after: Mapping[str, Series]) -> dict[str, Series]:
    """The curves of a run that was stopped and went on."""
    return {
        name: before[name].followed_by(later) if name in before and name in after else later
        for name, later in {**before, **after}.items()
    }


def read_metrics(tensorboard_folder: Path, output_folder: Path, *, killed: bool = False) -> dict[str, Series]:
    """What a phase logged: event files under the one folder, ``metrics.jsonl`` in the other.

    Args:
        tensorboard_folder: searched with all its subfolders.
        output_folder: the phase's own folder.
        killed: the process was killed: what it was writing at that moment, the last record of an
            event file or the last line, may be torn and is then left out.

    Returns:
        The series by metric, in the order they first appear. Where both sources have a metric, the
        event files count.

    Raises:
        MetricsError: neither is there, or one is broken.
    """
    events, lines = event_files(tensorboard_folder), output_folder / JSON_LINES
    found = {}
    if lines.is_file():
        found = read_json_lines(lines, killed=killed)
    if events:
        found |= _read_event_files(events, killed=killed)
    if not events and not lines.is_file():
        raise MetricsError(
            f"{tensorboard_folder}: no event file, and no {lines}: the trainer logged nothing",
            f"let it write TensorBoard events to ${{TENSORBOARD_PATH}}, or one JSON object a line to"
            f" ${{OUTPUT_PATH}}/{JSON_LINES}",
        )
    return found


# -- TensorBoard -----------------------------------------------------------------------------------


def read_tensorboard(folder: Path, *, killed: bool = False) -> dict[str, Series]:
    """Every scalar of the event files under ``folder``, files in the order they were begun.

    ``simple_value`` and scalar ``tensor`` values count; a float32 stays the number that it is.
    Curves over consumed samples (``lm loss vs samples``) are left out: their steps are not iterations.

    Args:
        folder: searched with all its subfolders.
        killed: leave out a last record that was torn by a kill.

    Raises:
        MetricsError: there is no event file, or a record is torn or corrupted.
    """
    files = event_files(folder)
    if not files:
        raise MetricsError(f"{folder}: no event file, expected one named *tfevents*")
    return _read_event_files(files, killed=killed)


def event_files(folder: Path) -> list[Path]:
    """All event files under ``folder``, by name: their names begin with the second they were begun."""
    return sorted((p for p in folder.rglob("*tfevents*") if p.is_file()), key=lambda p: (p.name, p))


def _read_event_files(files: list[Path], *, killed: bool) -> dict[str, Series]:
    from harness.metrics.events import Scalars, read_events

    # Two processes may begin a file in the same second; the first event's clock tells which was first.
    read = sorted((read_events(path, killed=killed) for path in files), key=lambda s: s.began)
    found: dict[str, Scalars] = {}
    for one in read:
        for tag, scalars in one.scalars.items():
            if not tag.endswith(_OTHER_AXIS):
                there = found.setdefault(tag, Scalars())
                there.steps += scalars.steps
                there.values += scalars.values
    return {tag: Series(tag, s.steps, s.values) for tag, s in found.items()}  # type: ignore[arg-type]


# -- JSON lines ------------------------------------------------------------------------------------


def read_json_lines(path: Path, *, killed: bool = False) -> dict[str, Series]:
    """Read one JSON object a line: ``step`` or ``iteration``, and numbers by metric name.

    ``NaN`` and ``Infinity`` are numbers here. Empty lines are passed over.

    Raises:
        MetricsError: a line that is something else, with its number.
    """
    steps: dict[str, list[int]] = {}
    values: dict[str, list[float]] = {}
    for where, step, numbers in _lines(path, killed=killed):
        for name, value in numbers.items():
            if type(value) is not float and (type(value) is not int or abs(value) > sys.float_info.max):
                raise MetricsError(f"{where}: {name!r} is {_shown(value)}, expected a number")
            if name not in steps:
                steps[name], values[name] = [], []
            steps[name].append(step)
            values[name].append(value)
    return {
        name: Series(name, steps[name], values[name])  # type: ignore[arg-type]
        for name in steps
        if not name.endswith(_OTHER_AXIS)
    }


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
