"""The native trainer as the protocol sees it: arguments checked, ranks forked, folder put back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cases import substitute, to_argv
from harness.trainers.base import Launch, Phase
from harness.trainers.folders import rewind_folder

if TYPE_CHECKING:
    from harness.cases import Case

#: Kernels and collectives that give the same bits each time; a case's ENV_VARS come on top.
_REPEATABLE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NCCL_ALGO": "Ring"}


class NativeTrainer:
    """GPT and MoE in this very repository (``harness/trainers/native``)."""

    name = "native"
    can_rewind = True

    def check(self, case: Case, hardware: str) -> None:
        """Parse the arguments as the ranks will; raises CaseError."""
        nowhere = Path(os.devnull)
        n = case.train_iters(hardware)
        phase = Phase("continuous", nowhere, nowhere, None, 0, n, n, 0)
        self._parse(case, hardware, phase)

    def launch(self, case: Case, hardware: str, phase: Phase) -> Launch:
        """Ranks forked after one import of the trainer."""
        return Launch(
            kind="fork",
            world_size=case.world_size(hardware),
            target="harness.trainers.native.main:run",
            argv=self._parse(case, hardware, phase),
            env={
                **_REPEATABLE,
                "HARNESS_DEVICE": "cpu" if hardware == "cpu" else "cuda",
                **case.env_vars,
            },
            cwd=phase.folder,
        )

    def rewind(self, source: Path, target: Path, k: int) -> None:
        """Link the checkpoint of ``k`` into ``target``; raises CheckpointError."""
        rewind_folder(source, target, k)

    def provenance(self, phase_folder: Path) -> dict[str, object]:
        """What rank 0 wrote; empty when it did not come that far."""
        path = phase_folder / "provenance.json"
        found: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def _parse(self, case: Case, hardware: str, phase: Phase) -> tuple[str, ...]:
        from harness.trainers.native.arguments import parse

        argv = substitute(to_argv(case.arguments(hardware)), placeholders(phase))
        argv = [*argv, "--harness-exit-iters", str(phase.stop)]
        parse(argv, case.world_size(hardware))
        return tuple(argv)


def placeholders(phase: Phase) -> Mapping[str, str]:
    """What ``${NAME}`` stands for in a case's arguments, in this phase."""
    data = os.environ.get("DATA_PATH", str(phase.folder / "data"))
    return {
        "TENSORBOARD_PATH": str(phase.tensorboard),
        "CHECKPOINT_SAVE_PATH": str(phase.save),
        # A run from 0 looks for a checkpoint where it saves, as in Megatron-LM, and finds none.
        "CHECKPOINT_LOAD_PATH": str(phase.load or phase.save),
        "DATA_PATH": data,
        "DATA_CACHE_PATH": os.environ.get("DATA_CACHE_PATH", str(phase.folder / "data_cache")),
        "OUTPUT_PATH": str(phase.folder),
        "TRAIN_ITERS": str(phase.train_iters),
        "SAVE_INTERVAL": str(phase.save_interval),
        "EXIT_ITERS": str(phase.stop),
    }
