"""The command line and the environment of one phase of Megatron-LM, as its scripts make them."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cases.arguments import expanded, variables
from harness.errors import CaseError, UsageError
from harness.trainers.base import Phase, placeholders

if TYPE_CHECKING:
    from harness.cases import Case

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
#: TEST_TYPEs that are trained twice.
RESUMES = ("ckpt-resume", "frozen-resume")
_WORDS = {"torchrun": (sys.executable, "-m", "torch.distributed.run"), "ft_launcher": ("ft_launcher",)}
#: What a case that asks for the other launcher has to know of one.
_APART = {
    "torchrun": "restarts no crashed phase inside itself",
    "ft_launcher": "may restart a crashed phase inside itself",
}
#: The formats of ``--ckpt-convert-format``.
_CONVERTED = ("torch", "torch_dist")
#: The scripts' variables that are paths of a phase.
_EXPORTED = (
    "OUTPUT_PATH", "TENSORBOARD_PATH", "CHECKPOINT_SAVE_PATH", "CHECKPOINT_LOAD_PATH",
    "DATA_CACHE_PATH", "LOG_DIR", "RUN_NUMBER", "REPEAT",
)  # fmt: skip


def paths(case: Case, phase: Phase) -> dict[str, str]:
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


def environment(case: Case, root: Path, values: Mapping[str, str]) -> dict[str, str]:
    """What the scripts export, and the case's own variables on top.

    Args:
        case, root: what is run, and the checkout.
        values: of each ``${NAME}``: variables of the environment, and the phase's paths.
    """
    # As ${NAME:-default} in a shell: an empty variable counts as none.
    env = {name: os.environ.get(name) or value for name, value in _DEFAULTS.items()}
    env |= {name: values[name] for name in _EXPORTED}
    env["ONE_LOGGER_JOB_CATEGORY"] = "test"
    if case.lightweight:
        env["SKIP_PYTEST"] = "1"
    env |= variables(case.env_vars, values)
    env["PYTHONPATH"] = f"{root}:{env.get('PYTHONPATH', os.environ.get('PYTHONPATH', ''))}"
    return env


def arguments(
    case: Case, hardware: str, phase: Phase, values: Mapping[str, str], *, script: str = ""
) -> list[str]:
    """The training script's arguments in a phase; raises CaseError for an unknown ``${NAME}``."""
    second = phase.load is not None and case.model_args_2 is not None
    found = dict(case.arguments(hardware, resumed=phase.load is not None))
    # run_ci_test.sh writes them into MODEL_ARGS, not into MODEL_ARGS_2. A phase that comes to --train-iters
    # validates behind its last step, one that exits before does not: all phases must end alike.
    if not is_nemo(script):
        found["--exit-interval"] = str(phase.stop)
        if case.lightweight and not second and case.test_type in RESUMES:
            found["--save-interval"] = str(case.save_interval(hardware))
    if phase.name == "probe":
        found.pop("--async-save", None)  # it ends without waiting for one
        found |= {"--ckpt-convert-format": converted(found), "--ckpt-convert-save": str(phase.save)}
    if phase.name == "replicas":  # it looks before the first step, and again after so many
        found["--check-weight-hash-across-dp-replicas-interval"] = str(phase.train_iters + 1)
    # A profile's ``false`` has taken its argument out; the file's own is text to the scripts.
    texts = {key: "false" if value is False else value for key, value in found.items()}
    own = variables(case.env_vars, values)
    return expanded(texts, {**own, **values}, own.keys() - values.keys(), joined=is_nemo(script))


def is_nemo(script: str) -> bool:
    """Whether the scripts start NeMo, whose arguments are Hydra's: ``key=value`` in one word."""
    return "nemo" in script.lower()


@dataclass(frozen=True)
class Launcher:
    """What starts the ranks.

    Args:
        words: the program.
        more: what it is told beyond what every launcher is told.
        note: a sentence where it is another one than the case asks for; empty otherwise.
    """

    words: tuple[str, ...]
    more: tuple[str, ...] = ()
    note: str = ""


def launcher(case: Case) -> Launcher:
    """The one that the case names; where only the other one is here, that one, with a note."""
    here = {"torchrun": _torchrun(), "ft_launcher": _ft_launcher()}
    found, note = case.launcher, ""
    other = next(name for name in here if name != found)
    if here[other] and not here[found]:
        note = f"LAUNCHER: {found} is not installed here: {other} starts the ranks, and {_APART[other]}"
        found = other
    words = here[found] or _WORDS[found]
    return Launcher(words, ("--max-restarts=3",) if found == "ft_launcher" else (), note)


def _torchrun() -> tuple[str, ...]:
    """Torchrun of this Python, or one on PATH."""
    if find_spec("torch"):
        return _WORDS["torchrun"]
    found = which("torchrun")
    return (found,) if found else ()


def _ft_launcher() -> tuple[str, ...]:
    found = which("ft_launcher")
    return (found,) if found else ()


def converted(given: Mapping[str, object]) -> str:
    """The format that a phase's checkpoints have, if Megatron-LM can convert to it.

    Raises:
        UsageError: it cannot.
    """
    found = str(given.get("--ckpt-format", "torch_dist"))
    if found not in _CONVERTED:
        raise UsageError(
            f"Megatron-LM saves what it has loaded at once only in the formats {' and '.join(_CONVERTED)}, "
            f"and this case has {found}: what loading alone loses is not told"
        )
    return found


def distributed(launcher: Launcher, gpus: int, logs: Path, nodes: int = 1) -> list[str]:
    """What the launcher is told: ``gpus`` processes on each node, logs by rank below ``logs``.

    On several nodes, which of them this is, where they meet and where its logs go is told by whoever starts
    it there (``PET_NODE_RANK`` and others).
    """
    one = [
        "--nnodes", "1",
        "--master_addr", os.environ.get("MASTER_ADDR", "localhost"),
        "--master_port", os.environ.get("MASTER_PORT") or str(_free_port()),
        "--node_rank", "0",
    ]  # fmt: skip
    return [
        "--nproc_per_node", str(gpus),
        *([*one, "--log-dir", str(logs)] if nodes == 1 else []),
        "--tee", f"0:3,{gpus - 1}:3",
        "--redirects", "3",
        *launcher.more,
    ]  # fmt: skip


def _free_port() -> int:
    """Any that is free, never Megatron-LM's own: two cells that start together would both find it free."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def which(name: str) -> str | None:
    """A program beside this Python, or on PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name)


def with_scripts(case: Case, command: list[str]) -> tuple[str, ...]:
    """The command, between the case's own scripts where it has them and they are allowed."""
    if not (case.before_script or case.after_script):
        return tuple(command)
    lines = ["set -euo pipefail", case.before_script or "", '"$@" && status=0 || status=$?',
             case.after_script or "", "exit $status"]  # fmt: skip
    return ("bash", "-c", "\n".join(line for line in lines if line), "harness", *command)
