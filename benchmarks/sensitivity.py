"""What each lane of the checks catches, by replaying curves with one fault each: the table of the docs.

    python -m benchmarks.sensitivity [--curves N] [--json FILE]

Each curve is a real training (``tiny_trainer``, or a recorded run of the native trainer, in ``tests/data``)
and is compared with another run of the same training that differs by rounding alone. The faults are put
into the curve; those of training are trained. A fault with a size counts from the smallest size on at
which, and above which, it was caught on at least 95 % of the curves. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.tiny_trainer import Recipe, train
from harness.checks import compare_as_megatron, compare_curves, statistics_of
from harness.metrics import Series

Array = NDArray[np.float64]
Curves = Mapping[str, Series]
Lane = Literal["exact", "tolerance", "envelope"]

RECORDED = Path(__file__).parents[1] / "tests" / "data" / "curves"
SIZES = [digit * 10.0**power for power in range(-7, 1) for digit in (1, 2, 5)]
#: Relative noise of one rounding, by what computes.
ROUNDING = {"float32": 1e-6, "bfloat16": 1e-3}
REPEATS = 5
ENOUGH = 0.95
#: Of a training's curves: neither the rate, which gives a wrong rate away at once, nor a handful of zeros.
JUDGED = ("lm loss", "grad-norm", "params-norm")


@dataclass(frozen=True)
class Situation:
    """A run as it should be, what it is compared with, and what repeats say of the noise."""

    expected: Curves
    actual: Curves
    statistics: Mapping[str, Any] | None = None


# -- faults of a curve -----------------------------------------------------------------------------


def shifted(series: Series, _: float, after: int) -> Series:
    """From ``after`` on, each step has the value of the next; the last has its own twice."""
    values = series.values.copy()
    values[after:-1] = series.values[after + 1 :]
    return Series(series.name, series.steps, values)


def scaled(series: Series, size: float, after: int) -> Series:
    """A factor of 1 + size after ``after``."""
    factors = np.where(np.arange(len(series)) >= after, 1 + size, 1.0)
    return Series(series.name, series.steps, series.values * factors)


def swapped(series: Series, _: float, after: int) -> Series:
    """Two neighbouring steps have each other's value."""
    values = series.values.copy()
    values[[after, after + 1]] = values[[after + 1, after]]
    return Series(series.name, series.steps, values)


def wrong(series: Series, size: float, after: int) -> Series:
    """One step is off by a factor of 1 + size."""
    values = series.values.copy()
    values[after] *= 1 + size
    return Series(series.name, series.steps, values)


def repeated(series: Series, _: float, after: int) -> Series:
    """One step was logged twice."""
    at = np.insert(np.arange(len(series)), after, after)
    return Series(series.name, series.steps[at], series.values[at])


def dropped(series: Series, _: float, after: int) -> Series:
    """One step is missing."""
    at = np.delete(np.arange(len(series)), after)
    return Series(series.name, series.steps[at], series.values[at])


def not_a_number(series: Series, _: float, after: int) -> Series:
    """One value is NaN."""
    values = series.values.copy()
    values[after] = math.nan
    return Series(series.name, series.steps, values)


def one_bit(series: Series, _: float, after: int) -> Series:
    """The last bit of one value, as a float32, is another."""
    values = series.values.astype(np.float32)
    values.view(np.int32)[after] ^= 1
    return Series(series.name, series.steps, values.astype(np.float64))


Fault = Callable[[Series, float, int], Series]
#: By what the table says: the fault, and whether it has a size.
FAULTS: dict[str, tuple[Fault, bool]] = {
    "shift by one step, whole curve": (lambda s, size, _: shifted(s, size, 0), False),
    "shift by one step after k": (shifted, False),
    "factor after k": (scaled, True),
    "factor, whole curve": (lambda s, size, _: scaled(s, size, 0), True),
    "two steps swapped": (swapped, False),
    "one wrong step": (wrong, True),
    "one step twice": (repeated, False),
    "one step missing": (dropped, False),
    "one NaN": (not_a_number, False),
    "one bit": (one_bit, False),
}
#: Faults of training, by the change of the recipe; caught by loss and norms alone, not by the logged rate.
TRAINED: dict[str, tuple[Callable[[Recipe, float], Recipe], bool]] = {
    "learning rate × (1 + size), whole run": (lambda r, s: replace(r, lr_factor=1 + s), True),
    "learning rate × (1 + size) after k": (
        lambda r, s: replace(r, lr_factor=1 + s, after=r.steps // 2),
        True,
    ),
    "one batch skipped after k": (lambda r, _: replace(r, skipped=1, after=r.steps // 2), False),
}
TRAINED_SIZES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]


# -- verdicts --------------------------------------------------------------------------------------


def caught(lane: str, situation: Situation, actual: Curves) -> bool:
    """Whether any check fails; ``legacy`` and ``legacy 5 %`` are Megatron-LM's two modes."""
    last = max(int(s.steps.max()) for s in situation.expected.values())
    if lane.startswith("legacy"):
        checks = compare_as_megatron(
            situation.expected, actual, against="golden", last=last, deterministic=lane == "legacy"
        )
    else:
        compared: Lane = "exact" if lane == "exact" else "tolerance" if lane == "tolerance" else "envelope"
        checks = compare_curves(
            situation.expected, actual, against="golden", lane=compared, first=1, last=last,
            statistics=situation.statistics,
        )  # fmt: skip
    return not all(check.passed for check in checks)


def smallest(share_at: Callable[[float], float], sizes: Sequence[float]) -> float | None:
    """The smallest size at which and above which enough are caught; None where that is none."""
    found = None
    for size in reversed(sizes):
        if share_at(size) < ENOUGH:
            break
        found = size
    return found


def replay(lane: str, situations: Sequence[Situation], name: str) -> str:
    """A cell of the table: the share caught, or the smallest size caught."""
    fault, sized = FAULTS[name]

    def share(size: float) -> float:
        hits = []
        for situation in situations:
            series = situation.actual["lm loss"]
            curve = fault(series, size, len(series) // 2)
            expected = {"lm loss": situation.expected["lm loss"]}
            reduced = replace(situation, expected=expected)
            hits.append(caught(lane, reduced, {"lm loss": curve}))
        return sum(hits) / len(hits)

    if not sized:
        return f"{share(0.0):.0%}"
    size = smallest(share, SIZES)
    return "never" if size is None else f"from {size:.0e}"


# -- curves ----------------------------------------------------------------------------------------


def situations(kind: str, count: int, *, repeats: bool) -> list[Situation]:
    """``count`` trainings at ``ROUNDING[kind]``, each with a run to judge and, if asked, repeats."""
    return [situation for _, situation in _trained(kind, count, repeats=repeats)]


def _trained(kind: str, count: int, *, repeats: bool) -> Iterator[tuple[Recipe, Situation]]:
    for seed in range(count):
        recipe = Recipe(seed=seed, rounding=ROUNDING[kind])
        runs = [train(replace(recipe, noise_seed=i)) for i in range(1 + (REPEATS if repeats else 1))]
        judged, *others = ({k: run[k] for k in JUDGED} for run in runs)
        yield recipe, Situation(others[0], judged, statistics_of(others) if repeats else None)


def recorded(first: str, second: str) -> Situation | None:
    """Two recorded runs of the native trainer, on two kinds of machine."""
    paths = [RECORDED / f"{name}.json" for name in (first, second)]
    return Situation(*map(read_curves, paths)) if all(path.exists() for path in paths) else None


def read_curves(path: Path) -> dict[str, Series]:
    """Series in the golden format."""
    found = json.loads(path.read_text())
    return {
        name: Series(
            name, np.array([int(step) for step in one["values"]]), np.array([*one["values"].values()])
        )
        for name, one in found.items()
    }


def trained_fault(lane: str, trained: Sequence[tuple[Recipe, Situation]], name: str) -> str:
    """As :func:`replay`, for a fault that is trained."""
    change, sized = TRAINED[name]

    def share(size: float) -> float:
        hits = []
        for recipe, situation in trained:
            run = train(change(recipe, size))
            hits.append(caught(lane, situation, {k: run[k] for k in situation.actual}))
        return sum(hits) / len(hits)

    if not sized:
        return f"{share(0.0):.0%}"
    size = smallest(share, TRAINED_SIZES)
    return "never" if size is None else f"from {size:.0%}"


def table(count: int) -> Iterator[list[str]]:
    """Rows, the head first."""
    plain = {kind: list(_trained(kind, count, repeats=False)) for kind in ROUNDING}
    noisy = {kind: list(_trained(kind, count, repeats=True)) for kind in ROUNDING}
    same = [Situation(s.expected, s.expected) for _, s in plain["float32"]]
    columns: list[tuple[str, str, list[Situation]]] = [("exact", "exact", same)]
    columns += [(f"tolerance, {kind}", "tolerance", [s for _, s in plain[kind]]) for kind in ROUNDING]
    columns += [(f"envelope, {kind}", "envelope", [s for _, s in noisy[kind]]) for kind in ROUNDING]
    columns += [
        ("legacy, same bits", "legacy", same),
        ("legacy 5 %", "legacy 5 %", [s for _, s in plain["float32"]]),
    ]
    yield ["fault", *(title for title, _, _ in columns)]
    alarms = [
        f"{sum(caught(lane, s, s.actual) for s in found)} of {len(found)}" for _, lane, found in columns
    ]
    yield ["none: false alarms", *alarms]
    for name in FAULTS:
        yield [name, *(replay(lane, found, name) for _, lane, found in columns)]
    for name in TRAINED:
        cells = []
        for title, lane, _ in columns:
            kind = "bfloat16" if "bfloat16" in title else "float32"
            cells.append("100%" if lane == "exact" else trained_fault(
                lane, (noisy if lane == "envelope" else plain)[kind][: max(4, count // 3)], name
            ))  # fmt: skip
        yield [name, *cells]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--curves", type=int, default=20, help="trainings per column")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    args = parser.parse_args()
    rows = []
    for row in table(args.curves):
        rows.append(row)
        print("| " + " | ".join(row) + " |", flush=True)
        if len(rows) == 1:
            print("|" + "---|" * len(row), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
