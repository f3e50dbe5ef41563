"""One small cell, run as any other: with the native trainer as it is, or with a fault in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.launch.launcher import Launcher
from tests.faults.bank import CASES, FEATURES, Plant

if TYPE_CHECKING:
    from harness.launch.launcher import Outcome
    from harness.trainers.base import Launch
    from harness.verdict import Verdict

TRACK = "dev"


class WarmLauncher(Launcher):
    """Launchers whose parent processes outlive a cell: one import for all cells of a process."""

    def __init__(self) -> None:
        super().__init__()
        self._launchers: dict[object, Launcher] = {}

    def run(self, launch: Launch, **how: Any) -> Outcome:
        """As :meth:`harness.launch.launcher.Launcher.run`."""
        key = (launch.kind, launch.target, *sorted(launch.env.items()))
        return self._launchers.setdefault(key, Launcher()).run(launch, **how)

    def close(self) -> None:
        """End every parent process."""
        for launcher in self._launchers.values():
            launcher.close()
        self._launchers.clear()


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
    repeats: int = 1,
    keep_checkpoints: bool = False,
    launcher: Launcher | None = None,
) -> Verdict:
    """Run the case ``name`` through the protocol.

    Args:
        plants: the patches; None means a clean run, which has the case's features only.
        disk: what a resume finds; None: what the harness puts there.
        launcher: kept warm for the next cell; None: one for this cell.
    """
    from harness import trainers
    from harness.cases import load_case
    from harness.matrix import Cell
    from harness.protocol.plan import Options
    from harness.protocol.run import run_cell
    from tests.faults import trainer

    plants = FEATURES.get(name, ()) if plants is None else plants
    (folder,) = CASES.glob(f"*/{name}")
    case = load_case(folder)
    # The table names a class by its place; this one is made for the occasion. A clean run takes the
    # same way, so that both have the same warm process and the same fingerprint.
    trainer.planted = partial(trainer.PlantedTrainer, plants=plants, disk=disk)  # type: ignore[attr-defined]
    trainers.TRAINERS["planted"] = f"{trainer.__name__}:planted"
    case = replace(case, harness=replace(case.harness, trainer={"default": "planted"}))
    return run_cell(
        Cell("cpu", track, name),
        case=case,
        cases=CASES,
        goldens=goldens,
        results=results,
        options=Options(
            protocol=protocol,
            golden_update=golden_update,
            repeats=repeats,
            keep_checkpoints=keep_checkpoints,
        ),
        launcher=launcher,
    )
