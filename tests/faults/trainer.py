"""The native trainer with a fault in it, as the protocol sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.trainers.native.adapter import NativeTrainer
from tests.faults.planted import FLAG

if TYPE_CHECKING:
    from harness.trainers.base import Launch, Phase


@dataclass(frozen=True)
class PlantedTrainer(NativeTrainer):
    """The native trainer with patches: features of a case first, then at most one fault.

    Args:
        plants: functions that patch the trainer in the process of a rank.
        disk: what a resume at k finds, from (source, target, k); None: what the harness puts there.
    """

    plants: Sequence[Callable[[], None]] = ()
    disk: Callable[[Path, Path, int], None] | None = None

    def launch(self, phase: Phase) -> Launch:
        """As the native trainer, by way of :func:`tests.faults.planted.run`."""
        launch = super().launch(phase)
        names = ",".join(f"{p.__module__}:{p.__name__}" for p in self.plants)
        argv = (FLAG, names, *launch.argv)
        return replace(launch, target="tests.faults.planted:run", argv=argv)

    def rewind(self, source: Phase, target: Path, k: int) -> None:
        """Put the disk into the state that the fault leaves it in."""
        if self.disk is None:
            super().rewind(source, target, k)
        else:
            target.mkdir(parents=True, exist_ok=True)
            self.disk(source.save, target, k)
