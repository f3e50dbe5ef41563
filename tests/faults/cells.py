"""One small cell, run as any other: with the native trainer as it is, or with a fault in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.bank import CASES, FEATURES, Plant

if TYPE_CHECKING:
    from harness.report.verdict import Verdict

TRACK = "dev"


def judge(
    name: str,
    *,
    goldens: Path,
    results: Path,
    track: str = TRACK,
    plants: Sequence[Plant] | None = None,
    disk: Callable[[Path, Path, int], None] | None = None,
    protocol: str = "full",
    golden_update: bool = False,
) -> Verdict:
    """Run the case ``name`` through the protocol.

    Args:
        plants: the patches; None means a clean run, which has the case's features only.
        disk: what a resume finds; None: what the harness puts there.
    """
    from harness import trainers
    from harness.cases import load_case
    from harness.matrix import Cell
    from harness.protocol import run_cell
    from tests.faults import trainer

    plants = FEATURES.get(name, ()) if plants is None else plants
    (folder,) = CASES.glob(f"*/{name}")
    case = load_case(folder)
    if plants:
        # The table names a class by its place; this one is made for the occasion.
        trainer.planted = partial(trainer.PlantedTrainer, plants, disk)  # type: ignore[attr-defined]
        trainers.TRAINERS["planted"] = f"{trainer.__name__}:planted"
        case = replace(case, harness=replace(case.harness, trainer={"default": "planted"}))
    return run_cell(
        Cell("cpu", track, name),
        case=case,
        cases=CASES,
        goldens=goldens,
        results=results,
        protocol=protocol,
        golden_update=golden_update,
        keep_checkpoints=False,
    )
