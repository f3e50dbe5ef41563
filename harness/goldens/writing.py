"""Goldens are written: values and provenance, both of them or neither."""

from __future__ import annotations

import itertools
import json
import math
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import __version__
from harness.errors import GoldenError
from harness.goldens.golden import read, side_file
from harness.goldens.reading import FULL
from harness.goldens.swapping import swap

if TYPE_CHECKING:
    from harness.metrics import Series


@dataclass(frozen=True)
class Change:
    """What writing a golden changed.

    Args:
        path: the golden.
        new: there was none before.
        metrics: sentences about the metrics that are not what they were.
    """

    path: Path
    new: bool
    metrics: tuple[str, ...]

    def sentence(self) -> str:
        """One line for a person."""
        if self.new:
            return f"{self.path} was recorded; look at it, and commit it"
        what = "; ".join(self.metrics) or "no value has changed"
        return f"{self.path} was recorded again: {what}"


def provenance_of(
    fingerprint: Mapping[str, Any],
    state: Mapping[str, str],
    *,
    how: str = "recorded",
    repeats: int = 1,
    statistics: Mapping[str, Any] | None = None,
    protocol: str = "full",
    subject: Mapping[str, Any] | None = None,
    circumstances: Sequence[Mapping[str, str]] = (),
    values: Mapping[str, Mapping[str, str]] | None = None,
    resumed: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The content of a side file.

    Args:
        fingerprint: what decided the bits of the run, see :mod:`harness.goldens.fingerprints`.
        state: SHA-256 of each component of the state at N.
        subject: what the case says that decides numbers, see :mod:`harness.goldens.subjects`.
        circumstances: what of the state was left out of its digests, as :meth:`Rule.as_dict` has it.
        values: hashes of plain values, by component and name, which no digest holds.
        resumed: the digests that the resumed run's state had, where a rule allowed them to be others.
    """
    return {
        "how": how,
        "recorded": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "harness": __version__,
        "protocol": protocol,
        "repeats": repeats,
        "fingerprint": dict(fingerprint),
        **({"subject": dict(subject)} if subject else {}),
        "state": dict(state),
        **({"resumed": dict(resumed)} if resumed else {}),
        **({"statistics": dict(statistics)} if statistics else {}),
        **({"values": {component: dict(group) for component, group in values.items()}} if values else {}),
        **({"circumstances": list(circumstances)} if circumstances else {}),
    }


def write(
    path: Path,
    series: Mapping[str, Series],
    provenance: Mapping[str, Any],
    *,
    metrics: Collection[str] = (),
    rounded: Collection[str] = (),
) -> Change:
    """Write a golden and its side file: both are new afterwards, or both are what they were.

    Args:
        metrics: which of the series; all when empty.
        rounded: those that were rounded by whoever wrote them down; the others are marked as in full.

    Raises:
        GoldenError: a series that no golden may hold, see :func:`unfit`.
        OSError: the disk is full, or read-only; nothing was changed.
    """
    problems = unfit(series, metrics)
    if problems:
        raise GoldenError(f"{path}: {'; '.join(problems)}", "the run is not fit to record")
    wanted = {name: one for name, one in series.items() if not metrics or name in metrics}
    body = {name: _plain(one, full=name not in rounded) for name, one in sorted(wanted.items())}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
        before = _as_far_as_readable(path) if path.exists() else None
        new = Path(folder) / "new" / path.name
        new.parent.mkdir()
        _write(new, body)
        _write(side_file(new), provenance)
        swap([(new, path)], aside=Path(folder) / "old")
    return Change(path, before is None, _changes(before or {}, wanted) if before is not None else ())


def unfit(series: Mapping[str, Series], metrics: Collection[str] = ()) -> list[str]:
    """Why no golden can be made of a run, a sentence a metric; empty when one can.

    Args:
        metrics: which of the series; all when empty.
    """
    if not series:
        return ["the run logged nothing"]
    found = [f"`{name}` was not logged, though the case names it" for name in metrics if name not in series]
    for name, one in sorted(series.items()):
        if metrics and name not in metrics:
            continue
        steps, values = one.steps.tolist(), one.values.tolist()
        odd = [i for i, value in enumerate(values) if not math.isfinite(value)]
        back = [i for i in range(1, len(steps)) if steps[i] <= steps[i - 1]]
        if not steps:
            found.append(f"`{name}` has no value")
        elif odd:
            more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
            found.append(f"`{name}` is {values[odd[0]]} at step {steps[odd[0]]}{more}, expected a number")
        elif len(set(steps)) < len(steps):
            found.append(f"`{name}` was logged more than once at step {_first_twice(steps)}")
        elif back:
            found.append(f"`{name}` was logged out of order at step {steps[back[0]]}")
    return found


def _first_twice(steps: list[int]) -> int:
    seen: set[int] = set()
    return next(step for step in steps if step in seen or seen.add(step))  # type: ignore[func-returns-value]


def _plain(series: Series, *, full: bool) -> dict[str, Any]:
    steps, values = series.steps.tolist(), series.numbers()
    return {
        "start_step": steps[0],
        "end_step": steps[-1],
        "step_interval": _interval(steps),
        **({"value_precision": FULL} if full else {}),
        "values": {str(step): value for step, value in zip(steps, values, strict=True)},
    }


def _interval(steps: list[int]) -> int:
    """The step between two values; of 1, 5, 10, 15 … it is 5, as Megatron-LM has it."""
    later = math.gcd(*steps[1:]) if len(steps) > 1 else 0
    if later > 1 and steps[1] - steps[0] < later:
        return later
    return math.gcd(*(b - a for a, b in itertools.pairwise(steps))) or 1


def _as_far_as_readable(path: Path) -> Mapping[str, Series]:
    """What a golden that is about to be replaced held; nothing when it is broken."""
    try:
        return read(path).series
    except GoldenError:
        return {}


def _changes(before: Mapping[str, Series], after: Mapping[str, Series]) -> tuple[str, ...]:
    import numpy as np

    found = [f"{name} is gone" for name in before if name not in after]
    for name, new in sorted(after.items()):
        old = before.get(name)
        if old is None:
            found.append(f"{name} is new")
        elif not np.array_equal(old.steps, new.steps):
            found.append(f"{name} has other steps")
        elif apart := [
            i for i, pair in enumerate(zip(old.numbers(), new.numbers(), strict=True)) if _differ(*pair)
        ]:
            at = apart[0]
            found.append(
                f"{name} changed at {len(apart)} of {new.steps.size} steps, first at {new.steps[at]}: "
                f"{old.numbers()[at]!r} → {new.numbers()[at]!r}"
            )
    return tuple(found)


def _differ(one: float, other: float) -> bool:
    return one != other or math.copysign(1.0, one) != math.copysign(1.0, other)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """A new file, on the disk when this returns."""
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=1, allow_nan=False, sort_keys=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)
