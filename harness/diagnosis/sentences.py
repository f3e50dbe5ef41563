"""What the curves show, as sentences that a person can check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.diagnosis import curves
from harness.diagnosis.curves import Compared, Deviation
from harness.diagnosis.result import number
from harness.metrics.known import about

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.metrics import Series

#: In the order of cause.
_BEFORE = ("data", "rate", "scale", "loss", "gradient", "parameters")


def of_curves(
    off: Sequence[Deviation],
    lines: Sequence[Compared],
    expected: Mapping[str, Series],
    actual: Mapping[str, Series],
    k: int,
) -> list[str]:
    """About the series that leave their course first, the first cause first.

    Args:
        off: what is not as it should be.
        lines: what was compared.
        expected, actual: the two runs.
        k: the iteration resumed after.
    """
    if not off:
        if not lines:
            return ["no curve was compared with the uninterrupted run's"]
        return [f"no curve differs of those that were compared: {listed([line.metric for line in lines])}"]
    step, kind = off[0].step, off[0].kind
    first = [d for d in off if (d.step, d.kind) == (step, kind)]
    if not all(d.known for d in first):
        return [f"`{d.metric}` at iteration {step}: {d.values}" for d in first]
    held = _held(step, kind, lines)
    if kind == "rate":
        loss = [line for line in lines if line.kind == "loss"]
        before = bool(loss) and all(line.right(step, step) for line in loss)
        return [_rate(d, expected, actual, k, before_weights=before) for d in first]
    if kind == "data":
        return [_data(d, expected, actual) for d in first]
    one = first[0]
    said = f"`{one.metric}` differs from iteration {step} on, {curves.ordinal(step, k)}: {one.values}"
    if held:
        said += f"; {listed(held)} {'is' if len(held) == 1 else 'are'} right there"
    return [said]


def of_trackers(failed: Iterable[Check]) -> list[str]:
    """What a phase left does not name its last checkpoint: whoever resumes by that starts elsewhere."""
    named = [c for c in failed if c.kind == "present" and ": tracker names iteration" in c.name]
    return [f"{c.message}; expected iteration {c.name.rpartition(' ')[2]}" for c in named]


def in_passing(failed: Sequence[Check], early: int | None, n: int) -> list[str]:
    """What else a reader should know.

    Args:
        failed: the checks that did not hold.
        early: the iteration that the resumed run ended after, where that is too early.
        n: the iterations of the whole run.
    """
    said = of_trackers(failed)
    if early is not None:
        said.append(f"the resumed run ended after iteration {early} of {n}, without an error")
    golden = curves.deviations(c for c in failed if c.against == "golden")
    if golden:
        said.append(
            f"the uninterrupted run is not the golden's either, from iteration {golden[0].step} on "
            f"(`{golden[0].metric}`)"
        )
    return said


def _held(step: int, kind: str, lines: Sequence[Compared]) -> list[str]:
    """One series of each cause that comes before, was compared at ``step``, and is as it should be there."""
    before = _BEFORE[: _BEFORE.index(kind)] if kind in _BEFORE else _BEFORE
    found = []
    for cause in before:
        right = [line.metric for line in lines if line.kind == cause and line.right(step, step)]
        # A digest says more of the data than a count does.
        found += sorted(right, key=lambda m: about(m).data != "digest")[:1]
    return found


def listed(metrics: Sequence[str]) -> str:
    """```a`, `b` and `c```."""
    quoted = [f"`{metric}`" for metric in metrics]
    return " and ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))


def _rate(
    d: Deviation,
    expected: Mapping[str, Series],
    actual: Mapping[str, Series],
    k: int,
    *,
    before_weights: bool,
) -> str:
    mine, theirs = actual[d.metric], expected[d.metric]
    later = curves.ratios(mine, theirs, d.step + 1)
    if later is not None and max(abs(r - 1) for r in later) < 1e-6:
        only = (
            f"`{d.metric}` differs at iteration {d.step} only: {d.values}; from {d.step + 1} on it is right"
        )
        if d.step != k + 1:
            return only
        return (
            f"{only}: the schedule was restored, and its rate did not reach the optimizer until its next step"
        )
    said = f"`{d.metric}` differs from iteration {d.step} on{', before any weight' if before_weights else ''}"
    at = curves.same_as(mine, theirs, d.step)
    start = int(theirs.steps[0])
    if at == start:
        ratio = f" (ratio {d.actual / d.expected:.2g})" if d.expected and d.actual is not None else ""
        where = f"at iteration {start - 1}" if start > 0 else "at its beginning"
        return f"{said}: the schedule was not restored; it restarted {where}{ratio}"
    if at is not None:
        way = f"{_iterations(abs(d.step - at))} {'behind' if at < d.step else 'ahead'}"
        return f"{said}: {d.values}; its values are those of iteration {at} on: the schedule is {way}"
    if later is None:
        return f"{said}: {d.values}"
    moves = curves.moves(theirs, d.step)
    if curves.in_step(mine, theirs, d.step):
        said += f": {d.values}; that ratio stays the same up to {mine.steps[-1]}"
        if moves:
            said += ": the schedule's position is right, and the rates that it moves between are not"
        return said
    if moves and not curves.moves(mine, d.step):
        return f"{said}: {d.values}, and it moves no more, as behind the end of its schedule"
    return f"{said}: {d.values}"


def _iterations(count: int) -> str:
    return f"{count} iteration{'' if count == 1 else 's'}"


def _data(d: Deviation, expected: Mapping[str, Series], actual: Mapping[str, Series]) -> str:
    told = about(d.metric).data
    assert d.actual is not None
    assert d.expected is not None
    if told == "digest":
        at = curves.same_as(actual[d.metric], expected[d.metric], d.step)
        if at is not None:
            return (
                f"`{d.metric}` differs from iteration {d.step} on: the batches are those of iteration {at} "
                f"on, the data is {_iterations(abs(d.step - at))} {'behind' if at < d.step else 'ahead'}"
            )
        seen = expected[d.metric].values == d.actual
        again = int(expected[d.metric].steps[seen][0]) if seen.any() else None
        where = "another batch" if again is None else f"the batch of iteration {again}"
        return f"`{d.metric}` differs from iteration {d.step} on: {where}"
    said = f"`{d.metric}` differs from iteration {d.step} on: {d.values}"
    if told == "position":
        gap = d.actual - d.expected
        said += f", {number(abs(gap))} {'behind' if gap < 0 else 'ahead'}"
    return said


def unlike(metrics: Sequence[str], first: int) -> str:
    """Curves that do not repeat the uninterrupted run's."""
    return f"{listed(metrics)}: not the uninterrupted run's values from iteration {first} on"
