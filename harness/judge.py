"""Which comparison applies to a cell, and the checks that are no comparison of curves."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.checks import Check, Worst
from harness.errors import CheckpointError, HarnessError, TrainerFailed

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff
    from harness.diagnosis import Diagnosis
    from harness.goldens import Change, Golden
    from harness.metrics import Series
    from harness.plan import Plan

Against = Literal["golden", "continuous", "state"]
_SHOWN_TENSORS = 3


def present(name: str, against: Against, passed: bool, message: str, worst: Worst | None = None) -> Check:
    """A check that something is there, or happened at all."""
    return Check(
        name=name, metric=None, against=against, kind="present", passed=passed,
        first_bad_step=worst.step if worst else None, worst=worst, message=message,
    )  # fmt: skip


# -- resuming --------------------------------------------------------------------------------------


def saved_at(stop: int, save: Path, phase: str) -> Check:
    """A phase must leave a checkpoint of its last iteration, and a tracker that names it."""
    from harness.checkpoints import latest

    name = f"{phase}: checkpoint of iteration {stop}"
    try:
        found = latest(save)
    except CheckpointError as error:
        return present(name, "state", passed=False, message=str(error))
    message = f"the tracker in {save} names iteration {found}"
    if found is None:
        message = f"there is no tracker in {save}: a resumed run would start at 0"
    return present(name, "state", found == stop, message, None if found == stop else Worst(stop, stop, found))


def not_loaded(k: int, error: CheckpointError) -> Check:
    """The resumed phase ended because it could not read its checkpoint."""
    return present(f"resume: load iteration {k}", "state", passed=False, message=str(error))


def resumed_there(k: int, series: Mapping[str, Series]) -> Check:
    """The resumed run's first step must be k+1: one that starts at 1 has loaded nothing."""
    steps = [line.steps[0] for line in series.values() if line.steps]
    first = min(steps, default=None)
    name = f"resume: first step is {k + 1}"
    if first is None:
        return present(name, "continuous", passed=False, message="the resumed run logged nothing")
    if first == k + 1:
        return present(name, "continuous", passed=True, message=f"it went on at step {first}")
    message = f"it went on at step {first}, expected {k + 1}"
    if first == 1:
        message += ": the checkpoint was not loaded, training started again"
    return present(name, "continuous", passed=False, message=message, worst=Worst(first, k + 1, first))
