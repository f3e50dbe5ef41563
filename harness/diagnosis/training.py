"""Resuming is sound and the golden is another: what changed in training, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.checks.bounds import is_bounded, is_time
from harness.diagnosis import curves
from harness.diagnosis.result import COMPONENTS, Diagnosis

if TYPE_CHECKING:
    from harness.checks import Check

_ROUNDING = 1e-6  # relative
_STATE = "golden: state: "


def training_changed(failed: Sequence[Check], *, deterministic: bool, repeats: bool) -> Diagnosis | None:
    """Say since which iteration a run is not its golden's, and what that speaks for.

    Args:
        failed: the checks against the golden that failed.
        deterministic: the same run is expected to have the same bits.
        repeats: a resumed run has just repeated these bits, so they are not an accident.

    Returns:
        None where the golden was not compared at all.
    """
    of_golden = [check for check in failed if check.against == "golden"]
    off = curves.deviations(of_golden)
    if not off:
        return _costs(of_golden) or _state_only(of_golden)
    first = off[0]
    what = f"`{first.metric}` differs from the golden from iteration {first.step} on"
    said = [f"training changed: {what}: {first.values}"]
    together = [d.metric for d in off[1:] if d.step == first.step]
    if together:
        said.append(f"at that iteration too: {', '.join(f'`{m}`' for m in together)}")
    if repeats:
        said.append("the resumed run is sound, and has repeated the uninterrupted one")
    component = _component(first, off, of_golden, said)
    exact = any(c.kind == "exact" for c in of_golden if c.metric == first.metric)
    if component == "unknown" and exact and first.relative is not None and first.relative < _ROUNDING:
        said.append(
            f"it begins with a difference of rounding size ({first.relative:.1g} relative): a kernel, a "
            "library or the order of a sum"
        )
        if not (deterministic and repeats):
            component = "nondeterminism"
    return Diagnosis(component, tuple(said))


def _component(
    first: curves.Deviation, off: Sequence[curves.Deviation], failed: Sequence[Check], said: list[str]
) -> str:
    if first.kind in ("data", "rate", "scale"):
        return curves.IMPLIED[first.kind][0]
    if first.kind == "validation":
        return "unknown"
    states = {c.name.removeprefix(_STATE) for c in failed if c.name.startswith(_STATE)}
    for component in ("data-order", "rng", "lr-schedule"):
        if component in states:
            said.append(f"the saved state at the end has another `{component}` than the golden's")
            return component
    if first.kind == "parameters" or (first.kind == "loss" and first.step == 2 and off[0].step == 2):
        said.append("the first loss is the golden's and the update made with it is not")
        return "optimizer"
    return "unknown"


def _costs(failed: Sequence[Check]) -> Diagnosis | None:
    over = [c for c in failed if c.metric is not None and is_bounded(c.metric)]
    if not over:
        return None
    over.sort(key=lambda c: not is_time(c.metric or ""))
    component = "performance" if is_time(over[0].metric or "") else "memory"
    return Diagnosis(component, tuple(f"`{c.metric}`: {c.message}" for c in over))


def _state_only(failed: Sequence[Check]) -> Diagnosis | None:
    states = [c for c in failed if c.name.startswith(_STATE)]
    if not states:
        return None
    components = [c.name.removeprefix(_STATE) for c in states]
    said = "every curve is the golden's, and the saved state at the end is not: " + ", ".join(components)
    return Diagnosis(components[0] if components[0] in COMPONENTS else "unknown", (said,))
