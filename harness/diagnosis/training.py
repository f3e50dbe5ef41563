"""Resuming is sound and the golden is another: what changed in training, and since when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.checks.bounds import is_bounded, is_time
from harness.diagnosis import curves
from harness.diagnosis.candidates import ROUNDING, listed
from harness.diagnosis.result import COMPONENTS, Candidate, Diagnosis

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.metrics import Series

_STATE = "golden: state: "
#: Of the resumed run, where the golden knows one and no other comparison explains it.
_JOINED = "golden: joined: state: "


def training_changed(
    checks: Sequence[Check], actual: Mapping[str, Series], *, deterministic: bool, repeats: bool
) -> Diagnosis | None:
    """Say since which iteration a run is not its golden's, and what that speaks for.

    Args:
        checks: of a verdict; those against the golden count.
        actual: the uninterrupted run.
        deterministic: the same run is expected to have the same bits.
        repeats: a resumed run has just repeated these bits, so they are not an accident.

    Returns:
        None where nothing is other than in the golden, or it was not compared at all.
    """
    of_golden = [check for check in checks if check.against == "golden"]
    failed = [check for check in of_golden if not check.passed]
    off = curves.deviations(failed)
    if not off:
        return _costs(failed) or _state_only(of_golden)
    first = off[0]
    what = f"`{first.metric}` differs from the golden from iteration {first.step} on"
    said = [f"training changed: {what}: {first.values}"]
    together = [d.metric for d in off[1:] if d.step == first.step]
    if together:
        said.append(f"at that iteration too: {', '.join(f'`{m}`' for m in together)}")
    if repeats:
        said.append("the resumed run is sound, and has repeated the uninterrupted one")
    lines = curves.compared(of_golden, off, actual, actual)
    component, several = _component(first, failed, lines, said)
    exact = any(c.kind == "exact" for c in of_golden if c.metric == first.metric)
    if component == "unknown" and exact and first.relative is not None and first.relative < ROUNDING:
        said.append(
            f"it begins with a difference of rounding size ({first.relative:.1g} relative), as a kernel, a "
            "library or the order of a sum makes it"
        )
        if not (deterministic and repeats) and not several:
            component = "nondeterminism"
    return Diagnosis(component, tuple(said), several)


def _component(
    first: curves.Deviation, failed: Sequence[Check], lines: Sequence[curves.Compared], said: list[str]
) -> tuple[str, tuple[Candidate, ...]]:
    """What changed, or what it can be."""
    if not first.known or first.kind == "validation":
        return "unknown", ()
    if first.kind in ("data", "rate", "scale"):
        return curves.IMPLIED[first.kind][0], ()
    states = {c.name.removeprefix(_STATE) for c in failed if c.name.startswith(_STATE)}
    apart: dict[str, list[str]] = {
        component: [f"the saved state at the end has another `{component}` than the golden's"]
        for component in ("data-order", "rng", "lr-schedule")
        if component in states
    }
    if len(apart) == 1:
        component = next(iter(apart))
        said += apart[component]
        return component, ()
    if apart:
        return "unknown", listed(apart, tuple(apart))
    return _of_the_update(first, lines, said)


def _of_the_update(
    first: curves.Deviation, lines: Sequence[curves.Compared], said: list[str]
) -> tuple[str, tuple[Candidate, ...]]:
    """The first loss is the golden's and what comes of it is not: what takes part in an update."""
    at = 1 if first.kind == "loss" else first.step
    right = [line.metric for line in lines if line.kind == "loss" and line.right(at, at)]
    if not right or not (first.kind == "parameters" or (first.kind == "loss" and first.step == 2)):
        return "unknown", ()
    said.append(f"`{right[0]}` of iteration {at} is the golden's and the update made with it is not")
    found = [Candidate("optimizer", ("it makes the update",))]
    for component, kind, known in (("lr-schedule", "rate", True), ("grad-scaler", "scale", False)):
        own = [line for line in lines if line.kind == kind]
        if own and all(line.right(at, first.step) for line in own):
            said.append(f"not {component}: `{own[0].metric}` is the golden's up to iteration {first.step}")
        elif own or known:
            why = "it takes part in the update, and no curve shows that it is the golden's there"
            found.append(Candidate(component, (why,)))
    return ("optimizer", ()) if len(found) == 1 else ("unknown", tuple(found))


def _costs(failed: Sequence[Check]) -> Diagnosis | None:
    over = [c for c in failed if c.metric is not None and is_bounded(c.metric)]
    if not over:
        return None
    over.sort(key=lambda c: not is_time(c.metric or ""))
    component = "performance" if is_time(over[0].metric or "") else "memory"
    return Diagnosis(component, tuple(f"`{c.metric}`: {c.message}" for c in over))


def _state_only(checks: Sequence[Check]) -> Diagnosis | None:
    whose = "the saved state at the end"
    states = [c.name.removeprefix(_STATE) for c in checks if c.name.startswith(_STATE) and not c.passed]
    if not states:
        whose = "the resumed run's saved state at the end"
        states = [c.name.removeprefix(_JOINED) for c in checks if c.name.startswith(_JOINED) and not c.passed]
    if not states:
        return None
    alike = any(c.passed and c.metric and c.kind in curves.BY_VALUE for c in checks)
    before = "every curve that was compared is the golden's, and " if alike else ""
    said = f"{before}{whose} is not the golden's: {', '.join(states)}"
    named = [component for component in states if component in COMPONENTS]
    if len(states) == len(named) == 1:
        return Diagnosis(named[0], (said,))
    found = tuple(Candidate(one, ("its saved state is not the golden's",)) for one in named)
    return Diagnosis("unknown", (said,), found)
