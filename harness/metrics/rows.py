"""Rows of a log, of whatever format: which field is the step, and which of the others are numbers.

A log that somebody wrote for himself has more in it than curves: the rank, the time, the phase's name, a
first line with the configuration. Numbers become series; the rest is passed over, and said.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import MetricsError
from harness.metrics.known import about, is_training
from harness.metrics.series import Series

#: What a step is called, by those who log for themselves and by frameworks; the first one that a log has
#: counts. Of ``step`` beside ``global_step`` or ``iter``, ``step`` may be one within an epoch, or an epoch.
STEPS = (
    "global_step", "trainer/global_step", "train/global_step", "iteration", "iter", "step", "current_steps",
    "num_updates", "_step",
)  # fmt: skip
_SAME = ("step", "iteration")
_EPOCH = "epoch"
_SHOWN = 6  # names
_DEEPEST = 4


@dataclass(frozen=True)
class Row:
    """One row.

    Args:
        where: ``file:line``.
        fields: all of it, the step too.
    """

    where: str
    fields: Mapping[str, Any]


@dataclass
class _Found:
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass
class Passed:
    """What was passed over, to be said.

    Args:
        fields: kind by name.
        rows: how many had no step.
        first: where the first of those is.
    """

    fields: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    first: str = ""

    def sentences(self, path: object) -> list[str]:
        """One for fields, one for rows."""
        said = []
        if self.fields:
            names = [f"`{name}` ({kind})" for name, kind in list(self.fields.items())[:_SHOWN]]
            if (more := len(self.fields) - _SHOWN) > 0:
                names.append(f"{more} more")
            said.append(f"{path}: not compared, no numbers: {', '.join(names)}")
        if self.rows:
            many = f"{self.rows} rows have" if self.rows > 1 else "a row has"
            said.append(f"{path}: not compared: {many} no step (first: {self.first})")
        return said


def series_of(
    rows: Iterable[Row], passed: Passed, *, kept: Mapping[str, Series] | None = None
) -> dict[str, Series]:
    """The numbers of rows, as series.

    Args:
        rows: of one file, as logged.
        passed: what is passed over is added there.
        kept: series of files before this one, which these go on.

    Raises:
        MetricsError: no row has a step, or one's is no whole number; a number that no float is near.
    """
    rows = list(rows)
    found: dict[str, _Found] = {}
    for row, step, rest in _with_steps(rows, passed):
        for name, value in _numbers(row, rest, passed):
            one = found.setdefault(name, _Found())
            one.steps.append(step)
            one.values.append(value)
    series = {name: Series.of(name, one.steps, one.values) for name, one in found.items()}
    before = kept or {}
    return {**before, **{n: before[n].followed_by(s) if n in before else s for n, s in series.items()}}


def read_files(
    paths: Sequence[Path], rows_of: Callable[[Path], Iterable[Row]], notes: list[str] | None
) -> dict[str, Series]:
    """The series of files, each of which goes on what those before it have.

    Args:
        paths: the files, the oldest first.
        rows_of: the rows of one.
        notes: what was passed over is said there.

    Raises:
        MetricsError: as of :func:`series_of`.
    """
    found: dict[str, Series] = {}
    for path in paths:
        passed = Passed()
        found = series_of(rows_of(path), passed, kept=found)
        if notes is not None:
            notes += passed.sentences(path.name)
    return found


def once_each(where: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Fields of a row by name; raises MetricsError where two of one name do not say the same."""
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    found: dict[str, Any] = {}
    for name, value in pairs:
        if not _there(found.get(name)):
            found[name] = value
        elif _there(value) and repr(value) != repr(found[name]):
            raise MetricsError(
                f"{where}: {shown(name)} is there twice, as {shown(found[name])} and {shown(value)}; "
                "expected each name once",
                "log each under a name of its own",
            )
    return found


def has_steps(fields: Iterable[str]) -> bool:
    """Whether one of the fields is a step, or at least an epoch."""
    return any(name in STEPS or name == _EPOCH for name in fields)


def _with_steps(rows: Sequence[Row], passed: Passed) -> Iterator[tuple[Row, int, dict[str, Any]]]:
    """Each row that has a step, the step, and its other fields."""
    named = [name for name in STEPS if any(name in row.fields for row in rows)]
    if not named:
        epochs = [row.fields[_EPOCH] for row in rows if _EPOCH in row.fields]
        if not epochs or any(_whole(value) is None for value in epochs):
            if rows:
                raise _stepless(rows[0])
            return
        named = [_EPOCH]
    last: int | None = None
    for row in rows:
        keys = [name for name in named if _there(row.fields.get(name))]
        if not keys:
            passed.rows += 1
            passed.first = passed.first or row.where
            continue
        steps = {name: _step(row, name) for name in keys}
        if len({steps[name] for name in _SAME if name in steps}) > 1:
            raise MetricsError(
                f"{row.where}: step {steps['step']} and iteration {steps['iteration']}, expected the same"
            )
        step = steps[keys[0]]
        if keys[0] == named[0]:
            last = step
        elif last is not None and step < last:  # an epoch's number, in a row that does not say the iteration
            step = last
        same = {name for name in keys if steps[name] == step}
        yield row, step, {name: value for name, value in row.fields.items() if name not in same}


def _stepless(row: Row) -> MetricsError:
    return MetricsError(
        f"{row.where}: found keys {shown(sorted(map(str, row.fields)))}, expected 'step' or 'iteration' (or "
        "'global_step', 'iter', a whole 'epoch')"
    )


def _there(value: object) -> bool:
    return value is not None and value != ""


def _step(row: Row, name: str) -> int:
    step = _whole(row.fields[name])
    if step is None or not -(1 << 63) <= step < 1 << 63:
        raise MetricsError(
            f"{row.where}: the {_of(name)} is {shown(row.fields[name])}, expected a whole number"
        )
    return step


def _of(name: str) -> str:
    return "step" if name in _SAME else name


def _whole(value: object) -> int | None:
    """A whole number, however it is written: 3, 3.0, "3"."""
    if isinstance(value, str):
        number = number_of(value)
        return None if number is None else _whole(number)
    if type(value) is int:
        return value
    return int(value) if type(value) is float and value.is_integer() else None


def _numbers(
    row: Row, fields: Mapping[str, Any], passed: Passed, above: str = "", depth: int = 0
) -> Iterator[tuple[str, float]]:
    for own, value in fields.items():
        name = f"{above}{own}"
        if type(value) is float:
            yield name, value
        elif type(value) is int:
            if abs(value) > sys.float_info.max:
                raise MetricsError(f"{row.where}: {name!r} is {shown(value)}, expected a number")
            yield name, value
        elif isinstance(value, dict) and depth < _DEEPEST:
            # Of a table within the row, what is known to tell of training; times and sizes may be anything.
            for inner, number in _numbers(row, value, passed, f"{name}/", depth + 1):
                if _tells(inner):
                    yield inner, number
                else:
                    passed.fields.setdefault(name, "nested")
        elif isinstance(value, str) and _tells(name) and (said := number_of(value)) is not None:
            yield name, said
        elif not (isinstance(value, str) and not value.strip()):  # an empty cell: nothing was logged
            passed.fields.setdefault(name, _kind(value))


def _tells(name: str) -> bool:
    return about(name).tells != "other" or is_training(name)


def _kind(value: object) -> str:
    kinds = {"NoneType": "null", "str": "text", "dict": "nested", "list": "a list"}
    return kinds.get(type(value).__name__, type(value).__name__)


def number_of(text: str) -> int | float | None:
    """What a text says, as Python's number, whole ones exact; None for anything else."""
    text = text.strip()
    if not text.isascii() or "_" in text:  # Python would take them
        return None
    try:
        number: int | float = int(text) if re.fullmatch(r"[-+]?[0-9]+", text) else float(text)
    except ValueError:
        return None
    return None if type(number) is int and abs(number) > sys.float_info.max else number


def shown(value: object) -> str:
    """A value, not all too long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
