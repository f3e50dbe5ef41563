"""One phase, with a launcher of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.launch.launcher import Launcher, Outcome
from harness.trainers.base import Launch


def run_phase(launch: Launch, *, phase: str, folder: Path, **how: Any) -> Outcome:
    """As :meth:`harness.launch.launcher.Launcher.run`; nothing is left running."""
    with Launcher() as launcher:
        return launcher.run(launch, phase=phase, folder=folder, **how)
