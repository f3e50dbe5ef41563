"""The native trainer as the protocol sees it: arguments checked, ranks forked, folder put back."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from harness.cases.arguments import expanded, variables
from harness.checkpoints.folders import iter_dir
from harness.machine.portable import kept, portable
from harness.trainers.base import Launch, Phase, placeholders
from harness.trainers.rewind import IterFolders, rewind_folder

if TYPE_CHECKING:
    from harness.cases import Case
    from harness.checkpoints.rules import Rule

#: Kernels and collectives that give the same bits each time; a case's ENV_VARS come on top.
_REPEATABLE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NCCL_ALGO": "Ring"}
_BITS = "the bits may be others than those of the goldens"


@dataclass(frozen=True)
class NativeTrainer(IterFolders):
    """GPT and MoE in this very repository (``harness/trainers/native``)."""

    case: Case
    hardware: str

    name: ClassVar[str] = "native"
    can_rewind: ClassVar[bool] = True
    can_probe: ClassVar[bool] = True
    ends_itself: ClassVar[bool] = True
    rules: ClassVar[tuple[Rule, ...]] = ()
    probed: ClassVar[tuple[Rule, ...]] = ()
    remarks: ClassVar[tuple[str, ...]] = ()
    replicas: ClassVar[int] = 0
    unasked: ClassVar[bool] = True
    unlike: ClassVar[str] = ""
    measures: ClassVar[bool] = True
    manifests: ClassVar[bool] = True

    def check(self) -> None:
        """Parse the arguments of both kinds of phase as the ranks will; raises CaseError."""
        nowhere = Path(os.devnull)
        n = self.case.train_iters(self.hardware)
        self._parse(Phase("continuous", nowhere, nowhere, None, 0, n, n, 0))
        self._parse(Phase("resumed", nowhere, nowhere, nowhere, 0, n, n, 0))

    @property
    def resumes(self) -> bool:
        """Always: training that is not resumed is not what this trainer is for."""
        return True

    @property
    def world_size(self) -> int:
        """The same for every phase; what another layout of the resumed one leaves is data-parallel."""
        return self.case.world_size(self.hardware)

    def launch(self, phase: Phase) -> Launch:
        """Ranks forked after one import of the trainer."""
        cpu = self.hardware == "cpu"
        set_already = (os.environ, self.case.env_vars)
        return Launch(
            kind="fork",
            world_size=self.world_size,
            target="harness.trainers.native.main:run",
            argv=self._parse(phase),
            env={
                **_REPEATABLE,
                # On a GPU the host draws the first weights and counts, which they do not change.
                **(portable(*set_already) if cpu else {}),
                "HARNESS_DEVICE": "cpu" if cpu else "cuda",
                **variables(self.case.env_vars, {**os.environ, **placeholders(self.case, phase)}),
            },
            cwd=phase.folder,
            notes=tuple(f"{one} is set here, and kept: {_BITS}" for one in kept(*set_already) if cpu),
        )

    def rewind(self, source: Phase, target: Path, k: int) -> None:
        """Link the checkpoint of ``k`` into ``target``; raises CheckpointError."""
        rewind_folder(source.save, target, k)

    def saved(self, phase: Phase, iteration: int, *, alone: bool = False) -> Path:  # noqa: ARG002
        """``iter_<iteration>``, whether it is there or not."""
        return iter_dir(phase.save, iteration)

    def code(self) -> Path:
        """This repository."""
        return Path(__file__).parent

    def provenance(self, phase: Phase) -> dict[str, object]:
        """What rank 0 wrote; empty when it did not come that far."""
        path = phase.folder / "provenance.json"
        found: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def _parse(self, phase: Phase) -> tuple[str, ...]:
        from harness.trainers.native.arguments import parse

        arguments = dict(self.case.arguments(self.hardware, resumed=phase.load is not None))
        arguments.setdefault("--save-interval", str(self.case.save_interval(self.hardware)))
        values = placeholders(self.case, phase)
        own = variables(self.case.env_vars, {**os.environ, **values})
        # Megatron-LM's scripts pass `True` on as a word, which is a flag in nobody's mind.
        arguments = {key: True if value in ("True", "TRUE") else value for key, value in arguments.items()}
        argv = expanded(arguments, {**own, **values}, own.keys() - values.keys())
        argv = [*argv, "--harness-exit-iters", str(phase.stop)]
        parse(argv, self.world_size)
        return tuple(argv)
