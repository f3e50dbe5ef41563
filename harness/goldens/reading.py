"""Read any golden as far as it goes, and say what is wrong with it instead of stopping.

A run reads goldens strictly (:mod:`harness.goldens`). Here a whole store is to be accounted for, so
each problem becomes one finding with its key, and the next file is read.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

#: No store in the wild has a golden of a tenth of that.
SIZE_LIMIT = 32 << 20
FULL = "full"
_FIELDS = {"start_step", "end_step", "step_interval", "values"}
_INTEGERS = ("start_step", "end_step", "step_interval")


@dataclass(frozen=True)
class Problem:
    """What is wrong: at which key (``metric`` or ``metric/step``), of which kind, in a sentence."""

    key: str | None
    kind: str
    message: str


@dataclass(frozen=True)
class Curve:
    """One metric as the file has it.

    Args:
        start, end, interval: as the file says.
        values: by step; None where the file has something that is no finite number.
        full: its values were not rounded, says the file (``value_precision: full``).
    """

    start: int
    end: int
    interval: int
    values: Mapping[int, float | None]
    full: bool = False

    def finite(self) -> dict[int, float]:
        """The steps that have a number."""
        return {step: value for step, value in self.values.items() if value is not None}


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Args:
        kind: ``curves`` (by step, what a run is compared with), ``inference`` (lists of tokens and
            the like, which no run of ours is), or ``unreadable``.
    """

    kind: Literal["curves", "inference", "unreadable"]
    curves: Mapping[str, Curve] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def read(path: Path) -> Content:
    """Read ``path``; never raises for what is in it."""
    try:
        data = _bytes(path)
    except _Unreadable as error:
        return _unreadable(error.kind, str(error))
    repeated: list[str] = []
    try:
        found = json.loads(data, object_pairs_hook=lambda pairs: _object(pairs, repeated))
    except RecursionError:
        return _unreadable("not-json", "is nested too deeply to be read")
    except ValueError as error:
        return _unreadable("not-json", f"is not JSON: {error}")
    if not isinstance(found, dict) or not found:
        return _unreadable("not-a-golden", f"holds {_what(found)}, expected metrics by name")
    problems = [Problem(key, "repeated-key", f"{key!r} stands in it twice") for key in repeated]
    if not any(isinstance(value, dict) and _FIELDS & value.keys() for value in found.values()):
        if any(_holds_lists(value) for value in found.values()):
            return Content("inference", problems=tuple(problems))
        return _unreadable("not-a-golden", "holds no metric with start_step, end_step and values")
    curves = {}
    for name, value in found.items():
        curve = _curve(name, value, problems)
        if curve is not None:
            curves[name] = curve
    return Content("curves", curves, tuple(problems))


class _Unreadable(Exception):
    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


def _unreadable(kind: str, message: str) -> Content:
    return Content("unreadable", problems=(Problem(None, kind, message),))


def _bytes(path: Path) -> bytes:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise _Unreadable("not-a-file", "is no regular file")
        if about.st_size == 0:
            raise _Unreadable("empty", "is empty (0 bytes)")
        if about.st_size > SIZE_LIMIT:
            size, limit = about.st_size >> 20, SIZE_LIMIT >> 20
            raise _Unreadable("too-big", f"is {size} MiB, which is not read (limit: {limit} MiB)")
        data = path.read_bytes()
    except OSError as error:
        raise _Unreadable("not-readable", f"cannot be read: {error.strerror or error}") from error
    if not data.strip():
        raise _Unreadable("empty", "holds nothing but white space")
    return data


def _object(pairs: list[tuple[str, Any]], repeated: list[str]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                repeated.append(key)
            seen.add(key)
    return found


def _what(value: object) -> str:
    kinds = {dict: "an empty object", list: "a list", str: "a string", type(None): "null"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def _holds_lists(value: object, depth: int = 0) -> bool:
    if isinstance(value, list):
        return True
    if depth > 2 or not isinstance(value, dict):
        return False
    return any(_holds_lists(child, depth + 1) for child in value.values())


def _curve(name: str, value: Any, problems: list[Problem]) -> Curve | None:  # noqa: ANN401
    def problem(kind: str, message: str, step: object = None) -> None:
        problems.append(Problem(name if step is None else f"{name}/{step}", kind, message))

    if not isinstance(value, dict) or not value.keys() >= _FIELDS:
        there = sorted(value) if isinstance(value, dict) else _what(value)
        problem("not-a-series", f"found {there}, expected start_step, end_step, step_interval, values")
        return None
    numbers = [value[field_] for field_ in _INTEGERS]
    if not all(type(number) is int for number in numbers) or numbers[2] < 1:
        shown = ", ".join(f"{k} {value[k]!r}" for k in _INTEGERS)
        problem("not-a-series", f"{shown}: expected whole numbers, and an interval of 1 or more")
        return None
    start, end, interval = numbers
    if isinstance(value["values"], list):
        problem("list-of-values", "its values are a list, expected an object by step")
        return None
    if not isinstance(value["values"], dict) or not value["values"]:
        problem("no-values", "it has no values")
        return None
    values: dict[int, float | None] = {}
    odd: list[tuple[int, object]] = []
    for key, number in value["values"].items():
        try:
            step = int(key)
        except ValueError:
            problem("bad-step", f"step {key[:40]!r} is no whole number", key[:40])
            continue
        good = type(number) in (int, float) and _finite(number)
        # A whole number that no float holds stays what it is.
        values[step] = None if not good else number if float(number) != number else float(number)
        if not good:
            odd.append((step, number))
    if odd:
        step, number = odd[0]
        shown = json.dumps(number)[:40]
        rest = f"; {len(odd)} of its {len(values)} values are no numbers" if len(odd) > 1 else ""
        problem("not-finite", f"found {shown} at step {step}, expected a number{rest}", step)
    precision = value.get("value_precision", "")
    if not isinstance(precision, str):
        problem("precision", f"value_precision: found {json.dumps(precision)[:40]}, expected full or nothing")
    curve = Curve(start, end, interval, values, full=precision == FULL)
    problems.extend(_steps(name, curve))
    return curve


def _finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number that no float holds
        return False


def _steps(name: str, curve: Curve) -> Iterator[Problem]:
    """Whether the steps are those that the head of the series says."""
    if not curve.values:
        return
    first, last = min(curve.values), max(curve.values)
    if first != curve.start:
        yield Problem(name, "wrong-start", f"start_step is {curve.start}, its first step {first}")
    if last != curve.end:
        yield Problem(name, "wrong-end", f"end_step is {curve.end}, its last step {last}")
    wanted = grid(first, last, curve.interval, curve.values)
    missing = sorted(wanted - curve.values.keys())
    if missing:
        yield Problem(name, "gap", f"steps {ranges(missing)} are missing")
    others = sorted(curve.values.keys() - wanted)
    if others:
        said = f"step_interval is {curve.interval}"
        yield Problem(name, "off-grid", f"{said}, and there are steps {ranges(others)} between")


def grid(first: int, last: int, interval: int, there: Mapping[int, object]) -> set[int]:
    """The steps that a series should have.

    Megatron-LM logs the first step and then the multiples of the interval; others count from the
    first. Whichever misses less is meant.
    """
    if (last - first) // interval > 4 * len(there) + 1000:
        # A damaged head may ask for more steps than there is memory for.
        return set(there) | {first + interval}
    counted = set(range(first, last + 1, interval))
    multiples = {first} | set(range(-(-first // interval) * interval, last + 1, interval))
    return min(counted, multiples, key=lambda steps: len(steps ^ there.keys()))


def ranges(steps: list[int]) -> str:
    """``1 to 3, 7``; shortened after a few."""
    runs = []
    for _, group in groupby(enumerate(steps), key=lambda pair: pair[1] - pair[0]):
        run = [step for _, step in group]
        runs.append(f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}")
    return ", ".join(runs[:4]) + (f" and {len(runs) - 4} more" if len(runs) > 4 else "")


def is_link_to_nowhere(path: Path) -> bool:
    """Whether a symbolic link leads to nothing, or to itself."""
    return path.is_symlink() and not os.path.exists(path)
