"""What a whole training state of the native trainer holds, and a checkpoint does not.

A component that is neither saved nor restored leaves no trace in a diff: both sides lack it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.checkpoints import components

if TYPE_CHECKING:
    from harness.checkpoints.checkpoint import Checkpoint

_HALF = ("bfloat16", "float16")
_KINDS = (
    ("lr-schedule", "scheduler.", "no position of the learning-rate schedule (scheduler.*)"),
    ("rng", "rng.", "no random streams (rng.*)"),
    ("data-order", "data.", "no data position (data.*)"),
    ("optimizer", "optimizer.exp_avg.", "no first moments (optimizer.exp_avg.*)"),
    ("optimizer", "optimizer.exp_avg_sq.", "no second moments (optimizer.exp_avg_sq.*)"),
    ("optimizer", "optimizer.step.", "no optimizer step counts (optimizer.step.*)"),
    ("iteration", "iteration", "no iteration"),
    ("weights", "model.", "no weights (model.*)"),
)


@dataclass(frozen=True)
class Gap:
    """Something missing.

    Args:
        component, sentence: of what, and in words.
        entry: the name of what is missing, ``optimizer.step.*`` where it is all of a kind; empty where it has
            none.
    """

    component: str
    sentence: str
    entry: str = ""


def find_gaps(checkpoint: Checkpoint) -> tuple[Gap, ...]:
    """What is missing, most general first; nothing for anybody else's checkpoint."""
    if not checkpoint.native:
        return ()
    names = checkpoint.entries.keys()
    gaps = [
        Gap(component, f"the checkpoint holds {what}", f"{start}*" if start.endswith(".") else start)
        for component, start, what in _KINDS
        if not any(name.startswith(start) for name in names)
    ]
    parameters = {n.removeprefix("model."): e for n, e in checkpoint.entries.items()
                  if n.startswith("model.")}  # fmt: skip
    half = [n for n, e in parameters.items() if e.dtype in _HALF]
    moments = [n.removeprefix("optimizer.exp_avg.") for n in names
               if n.startswith("optimizer.exp_avg.")]  # fmt: skip
    lone = [n for n in half if f"optimizer.master.{n}" not in names]
    if moments and lone:
        said = f"the checkpoint holds no float32 master of {_some(lone)}"
        gaps.append(Gap("weights", said, f"optimizer.master.{min(lone)}"))
    if any(parameters[n].dtype == "float16" for n in half) and not any(
        n.startswith("grad_scaler.") for n in names
    ):
        gaps.append(Gap("grad-scaler", "the checkpoint holds float16 weights and no loss scale"))
    for component in ("weights", "embedding", "experts"):
        orphans = [n for n in moments
                   if n not in parameters and components.of_parameter(n) == component]  # fmt: skip
        if orphans and parameters:
            said = f"the checkpoint holds moments but no weights of {_some(orphans)}"
            gaps.append(Gap(component, said, f"model.{min(orphans)}"))
    bare = [n for n in parameters if moments and n not in moments]
    if bare:
        said = f"the checkpoint holds weights but no moments of {_some(bare)}"
        gaps.append(Gap("optimizer", said, f"optimizer.exp_avg.{min(bare)}"))
    routers = [n.removesuffix("router.weight") for n in parameters if n.endswith(".router.weight")]
    empty = [r + "experts" for r in routers if not any(p.startswith(r + "experts.") for p in parameters)]
    if empty:
        gaps.append(Gap("experts", f"the checkpoint holds a router but no {_some(empty)}"))
    for name, entry in checkpoint.entries.items():
        problem = entry.incomplete()
        if problem:
            gaps.append(Gap(entry.component, f"{name}: {problem}", name))
            break
    return tuple(gaps)


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{min(names)}{rest}"
