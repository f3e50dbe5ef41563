"""Anybody's script: two argument lists, and a folder to save into.

``HARNESS.command`` has ``train`` and ``resume``; ``${NAME}`` in them is replaced, and nothing goes
through a shell. docs/command-trainer.md has a script and a case file to start from.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cases import substitute
from harness.errors import CaseError, UsageError
from harness.trainers import anybodys
from harness.trainers.base import Launch, Phase
from harness.trainers.native.adapter import placeholders

if TYPE_CHECKING:
    from harness.cases import Case

_STOPS = "${EXIT_ITERS}"
#: Starts :mod:`harness.trainers.preemption` from wherever this package is; the script's own
#: folder and PYTHONPATH are none of its business.
_PREEMPT = (
    "import sys; sys.path.insert(0, {root!r}); "
    "from harness.trainers.preemption import main; sys.exit(main())"
)


class CommandTrainer:
    """What the case file says to start."""

    name = "command"
    can_rewind = False

    def __init__(self) -> None:
        self._told: dict[Path, dict[str, object]] = {}

    def check(self, case: Case, hardware: str) -> None:
        """Refuse a command that is not there; raises CaseError."""
        nowhere = Path(os.devnull)
        n, k = case.train_iters(hardware), case.resume_at(hardware)
        for phase in (
            Phase("continuous", nowhere, nowhere, None, 0, n, n, k),
            Phase("resumed", nowhere, nowhere, nowhere, k, n, n, k),
        ):
            launch = self.launch(case, hardware, phase)
            program = launch.argv[0]
            inside = case.directory / program if os.sep in program else None
            there = inside.is_file() if inside else shutil.which(program, path=launch.env["PATH"])
            if not there:
                raise CaseError(
                    f"{case.name}: HARNESS.command: {program} is not found",
                    "a relative path begins at the folder of the case file",
                )

    def launch(self, case: Case, hardware: str, phase: Phase) -> Launch:
        """The command of a phase, in the folder of its case file; raises CaseError."""
        if phase.name == "probe":
            raise UsageError("a command cannot be asked to load and save without a step")
        train, resume = _commands(case)
        values = {**os.environ, **placeholders(phase)}
        argv = substitute(resume if phase.load else train, values)
        names = list(case.env_vars)
        env = dict(zip(names, substitute([case.env_vars[n] for n in names], values), strict=True))
        # ``python`` and ``torchrun`` are those of the environment that the harness runs in.
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        if phase.stop < phase.train_iters and not stops_by_itself(case):
            root = str(Path(__file__).resolve().parents[2])
            argv = [sys.executable, "-c", _PREEMPT.format(root=root),
                    str(phase.save), str(phase.stop), "--", *argv]  # fmt: skip
        self._told[phase.folder] = _about(case, hardware)
        return Launch(
            kind="exec",
            world_size=case.harness.world_size or 1,
            argv=tuple(argv),
            env=env,
            cwd=case.directory,
        )

    def rewind(self, source: Path, target: Path, k: int) -> None:
        """Link what the interrupted run left, up to its checkpoint of ``k``; raises CheckpointError."""
        anybodys.put_back(source, target, k)

    def saved(self, save: Path, iteration: int) -> Path:
        """The checkpoint of ``iteration``; raises CheckpointError."""
        return anybodys.checkpoint(save, iteration, save.with_name(f".{save.name}.{iteration}"))

    def provenance(self, phase_folder: Path) -> dict[str, object]:
        """What is known of the environment, and what the script wrote into ``provenance.json``."""
        import json

        found = dict(self._told.get(phase_folder, {}))
        path = phase_folder / "provenance.json"
        try:
            own = json.loads(path.read_text()) if path.is_file() else {}
        except (OSError, ValueError) as error:
            raise CaseError(f"{path}: is not JSON: {error}") from error
        flat = (str, int, float, bool)
        return found | {str(k): v for k, v in dict(own).items() if isinstance(v, flat)}


def stops_by_itself(case: Case) -> bool:
    """Whether the command is told where to stop; if not, it is ended there."""
    train, _ = _commands(case)
    return any(_STOPS in word for word in (*train, *map(str, case.env_vars.values())))


def _commands(case: Case) -> tuple[Sequence[str], Sequence[str]]:
    command = case.harness.command
    if command is None or not command.train:
        raise CaseError(
            f"{case.name}: HARNESS.command is missing",
            "trainer: command needs command: {train: [...], resume: [...]}",
        )
    return command.train, command.resume or command.train


def _about(case: Case, hardware: str) -> dict[str, object]:
    from harness.hardware import describe_cpu, detect
    from harness.trainers.megatron import _version

    devices = sorted({device.name for device in detect()}) if hardware != "cpu" else []
    return {
        "trainer": "command",
        "torch": _version("torch"),
        "device": ", ".join(devices) or describe_cpu(),
        "layout": f"world {case.harness.world_size or 1}",
    }
