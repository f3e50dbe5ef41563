"""Megatron-LM as it is: the command line and environment of its own scripts, without a shell.

The checkout is the user's, the code under test: ``MEGATRON_LM_PATH``, ``--megatron-lm`` or
``[tool.harness]``. What a phase gets is what the checkout's ``run_ci_test.sh`` and
``_run_training.sh`` give it (docs/megatron.md has the list, and the few differences), on one node.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from harness.checkpoints.folders import iter_dir
from harness.errors import CaseError, UsageError
from harness.machine.environment import device, version_of
from harness.trainers.base import Launch, Phase
from harness.trainers.megatron import on_cpu, recipes
from harness.trainers.megatron.checkout import CHECKOUT, checkout, core_version, script_of
from harness.trainers.megatron.command_line import (
    RESUMES,
    Launcher,
    arguments,
    converted,
    distributed,
    environment,
    launcher,
    paths,
    with_scripts,
)
from harness.trainers.megatron.recipes import Product
from harness.trainers.megatron.rules import PROBED, rules_of
from harness.trainers.rewind import IterFolders, rewind_folder

if TYPE_CHECKING:
    from harness.cases import Case
    from harness.checkpoints.rules import Rule

ALLOW_SCRIPTS = "HARNESS_ALLOW_SCRIPTS"
_GPUS = 8  # what _run_training.sh takes for granted

#: Whose recipe is taken for a platform that no recipe names.
_LIKE = ("dgx_h100", "dgx_a100")
_NOT_RUN = {
    "frozen-start": "starts from a stored checkpoint, and resumes nothing of its own",
    "release": "trains to convergence over several jobs; no two runs of it are compared",
    "checkpoint-consistency": "compares one step's gradients between layouts, and resumes nothing",
}
_MODES_NOT_RUN = {
    "inference": "generates text and trains nothing",
    "rl": "is reinforcement learning, whose rollouts no curve check compares",
}
_PARALLEL = (
    ("TP", "tensor-model"), ("PP", "pipeline-model"), ("CP", "context"), ("EP", "expert-model"),
    ("ETP", "expert-tensor"),
)  # fmt: skip
#: Without ft_launcher's restarts: no hardware fails by chance, and what fails once fails each time.
_ON_CPU = Launcher((sys.executable, str(on_cpu.LAUNCH)))
_SWITCHES = ("NCCL_ALGO", "NVTE_ALLOW_NONDETERMINISTIC_ALGO", "CUBLAS_WORKSPACE_CONFIG")


def reason_not_run(case: Case) -> str | None:
    """Why the harness does not run a case of Megatron-LM; None when it does."""
    if case.mode in _MODES_NOT_RUN:
        return f"MODE {case.mode}: it {_MODES_NOT_RUN[case.mode]}"
    if case.test_type in _NOT_RUN:
        return f"TEST_TYPE {case.test_type}: it {_NOT_RUN[case.test_type]}"
    if case.test_type not in (*RESUMES, "regular"):
        return f"TEST_TYPE {case.test_type}: it is none that the harness knows"
    if case.starts_nemo:
        return "its scripts start NeMo, which is no part of Megatron-LM's checkout"
    if case.test_evaluation == "xpass":
        return "TEST_EVALUATION xpass: its training is expected to fail"
    return None


@dataclass(frozen=True)
class Node:
    """What a case is run with, beside its own file.

    Args:
        gpus: processes, one a GPU.
        script: the training script, relative to the checkout.
    """

    gpus: int
    script: str


@dataclass(frozen=True)
class MegatronTrainer(IterFolders):
    """A checkout of Megatron-LM, on one node."""

    case: Case
    hardware: str

    name: ClassVar[str] = "megatron"
    can_rewind: ClassVar[bool] = True
    can_probe: ClassVar[bool] = True
    ends_itself: ClassVar[bool] = True
    probed: ClassVar[tuple[Rule, ...]] = PROBED
    unlike: ClassVar[str] = "hashes not matching across DP replicas"

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The table's, and what MODEL_ARGS_2 has otherwise."""
        return rules_of(*(self.case.arguments(self.hardware, resumed=r) for r in (False, True)))

    @property
    def stand_in(self) -> bool:
        """Whether it runs on CPUs, behind the stand-in for a GPU."""
        return self.hardware == "cpu"

    @property
    def remarks(self) -> tuple[str, ...]:
        """That nothing was run on the hardware that the code is written for."""
        return (on_cpu.REMARK,) if self.stand_in else ()

    @property
    def measures(self) -> bool:
        """Not behind the stand-in."""
        return not self.stand_in

    @property
    def resumes(self) -> bool:
        """A ``regular`` test is one phase, as in Megatron-LM: only its golden is compared."""
        return self.case.test_type in RESUMES

    def check(self) -> None:
        """Refuse what cannot be run; raises CaseError or UsageError."""
        case = self.case
        reason = reason_not_run(case)
        if reason:
            raise CaseError(f"{case.name}: is not run: {reason}")
        if (case.before_script or case.after_script) and not os.environ.get(ALLOW_SCRIPTS):
            raise CaseError(
                f"{case.name}: has a BEFORE_SCRIPT or an AFTER_SCRIPT, which is shell from a file",
                "read it, then give --allow-scripts",
            )
        script = checkout() / self.node.script
        if not script.is_file():
            raise UsageError(f"{script}: is not there", f"does {CHECKOUT} name the checkout?")
        nowhere, n = Path(os.devnull), case.train_iters(self.hardware)
        self.launch(Phase("continuous", nowhere, nowhere, None, 0, n, n, 0))
        if self.resumes:
            self.launch(Phase("resumed", nowhere, nowhere, nowhere, 0, n, n, 0))

    @cached_property
    def node(self) -> Node:
        """How many GPUs, and which script: the case's own word, or the recipe's, or the default.

        Raises:
            CaseError: the recipe wants several nodes, and the case says nothing of them.
        """
        case = self.case
        nodes = case.harness.nodes
        said = case.harness.world_size or nodes * _number_of(os.environ.get("GPUS_PER_NODE"))
        if self.stand_in and not said:
            said = least_world(case, self.hardware)
        product = _product(case, self.hardware)
        if product is not None and product.nodes > 1 and nodes == 1 and not said:
            raise CaseError(
                f"{case.name}: {product.recipe} runs it on {product.nodes} nodes",
                f"--engine slurm --nodes {product.nodes}, or HARNESS: nodes; HARNESS: world_size says with "
                "how many GPUs it is run on one all the same",
            )
        script = product.script if product else None
        return Node(
            gpus=said or nodes * (product.gpus if product else _GPUS),
            script=script_of(checkout(), case.family, script),
        )

    @property
    def world_size(self) -> int:
        """Processes, one a GPU; what the parallel sizes leave is data-parallel."""
        return self.node.gpus

    @property
    def replicas(self) -> int:
        """Data-parallel ones: what all the sizes leave."""
        tp, pp, cp = self._sizes
        return max(1, self.world_size // (tp * pp * cp))

    @property
    def unasked(self) -> bool:
        """Its check compares nothing over a context, nor what the ranks of a tensor or a pipeline share.

        Of that, the format ``torch`` has a file of each rank; others have it once.
        """
        tp, pp, cp = self._sizes
        sizes = self.case.arguments(self.hardware, resumed=True)
        return cp > 1 or (tp * pp > 1 and str(sizes.get("--ckpt-format", "torch_dist")) != "torch")

    @property
    def _sizes(self) -> list[int]:
        case = self.case
        return [case.parallel_size(self.hardware, name, resumed=True) for _, name in _PARALLEL[:3]]

    def launch(self, phase: Phase) -> Launch:
        """What torchrun (or ft_launcher) is given, as an argument list; raises CaseError."""
        case, root, node, nodes = self.case, checkout(), self.node, self.case.harness.nodes
        values = {**os.environ, **paths(case, phase)}
        starter = _ON_CPU if self.stand_in else launcher(case)
        command = [
            *starter.words,
            *distributed(starter, node.gpus // nodes, phase.folder / "logs" / "1", nodes),
        ]
        command += [node.script, *arguments(case, self.hardware, phase, values, script=node.script)]
        beside = on_cpu.variables(nodes) if self.stand_in else {}
        return Launch(
            kind="exec",
            world_size=node.gpus,
            argv=with_scripts(case, command),
            env={**beside, **environment(case, root, values)},
            cwd=root,
            notes=(starter.note,) if starter.note else (),
        )

    def rewind(self, source: Phase, target: Path, k: int) -> None:
        """Link the checkpoint of ``k`` into ``target``; raises CheckpointError.

        Megatron-LM's scripts delete ``iter_<N>`` and rewrite the tracker where it lies. That would
        take away what the resumed run's state is compared with, so the same is done in a copy.
        """
        rewind_folder(source.save, target, k)

    def saved(self, phase: Phase, iteration: int, *, alone: bool = False) -> Path:  # noqa: ARG002
        """``iter_<iteration>``, whether it is there or not."""
        if phase.name == "probe":  # converting makes a folder of its own
            return iter_dir(
                phase.save / converted(self.case.arguments(self.hardware, resumed=True)), iteration
            )
        return iter_dir(phase.save, iteration)

    def code(self) -> Path:
        """The user's checkout."""
        return checkout()

    def provenance(self, phase: Phase) -> dict[str, object]:
        """What the phase was started with, as far as it decides the bits; the commit is under test."""
        case, root = self.case, checkout()
        sizes = case.arguments(self.hardware)
        layout = [f"{word}{sizes.get(f'--{name}-parallel-size', 1)}" for word, name in _PARALLEL]
        env = environment(case, root, {**os.environ, **paths(case, phase)})
        return {
            "trainer": "megatron",
            "trainer_version": core_version(root),
            "torch": version_of("torch"),
            "transformer_engine": version_of("transformer-engine"),
            "device": device(self.hardware),
            "layout": " ".join([*layout, f"world {self.world_size}"]),
            **{name.lower(): env.get(name, "") for name in _SWITCHES},
        }


def least_world(case: Case, hardware: str) -> int:
    """The fewest processes that the parallel sizes leave room for; without a GPU no more are wanted.

    Raises:
        CaseError: one of them is no whole number above 0.
    """
    tp, pp, cp, ep = (case.parallel_size(hardware, name) for _, name in _PARALLEL[:4])
    etp = case.parallel_size(hardware, "expert-tensor", tp)
    return pp * math.lcm(tp * cp, ep * etp)


def _product(case: Case, hardware: str) -> Product | None:
    """The recipe's line for the case on that hardware, or on the machine most like it."""
    from harness.matrix import HARDWARE

    found = recipes.read(checkout(), case.name).of(case.name)
    order = (HARDWARE[hardware].platform, *_LIKE)
    rank = {platform: i for i, platform in reversed(list(enumerate(order)))}
    return min(found, key=lambda product: rank.get(product.platform, len(order)), default=None)


def _number_of(text: str | None) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"GPUS_PER_NODE: found {text!r}, expected a whole number above 0")
    return int(text)
