"""The native trainer as the protocol sees it: arguments checked, ranks forked, folder put back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cases.arguments import substitute, to_argv
from harness.checkpoints.folders import iter_dir
from harness.trainers.base import Launch, Phase, placeholders
from harness.trainers.rewind import rewind_folder

if TYPE_CHECKING:
    from harness.cases import Case

#: Kernels and collectives that give the same bits each time; a case's ENV_VARS come on top.
_REPEATABLE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NCCL_ALGO": "Ring"}


class NativeTrainer:
    """GPT and MoE in this very repository (``harness/trainers/native``)."""

    name = "native"
    can_rewind = True

    def check(self, case: Case, hardware: str) -> None:
        """Parse the arguments of both kinds of phase as the ranks will; raises CaseError."""
        nowhere = Path(os.devnull)
        n = case.train_iters(hardware)
        self._parse(case, hardware, Phase("continuous", nowhere, nowhere, None, 0, n, n, 0))
        self._parse(case, hardware, Phase("resumed", nowhere, nowhere, nowhere, 0, n, n, 0))

    def resumes(self, case: Case) -> bool:  # noqa: ARG002 - the trainer's contract
        """Always: training that is not resumed is not what this trainer is for."""
        return True

    def world_size(self, case: Case, hardware: str) -> int:
        """The same for every phase; what another layout of the resumed one leaves is data-parallel."""
        return case.world_size(hardware)

    def launch(self, case: Case, hardware: str, phase: Phase) -> Launch:
        """Ranks forked after one import of the trainer."""
        return Launch(
            kind="fork",
            world_size=self.world_size(case, hardware),
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

    def saved(self, save: Path, iteration: int) -> Path:
        """``iter_<iteration>`` below ``save``, whether it is there or not."""
        return iter_dir(save, iteration)

    def code(self, case: Case) -> Path:  # noqa: ARG002 - the trainer's contract
        """This repository."""
        return Path(__file__).parent

    def provenance(self, phase_folder: Path) -> dict[str, object]:
        """What rank 0 wrote; empty when it did not come that far."""
        path = phase_folder / "provenance.json"
        found: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def _parse(self, case: Case, hardware: str, phase: Phase) -> tuple[str, ...]:
        from harness.trainers.native.arguments import parse

        arguments = dict(case.arguments(hardware, resumed=phase.load is not None))
        arguments.setdefault("--save-interval", str(case.save_interval(hardware)))
        argv = substitute(to_argv(arguments), placeholders(phase))
        argv = [*argv, "--harness-exit-iters", str(phase.stop)]
        parse(argv, self.world_size(case, hardware))
        return tuple(argv)
