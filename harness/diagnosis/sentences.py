"""What the curves show, as sentences that a person can check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.diagnosis import curves
from harness.diagnosis.curves import Deviation
from harness.diagnosis.result import number

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff
    from harness.metrics import Series

#: In the order of cause.
_BEFORE = ("data", "rate", "scale", "loss", "gradient", "parameters")


def of_curves(
    off: Sequence[Deviation],
    expected: Mapping[str, Series],
    actual: Mapping[str, Series],
    k: int,
    n: int,
) -> list[str]:
    """About the series that leave their course first, the first cause first."""
    if not off:
        return ["no curve differs: what was lost has not moved the training, up to here"]
    step, kind = off[0].step, off[0].kind
    first = [d for d in off if (d.step, d.kind) == (step, kind)]
    if kind == "rate":
        return [_rate(d, expected, actual, n) for d in first]
    if kind == "data":
        return [_data(d, expected, actual) for d in first]
    one = first[0]
    said = f"`{one.metric}` differs from iteration {step} on, {curves.ordinal(step, k)}: {one.values}"
    held = _held(step, kind, off, expected, actual)
    if held:
        said += f"; {_listed(held)} {'is' if len(held) == 1 else 'are'} right there"
    return [said]


def _held(
    step: int,
    kind: str,
    off: Sequence[Deviation],
    expected: Mapping[str, Series],
    actual: Mapping[str, Series],
) -> list[str]:
    """One series of each cause that comes before, and is as it should be at ``step``."""
    wrong = {d.metric for d in off if d.step <= step}
    before = _BEFORE[: _BEFORE.index(kind)] if kind in _BEFORE else _BEFORE
    found = []
    for cause in before:
        right = [m for m in expected if m in actual and curves.kind_of(m) == cause and m not in wrong]
        # A digest says more of the data than a count does.
        found += sorted(right, key=lambda m: "digest" not in m)[:1]
    return found


def _listed(metrics: Sequence[str]) -> str:
    quoted = [f"`{metric}`" for metric in metrics]
    return " and ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))


def _rate(d: Deviation, expected: Mapping[str, Series], actual: Mapping[str, Series], n: int) -> str:
    mine, theirs = actual[d.metric], expected[d.metric]
    later = curves.ratios(mine, theirs, d.step + 1)
    if later is not None and max(abs(r - 1) for r in later) < 1e-6:
        return (
            f"`{d.metric}` differs at iteration {d.step} only: {d.values}; from {d.step + 1} on it is right: "
            "the schedule was restored, and its rate did not reach the optimizer until its next step"
        )
    said = f"`{d.metric}` differs from iteration {d.step} on, before any weight"
    at = curves.same_as(mine, theirs, d.step)
    start = int(theirs.steps[0])
    if at == start:
        ratio = f" (ratio {d.actual / d.expected:.2g})" if d.expected and d.actual is not None else ""
        return f"{said}: the schedule was not restored; it restarted at iteration {start - 1}{ratio}"
    if at is not None:
        way = f"{_iterations(abs(d.step - at))} {'behind' if at < d.step else 'ahead'}"
        return f"{said}: {d.values}; its values are those of iteration {at} on: the schedule is {way}"
    over = curves.ratios(mine, theirs, d.step)
    if over is not None and over[1] - over[0] <= 1e-3 * abs(over[1]):
        return (
            f"{said}: {d.values}; that ratio stays the same up to {n}: the schedule's position is right, and "
            "the rates that it moves between are not"
        )
    after = mine.values[mine.steps >= d.step]
    if after.max() == after.min() and theirs.values.max() > theirs.values.min():
        return f"{said}: {d.values}, and it moves no more: the schedule's position is behind its end"
    return f"{said}: {d.values}"


def _iterations(count: int) -> str:
    return f"{count} iteration{'' if count == 1 else 's'}"


def _data(d: Deviation, expected: Mapping[str, Series], actual: Mapping[str, Series]) -> str:
    name = d.metric.lower()
    if d.actual is None or d.expected is None:
        return f"`{d.metric}`: {d.values} at iteration {d.step}"
    if "digest" in name:
        at = curves.same_as(actual[d.metric], expected[d.metric], d.step)
        if at is not None:
            return (
                f"`{d.metric}` differs from iteration {d.step} on: the batches are those of iteration {at} "
                f"on, the data is {_iterations(abs(d.step - at))} {'behind' if at < d.step else 'ahead'}"
            )
        seen = expected[d.metric].values == d.actual
        again = int(expected[d.metric].steps[seen][0]) if seen.any() else None
        where = "another batch" if again is None else f"the batch of iteration {again}"
        return f"`{d.metric}` differs from iteration {d.step} on: {where}, before any weight differs"
    said = f"`{d.metric}` differs from iteration {d.step} on: {d.values}"
    if "consumed" in name or "seen" in name:
        gap = d.actual - d.expected
        said += f", {number(abs(gap))} {'behind' if gap < 0 else 'ahead'}"
    return said


def left_over(
    first: Deviation, k: int, state: StateDiff | None, probe: StateDiff | None, off: Sequence[Deviation]
) -> tuple[str, list[str]]:
    """What the first step that is off leaves over, when no state says anything: (component, why)."""
    behind = first.step - k
    whole = "all that the checkpoint holds comes back as it was saved"
    if first.kind == "gradient" and behind == 1:
        return "optimizer", [
            "the loss of that iteration is right, so weights, data and random numbers are; its gradient is "
            "not: what had been accumulated was lost, or a part of it was discarded"
        ]
    if first.kind == "parameters" or (first.kind in ("loss", "gradient") and behind == 2):
        lacking = _lacks(state, ("optimizer",))
        return "optimizer", [
            "the loss it was made from is right and the update is not: the optimizer's own state was lost"
            + (f"; {lacking[1]}" if lacking else "")
        ]
    if first.kind == "loss" and behind == 1:
        lacking = _lacks(state, ("rng", "data-order"))
        if lacking:
            return lacking[0], [f"the first loss is off, and {lacking[1]}"]
        if probe is None and state is not None:
            return "weights", [
                "positions, random streams and counters are those of the uninterrupted run at the end, so "
                "the first loss speaks for the weights, or for a buffer that is used with them"
            ]
        return "unknown", [
            f"{whole}: what the first loss depends on beside it, a buffer or a random stream, is in no "
            "checkpoint"
        ]
    if first.kind == "validation" and all(d.kind == "validation" for d in off):
        return "unknown", ["training is right, validation is not: its data, or what is averaged for it"]
    return "unknown", [
        f"it is right for {behind - 1} iterations after the resume: something is lost that is used rarely"
    ]


def _lacks(state: StateDiff | None, wanted: Sequence[str]) -> tuple[str, str] | None:
    """The first of the components that no name in the saved state speaks of, and the sentence."""
    from harness.checkpoints import open_checkpoint
    from harness.errors import CheckpointError

    if state is None:
        return None
    try:
        held = {entry.component for entry in open_checkpoint(Path(state.a)).entries.values()}
    except CheckpointError:
        return None
    for component in wanted:
        if component not in held:
            return component, f"the checkpoint holds nothing whose name speaks of {component}"
    return None
