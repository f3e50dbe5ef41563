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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cases import substitute, to_argv
from harness.errors import CaseError, UsageError
from harness.trainers import megatron_recipes
from harness.trainers.base import Launch, Phase
from harness.trainers.folders import rewind_folder
from harness.trainers.megatron_recipes import Product

if TYPE_CHECKING:
    from harness.cases import Case

CHECKOUT = "MEGATRON_LM_PATH"
ALLOW_SCRIPTS = "HARNESS_ALLOW_SCRIPTS"
_GPUS = 8  # what _run_training.sh takes for granted
_PORT = 29500

#: Set by _run_training.sh unless the environment has them; a case's ENV_VARS come on top.
_DEFAULTS = {
    "NCCL_PROTO": "simple",
    "NCCL_ALGO": "Ring",
    "NCCL_COLLNET_ENABLE": "0",
    "NCCL_NVLS_ENABLE": "0",
    "NCCL_TUNER_PLUGIN": "",
    "NCCL_BUFFSIZE": "4194304",
    "TORCH_NCCL_AVOID_RECORD_STREAMS": "1",
    "WANDB_API_KEY": "",
    "ONE_LOGGER_JOB_CATEGORY": "test",
}
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
_SWITCHES = ("NCCL_ALGO", "NVTE_ALLOW_NONDETERMINISTIC_ALGO", "CUBLAS_WORKSPACE_CONFIG")


def reason_not_run(case: Case) -> str | None:
    """Why the harness does not run a case of Megatron-LM; None when it does."""
    if case.mode in _MODES_NOT_RUN:
        return f"MODE {case.mode}: it {_MODES_NOT_RUN[case.mode]}"
    if case.test_type in _NOT_RUN:
        return f"TEST_TYPE {case.test_type}: it {_NOT_RUN[case.test_type]}"
    if case.test_type not in (*_RESUMES, "regular"):
        return f"TEST_TYPE {case.test_type}: is not known"
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
        try:
            import tomllib  # Python 3.11
        except ImportError:
            return None
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


class MegatronTrainer:
    """A checkout of Megatron-LM, on one node."""

    name = "megatron"
    can_rewind = True

    def __init__(self) -> None:
        self._told: dict[Path, dict[str, object]] = {}

    def resumes(self, case: Case) -> bool:
        """A ``regular`` test is one phase, as in Megatron-LM: only its golden is compared."""
        return case.test_type in _RESUMES

    def check(self, case: Case, hardware: str) -> None:
        """Refuse what cannot be run; raises CaseError or UsageError."""
        reason = reason_not_run(case)
        if reason:
            raise CaseError(f"{case.name}: is not run: {reason}")
        if (case.before_script or case.after_script) and not os.environ.get(ALLOW_SCRIPTS):
            raise CaseError(
                f"{case.name}: has a BEFORE_SCRIPT or an AFTER_SCRIPT, which is shell from a file",
                "read it, then give --allow-scripts",
            )
        script = checkout() / self.node(case, hardware).script
        if not script.is_file():
            raise UsageError(f"{script} is not there", f"does {CHECKOUT} name the checkout?")
        if case.launcher == "ft_launcher" and not _which("ft_launcher"):
            raise UsageError(
                "LAUNCHER: ft_launcher is not installed here",
                "install nvidia-resiliency-ext, or take LAUNCHER out of the case",
            )
        nowhere = Path(os.devnull)
        n = case.train_iters(hardware)
        self.launch(case, hardware, Phase("continuous", nowhere, nowhere, None, 0, n, n, 0))

    def node(self, case: Case, hardware: str) -> Node:
        """How many GPUs, and which script: the case's own word, or the recipe's, or the default."""
        from harness.matrix import HARDWARE

        recipes = megatron_recipes.read(checkout(), case.name).of(case.name)
        platform = HARDWARE[hardware].platform
        here = [product for product in recipes if product.platform == platform] or recipes
        product: Product | None = here[0] if here else None
        if product is not None and product.nodes > 1:
            raise CaseError(
                f"{case.name}: {product.recipe} runs it on {product.nodes} nodes",
                "the harness starts one node",
            )
        script = product.script if product else None
        said = case.harness.world_size or int(os.environ.get("GPUS_PER_NODE", "0"))
        return Node(
            gpus=said or (product.gpus if product else _GPUS),
            script=script or _SCRIPTS.get(case.family, _SCRIPT),
        )

    def world_size(self, case: Case, hardware: str) -> int:
        """Processes, one a GPU; what the parallel sizes leave is data-parallel."""
        return self.node(case, hardware).gpus

    def launch(self, case: Case, hardware: str, phase: Phase) -> Launch:
        """torchrun (or ft_launcher), as an argument list; raises CaseError."""
        if phase.name == "probe":
            raise UsageError("Megatron-LM saves after a step only, so what loading alone loses is not told")
        root, node = checkout(), self.node(case, hardware)
        paths = self._paths(case, phase)
        values = {**os.environ, **paths}
        env = self._environment(case, phase, root, values)
        command = [*_launcher(case), *_distributed(node.gpus, phase.folder / "logs" / "1")]
        if case.launcher == "ft_launcher":
            command.append("--max-restarts=3")
        command += [node.script, *self._arguments(case, hardware, phase, values)]
        self._told[phase.folder] = _about(case, hardware, root, node, env)
        return Launch(
            kind="exec", world_size=node.gpus, argv=_with_scripts(case, command), env=env, cwd=root
        )

    def rewind(self, source: Path, target: Path, k: int) -> None:
        """Link the checkpoint of ``k`` into ``target``; raises CheckpointError.

        Megatron-LM's scripts delete ``iter_<N>`` and rewrite the tracker where it lies. That would
        take away what the resumed run's state is compared with, so the same is done in a copy.
        """
        rewind_folder(source, target, k)

    def provenance(self, phase_folder: Path) -> dict[str, object]:
        """What the phase was started with."""
        return self._told.get(phase_folder, {})

    # -- parts -------------------------------------------------------------------------------

    @staticmethod
    def _paths(case: Case, phase: Phase) -> dict[str, str]:
        """What the scripts export, and what ``${NAME}`` stands for in a case's file."""
        load = str(phase.load) if phase.load else str(phase.folder / "no_checkpoint")
        if case.test_type == "frozen-resume" and phase.load:
            load = os.environ.get("CHECKPOINT_LOAD_PATH", "")
            if not Path(load).is_dir():
                raise CaseError(
                    f"{case.name}: TEST_TYPE frozen-resume resumes from a stored checkpoint, and "
                    f"CHECKPOINT_LOAD_PATH names {load or 'none'}",
                    "set CHECKPOINT_LOAD_PATH to its folder",
                )
        found = {
            "OUTPUT_PATH": str(phase.folder),
            "TENSORBOARD_PATH": str(phase.tensorboard),
            "CHECKPOINT_SAVE_PATH": str(phase.save),
            "CHECKPOINT_LOAD_PATH": load,
            "DATA_CACHE_PATH": os.environ.get("DATA_CACHE_PATH", str(phase.folder / "data_cache")),
            "TRAIN_ITERS": str(phase.train_iters),
            "SAVE_INTERVAL": str(phase.save_interval),
            "EXIT_ITERS": str(phase.stop),
            "RUN_NUMBER": "2" if phase.load else "1",
            "REPEAT": "1",
            "LOG_DIR": str(phase.folder / "logs" / "1"),
        }
        return found

    @staticmethod
    def _environment(
        case: Case, phase: Phase, root: Path, values: Mapping[str, str]
    ) -> dict[str, str]:
        env = {name: os.environ.get(name, value) for name, value in _DEFAULTS.items()}
        exported = ("OUTPUT_PATH", "TENSORBOARD_PATH", "CHECKPOINT_SAVE_PATH", "DATA_CACHE_PATH",
                    "CHECKPOINT_LOAD_PATH", "RUN_NUMBER", "REPEAT", "LOG_DIR")  # fmt: skip
        env |= {name: values[name] for name in exported}
        names = list(case.env_vars)
        env |= dict(zip(names, substitute([case.env_vars[n] for n in names], values), strict=True))
        env["PYTHONPATH"] = f"{root}:{env.get('PYTHONPATH', os.environ.get('PYTHONPATH', ''))}"
        return env

    @staticmethod
    def _arguments(
        case: Case, hardware: str, phase: Phase, values: Mapping[str, str]
    ) -> list[str]:
        second = case.model_args_2 if phase.load else None
        arguments = dict(case.arguments(hardware)) if second is None else dict(second)
        # run_ci_test.sh writes it into MODEL_ARGS and not into MODEL_ARGS_2; a phase that ends
        # before N needs it in either.
        if second is None or phase.stop < phase.train_iters:
            arguments["--exit-interval"] = phase.stop
        return substitute(to_argv(arguments), values)


def _launcher(case: Case) -> list[str]:
    if case.launcher == "ft_launcher":
        return [_which("ft_launcher") or "ft_launcher"]
    return [sys.executable, "-m", "torch.distributed.run"]


def _distributed(gpus: int, logs: Path) -> list[str]:
    return [
        "--nproc_per_node", str(gpus),
        "--nnodes", "1",
        "--master_addr", os.environ.get("MASTER_ADDR", "localhost"),
        "--master_port", os.environ.get("MASTER_PORT") or str(_free_port()),
        "--node_rank", "0",
        "--log-dir", str(logs),
        "--tee", f"0:3,{gpus - 1}:3",
        "--redirects", "3",
    ]  # fmt: skip


def _free_port() -> int:
    """Megatron-LM's, or any other when that is taken: two cells may share a machine."""
    import socket

    for port in (_PORT, 0):
        with socket.socket() as probe:
            # As torch's store does; without it, a port is taken for a minute after its use.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    return _PORT


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


def _about(
    case: Case, hardware: str, root: Path, node: Node, env: Mapping[str, str]
) -> dict[str, object]:
    """What decides the bits of a run. Not the commit: that is the code under test."""
    from harness.hardware import describe_cpu, detect

    sizes = case.arguments(hardware)
    devices = sorted({device.name for device in detect()}) if hardware != "cpu" else []
    layout = [
        (word, sizes.get(f"--{name}-parallel-size", 1))
        for word, name in (
            ("TP", "tensor-model"), ("PP", "pipeline-model"), ("CP", "context"),
            ("EP", "expert-model"), ("ETP", "expert-tensor"),
        )
    ]  # fmt: skip
    return {
        "trainer": "megatron",
        "trainer_version": _core_version(root),
        "torch": _version("torch"),
        "transformer_engine": _version("transformer-engine"),
        "device": ", ".join(devices) or describe_cpu(),
        "layout": " ".join([*(f"{word}{size}" for word, size in layout), f"world {node.gpus}"]),
        **{name.lower(): env.get(name, "") for name in _SWITCHES},
    }


def _version(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "none"


def _core_version(root: Path) -> str:
    """Megatron-core's version, read and not imported: importing it needs a GPU's libraries."""
    try:
        text = (root / "megatron" / "core" / "package_info.py").read_text()
    except OSError:
        return "unknown"
    numbers = [re.search(rf"^{name} = (\d+)$", text, re.M) for name in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(number[1] for number in numbers if number) or "unknown"
