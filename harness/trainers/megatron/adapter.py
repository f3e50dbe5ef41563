"""Megatron-LM as it is: the command line and environment of its own scripts, without a shell.

The checkout is the user's, the code under test: ``MEGATRON_LM_PATH``, ``--megatron-lm`` or
``[tool.harness]``. What a phase gets is what the checkout's ``run_ci_test.sh`` and
``_run_training.sh`` give it (docs/megatron.md has the list, and the few differences), on one node.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from harness.cases.arguments import substitute, to_argv
from harness.checkpoints.folders import iter_dir
from harness.errors import CaseError, UsageError
from harness.machine.environment import device, version_of
from harness.trainers.base import Launch, Phase, placeholders
from harness.trainers.megatron import recipes
from harness.trainers.megatron.recipes import Product
from harness.trainers.megatron.rules import RULES
from harness.trainers.rewind import rewind_folder, saved_until

if TYPE_CHECKING:
    from harness.cases import Case
    from harness.checkpoints.rules import Rule

CHECKOUT = "MEGATRON_LM_PATH"
ALLOW_SCRIPTS = "HARNESS_ALLOW_SCRIPTS"
_GPUS = 8  # what _run_training.sh takes for granted

#: Exported by the scripts unless the environment has them; a case's ENV_VARS come on top.
_DEFAULTS = {
    "NCCL_PROTO": "simple",
    "NCCL_ALGO": "Ring",
    "NCCL_COLLNET_ENABLE": "0",
    "NCCL_NVLS_ENABLE": "0",
    "NCCL_TUNER_PLUGIN": "",
    "NCCL_BUFFSIZE": "4194304",
    "TORCH_NCCL_AVOID_RECORD_STREAMS": "1",
    "WANDB_API_KEY": "",
}
#: Whose recipe is taken for a platform that no recipe names.
_LIKE = ("dgx_h100", "dgx_a100")
#: The training script of a family, for a case that no recipe of the checkout names.
_SCRIPTS = {
    "bert": "pretrain_bert.py",
    "t5": "pretrain_t5.py",
    "hybrid": "pretrain_hybrid.py",
    "mamba": "pretrain_mamba.py",
    "multimodal-llava": "pretrain_vlm.py",
}
_SCRIPT = "pretrain_gpt.py"
_RESUMES = ("ckpt-resume", "frozen-resume")
_NOT_RUN = {
    "frozen-start": "starts from a stored checkpoint, and resumes nothing of its own",
    "release": "trains to convergence over several jobs; no two runs of it are compared",
    "checkpoint-consistency": "compares one step's gradients between layouts, and resumes nothing",
}
_MODES_NOT_RUN = {
    "inference": "generates text and trains nothing",
    "rl": "is reinforcement learning, whose rollouts no curve check compares",
}
#: The scripts' variables that are paths of a phase.
_EXPORTED = (
    "OUTPUT_PATH", "TENSORBOARD_PATH", "CHECKPOINT_SAVE_PATH", "CHECKPOINT_LOAD_PATH",
    "DATA_CACHE_PATH", "LOG_DIR", "RUN_NUMBER", "REPEAT",
)  # fmt: skip
_PARALLEL = (
    ("TP", "tensor-model"), ("PP", "pipeline-model"), ("CP", "context"), ("EP", "expert-model"),
    ("ETP", "expert-tensor"),
)  # fmt: skip
_SWITCHES = ("NCCL_ALGO", "NVTE_ALLOW_NONDETERMINISTIC_ALGO", "CUBLAS_WORKSPACE_CONFIG")


def reason_not_run(case: Case) -> str | None:
    """Why the harness does not run a case of Megatron-LM; None when it does."""
    if case.mode in _MODES_NOT_RUN:
        return f"MODE {case.mode}: it {_MODES_NOT_RUN[case.mode]}"
    if case.test_type in _NOT_RUN:
        return f"TEST_TYPE {case.test_type}: it {_NOT_RUN[case.test_type]}"
    if case.test_type not in (*_RESUMES, "regular"):
        return f"TEST_TYPE {case.test_type}: it is none that the harness knows"
    if case.test_evaluation == "xpass":
        return "TEST_EVALUATION xpass: its training is expected to fail"
    return None


def checkout() -> Path:
    """The user's checkout of Megatron-LM.

    Raises:
        UsageError: none is named, or there is none.
    """
    found, where = os.environ.get(CHECKOUT), CHECKOUT
    if not found:
        found, where = _configured(), "[tool.harness] of pyproject.toml"
    if not found:
        raise UsageError(
            "no checkout of Megatron-LM is named",
            f"set {CHECKOUT}, give --megatron-lm, or megatron-lm in [tool.harness] of pyproject.toml",
        )
    path = Path(found).expanduser().absolute()
    if not path.is_dir():
        raise UsageError(f"{where}: {path} is not there", "name a checkout of Megatron-LM")
    return path


def _configured() -> str | None:
    for folder in (Path.cwd(), *Path.cwd().parents):
        path = folder / "pyproject.toml"
        if not path.is_file():
            continue
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        try:
            found = tomllib.loads(path.read_text()).get("tool", {}).get("harness", {})
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: {error}") from error
        named = found.get("megatron-lm")
        return str(folder / named) if named else None
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
class MegatronTrainer:
    """A checkout of Megatron-LM, on one node."""

    case: Case
    hardware: str

    name: ClassVar[str] = "megatron"
    can_rewind: ClassVar[bool] = True
    rules: ClassVar[tuple[Rule, ...]] = RULES

    @property
    def resumes(self) -> bool:
        """A ``regular`` test is one phase, as in Megatron-LM: only its golden is compared."""
        return self.case.test_type in _RESUMES

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
        if case.launcher == "ft_launcher" and not _which("ft_launcher"):
            raise UsageError(
                "LAUNCHER: ft_launcher is not installed here",
                "install nvidia-resiliency-ext, or take LAUNCHER out of the case",
            )
        nowhere, n = Path(os.devnull), case.train_iters(self.hardware)
        self.launch(Phase("continuous", nowhere, nowhere, None, 0, n, n, 0))
        if self.resumes:
            self.launch(Phase("resumed", nowhere, nowhere, nowhere, 0, n, n, 0))

    @cached_property
    def node(self) -> Node:
        """How many GPUs, and which script: the case's own word, or the recipe's, or the default.

        Raises:
            CaseError: the recipe wants several nodes.
        """
        case = self.case
        said = case.harness.world_size or _number_of(os.environ.get("GPUS_PER_NODE"))
        product = _product(case, self.hardware)
        if product is not None and product.nodes > 1 and not said:
            raise CaseError(
                f"{case.name}: {product.recipe} runs it on {product.nodes} nodes",
                "the harness starts one node; HARNESS: world_size says with how many GPUs all the same",
            )
        script = product.script if product else None
        return Node(
            gpus=said or (product.gpus if product else _GPUS),
            script=script or _SCRIPTS.get(case.family, _SCRIPT),
        )

    @property
    def world_size(self) -> int:
        """Processes, one a GPU; what the parallel sizes leave is data-parallel."""
        return self.node.gpus

    def launch(self, phase: Phase) -> Launch:
        """What torchrun (or ft_launcher) is given, as an argument list; raises CaseError."""
        if phase.name == "probe":
            raise UsageError("Megatron-LM saves after a step only, so what loading alone loses is not told")
        case, root, node = self.case, checkout(), self.node
        values = {**os.environ, **_paths(case, phase)}
        command = [*_launcher(case), *_distributed(case, node.gpus, phase.folder / "logs" / "1")]
        command += [node.script, *_arguments(case, self.hardware, phase, values)]
        return Launch(
            kind="exec",
            world_size=node.gpus,
            argv=_with_scripts(case, command),
            env=_environment(case, root, values),
            cwd=root,
        )

    def rewind(self, source: Phase, target: Path, k: int) -> None:
        """Link the checkpoint of ``k`` into ``target``; raises CheckpointError.

        Megatron-LM's scripts delete ``iter_<N>`` and rewrite the tracker where it lies. That would
        take away what the resumed run's state is compared with, so the same is done in a copy.
        """
        rewind_folder(source.save, target, k)

    def saved(self, phase: Phase, iteration: int, *, alone: bool = False) -> Path:  # noqa: ARG002
        """``iter_<iteration>``, whether it is there or not."""
        return iter_dir(phase.save, iteration)

    def saved_until(self, folder: Path, k: int) -> frozenset[tuple[str, int, int]]:
        """As of ``iter_<iteration>``."""
        return saved_until(folder, k)

    def code(self) -> Path:
        """The user's checkout."""
        return checkout()

    def provenance(self, phase: Phase) -> dict[str, object]:
        """What the phase was started with, as far as it decides the bits; the commit is under test."""
        case, root = self.case, checkout()
        sizes = case.arguments(self.hardware)
        layout = [f"{word}{sizes.get(f'--{name}-parallel-size', 1)}" for word, name in _PARALLEL]
        env = _environment(case, root, {**os.environ, **_paths(case, phase)})
        return {
            "trainer": "megatron",
            "trainer_version": _core_version(root),
            "torch": version_of("torch"),
            "transformer_engine": version_of("transformer-engine"),
            "device": device(self.hardware),
            "layout": " ".join([*layout, f"world {self.world_size}"]),
            **{name.lower(): env.get(name, "") for name in _SWITCHES},
        }


# -- parts of a launch ---------------------------------------------------------------------------


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


def _paths(case: Case, phase: Phase) -> dict[str, str]:
    """What the scripts export, and what ``${NAME}`` stands for in a case's file."""
    # A phase that starts at 0 must find nothing to load.
    load = str(phase.load or phase.folder / "no_checkpoint")
    if case.test_type == "frozen-resume" and phase.load:
        load = os.environ.get("CHECKPOINT_LOAD_PATH", "")
        if not Path(load or os.devnull).is_dir():
            raise CaseError(
                f"{case.name}: TEST_TYPE frozen-resume resumes from a stored checkpoint, and "
                f"CHECKPOINT_LOAD_PATH names {load or 'none'}",
                "set CHECKPOINT_LOAD_PATH to its folder",
            )
    found = {
        **placeholders(case, phase),
        "CHECKPOINT_LOAD_PATH": load,
        "LOG_DIR": str(phase.folder / "logs" / "1"),
        "RUN_NUMBER": "2" if phase.load else "1",
        "REPEAT": "1",
    }
    if "DATA_PATH" not in os.environ:
        del found["DATA_PATH"]  # nobody makes the data of a case of Megatron-LM
    return found


def _environment(case: Case, root: Path, values: Mapping[str, str]) -> dict[str, str]:
    # As ${NAME:-default} in a shell: an empty variable counts as none.
    env = {name: os.environ.get(name) or value for name, value in _DEFAULTS.items()}
    env |= {name: values[name] for name in _EXPORTED}
    env["ONE_LOGGER_JOB_CATEGORY"] = "test"
    names = list(case.env_vars)
    env |= dict(zip(names, substitute(case.env_vars.values(), values), strict=True))
    env["PYTHONPATH"] = f"{root}:{env.get('PYTHONPATH', os.environ.get('PYTHONPATH', ''))}"
    return env


def _arguments(case: Case, hardware: str, phase: Phase, values: Mapping[str, str]) -> list[str]:
    found = dict(case.arguments(hardware, resumed=phase.load is not None))
    # run_ci_test.sh writes it into MODEL_ARGS and not into MODEL_ARGS_2; a phase that ends before N
    # needs it in either.
    if not phase.load or case.model_args_2 is None or phase.stop < phase.train_iters:
        found["--exit-interval"] = str(phase.stop)
    # A profile's ``false`` has taken its argument out; the file's own is text to the scripts.
    return substitute(
        to_argv({key: "false" if value is False else value for key, value in found.items()}), values
    )


def _launcher(case: Case) -> list[str]:
    if case.launcher == "ft_launcher":
        return [_which("ft_launcher") or "ft_launcher"]
    return [sys.executable, "-m", "torch.distributed.run"]


def _distributed(case: Case, gpus: int, logs: Path) -> list[str]:
    restarts = ["--max-restarts=3"] if case.launcher == "ft_launcher" else []
    return [
        "--nproc_per_node", str(gpus),
        "--nnodes", "1",
        "--master_addr", os.environ.get("MASTER_ADDR", "localhost"),
        "--master_port", os.environ.get("MASTER_PORT") or str(_free_port()),
        "--node_rank", "0",
        "--log-dir", str(logs),
        "--tee", f"0:3,{gpus - 1}:3",
        "--redirects", "3",
        *restarts,
    ]  # fmt: skip


def _free_port() -> int:
    """Any that is free, never Megatron-LM's own: two cells that start together would both find it free."""
    import socket

    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _which(name: str) -> str | None:
    import shutil

    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name)


def _with_scripts(case: Case, command: list[str]) -> tuple[str, ...]:
    """The command, between the case's own scripts where it has them and they are allowed."""
    if not (case.before_script or case.after_script):
        return tuple(command)
    lines = ["set -euo pipefail", case.before_script or "", '"$@" && status=0 || status=$?',
             case.after_script or "", "exit $status"]  # fmt: skip
    return ("bash", "-c", "\n".join(line for line in lines if line), "harness", *command)


def _core_version(root: Path) -> str:
    """Megatron-core's version, read and not imported: importing it needs a GPU's libraries."""
    try:
        text = (root / "megatron" / "core" / "package_info.py").read_text()
    except OSError:
        return "unknown"
    numbers = [re.search(rf"^{name} = (\d+)$", text, re.MULTILINE) for name in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(number[1] for number in numbers if number) or "unknown"
