"""How the frameworks that people use are told where to save, how long to train and where to log: a table.

Each row has its page below ``docs/how-to/``, and an example that a test runs with the framework itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

Role = Literal[
    "steps", "epochs", "stop", "save", "every", "resume", "log", "seed", "metrics", "events", "report",
    "save-when", "log-when", "eval-when", "eval-every", "best", "keep", "endless",
]  # fmt: skip


@dataclass(frozen=True)
class Place:
    """An argument of a call that a framework is told something by.

    Args:
        role: what it tells.
        call: of what is called the last part of its name; an expression.
        keyword: of the argument.
        position: where it stands without its keyword; None where nobody writes it so.
        flag: the option that a script without one is advised to take.
        asked: the script is told to have it; otherwise it is only looked at.
        default: what the framework takes without it, as it is written.
        must: the one value that will do in the case; what else is written down becomes an option's default.
    """

    role: Role
    call: str
    keyword: str
    position: int | None = None
    flag: str = ""
    asked: bool = True
    default: str = ""
    must: str = ""


def _must(role: Role, call: str, keyword: str, value: str) -> Place:
    """What must be ``value`` in the case, by an option of that name."""
    return Place(role, call, keyword, flag=f"--{keyword}", asked=False, must=value)


@dataclass(frozen=True)
class Framework:
    """One framework.

    Args:
        name: as people write it.
        packages: what a script of it imports.
        shown_by: an expression of the names that show that it trains, where it may be imported for less.
        page: the how-to.
        places: where in a script it is told what.
        parsers: an expression of the calls that read the command line by its own options.
        parser_words: what such a script is given, with the harness's placeholders.
        parser_resume: with what it is resumed.
        variables: what its processes need in their environment.
        launcher: in place of ``python``.
        logs_steps: where it trains by epochs, its log counts steps all the same.
        finds: an expression of what a script resumes from, where that is a folder with checkpoints.
        seed: the call that a script begins with, so that two runs begin alike.
    """

    name: str
    packages: tuple[str, ...]
    shown_by: str = ""
    page: str = ""
    places: tuple[Place, ...] = ()
    parsers: str = ""
    parser_words: tuple[str, ...] = ()
    parser_resume: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    launcher: tuple[str, ...] = ("python",)
    logs_steps: bool = False
    finds: str = "get_last_checkpoint|glob|listdir|scandir"
    seed: str = ""


_TORCHRUN = ("torchrun", "--standalone", "--nproc_per_node", "1")
_ARGUMENTS = (
    r"\w*TrainingArguments|(SFT|DPO|GRPO|ORPO|KTO|CPO|RLOO|PPO|BCO|GKD|XPO|Reward|PRM|OnlineDPO|NashMD)Config"
)
FRAMEWORKS = (
    Framework(
        "transformers",
        ("transformers", "trl"),
        rf"\w*Trainer|HfArgumentParser|TrlParser|{_ARGUMENTS}",
        "docs/how-to/transformers.md",
        (
            Place("save", _ARGUMENTS, "output_dir", 0, "--output_dir"),
            Place("steps", _ARGUMENTS, "max_steps", flag="--max_steps", default="-1"),
            Place("every", _ARGUMENTS, "save_steps", flag="--save_steps", default="500"),
            Place("log", _ARGUMENTS, "logging_steps", flag="--logging_steps", default="500"),
            _must("save-when", _ARGUMENTS, "save_strategy", "steps"),
            _must("log-when", _ARGUMENTS, "logging_strategy", "steps"),
            _must("eval-when", _ARGUMENTS, "eval_strategy", "steps"),
            Place("eval-every", _ARGUMENTS, "eval_steps", flag="--eval_steps", asked=False),
            Place("best", _ARGUMENTS, "load_best_model_at_end", asked=False),
            Place("events", _ARGUMENTS, "logging_dir", asked=False),
            Place("report", _ARGUMENTS, "report_to", asked=False),
            Place("resume", "train", "resume_from_checkpoint", 0, "--resume_from_checkpoint"),
        ),
        "HfArgumentParser|TrlParser",
        (
            "--max_steps", "${TRAIN_ITERS}", "--save_strategy", "steps", "--save_steps", "${SAVE_INTERVAL}",
            "--logging_strategy", "steps", "--logging_steps", "1", "--output_dir", "${CHECKPOINT_SAVE_PATH}",
        ),
        ("--resume_from_checkpoint", "${CHECKPOINT_TO_LOAD}"),
        {"TENSORBOARD_LOGGING_DIR": "${TENSORBOARD_PATH}"},
        seed="transformers.set_seed(42)",
    ),
    Framework(
        "Lightning",
        ("lightning", "pytorch_lightning"),
        r"\w*Trainer|\w*LightningModule|\w*LightningCLI",
        "docs/how-to/lightning.md",
        (
            Place("save", "ModelCheckpoint", "dirpath", 0, "--checkpoints"),
            Place("steps", "Trainer", "max_steps", flag="--max_steps", default="-1"),
            Place("every", "ModelCheckpoint", "every_n_train_steps", flag="--save_every"),
            _must("endless", "Trainer", "max_epochs", "-1"),
            _must("keep", "ModelCheckpoint", "save_top_k", "-1"),
            Place("log", "Trainer", "log_every_n_steps", flag="--log_every", default="50"),
            Place("events", "TensorBoardLogger", "save_dir", 0, "--logs"),
            Place("metrics", "CSVLogger", "save_dir", 0, "--logs"),
            Place("resume", "fit", "ckpt_path", 4, "--resume"),
        ),
        r"\w*LightningCLI",
        (
            "fit", "--trainer.max_steps", "${TRAIN_ITERS}", "--trainer.log_every_n_steps", "1",
            "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "${OUTPUT_PATH}",
            "--trainer.callbacks+", "ModelCheckpoint",
            "--trainer.callbacks.every_n_train_steps", "${SAVE_INTERVAL}",
            "--trainer.callbacks.save_top_k", "-1", "--trainer.callbacks.dirpath", "${CHECKPOINT_SAVE_PATH}",
        ),
        ("--ckpt_path", "${CHECKPOINT_TO_LOAD}"),
        seed="seed_everything(42, workers=True)",
    ),
    Framework(
        "mmengine",
        ("mmengine",),
        page="docs/how-to/mmengine.md",
        places=(
            Place("save", r"Runner|\w*Runner", "work_dir", flag="--work-dir"),
            Place("steps", r"dict|\w*TrainLoop|\w*Runner", "max_iters", flag="--max-iters", asked=False),
            Place("epochs", r"dict|\w*TrainLoop|\w*Runner", "max_epochs", flag="--max-epochs", asked=False),
            Place("every", "CheckpointHook", "interval", flag="--save-interval", default="1"),
            Place("log", "LoggerHook", "interval", flag="--log-interval", default="10"),
            Place("events", "TensorboardVisBackend", "save_dir", 0, "--log-dir"),
            Place("resume", r"Runner|\w*Runner", "resume", flag="--resume"),
        ),
        variables={"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
        logs_steps=True,
    ),
    Framework(
        "torchtitan",
        ("torchtitan",),
        page="docs/how-to/torchtitan.md",
        parsers=r"ConfigManager|JobConfig|main",
        parser_words=(
            "--training.steps", "${TRAIN_ITERS}", "--checkpoint.enable", "--checkpoint.interval",
            "${SAVE_INTERVAL}", "--metrics.log_freq", "1", "--metrics.enable_tensorboard",
            "--metrics.save_tb_folder", "${TENSORBOARD_PATH}", "--dump_folder", "${OUTPUT_PATH}",
            "--debug.seed", "1", "--debug.deterministic", "--checkpoint.folder", "${CHECKPOINT_SAVE_PATH}",
        ),
        launcher=_TORCHRUN,
    ),
    Framework(
        "DeepSpeed",
        ("deepspeed",),
        page="docs/how-to/deepspeed.md",
        places=(
            Place("save", "save_checkpoint", "save_dir", 0, "--save_dir"),
            Place("resume", "load_checkpoint", "load_dir", 0, "--load_dir"),
        ),
        launcher=_TORCHRUN,
        finds="",  # always
        seed="torch.manual_seed(42)",
    ),
    Framework(
        "Accelerate",
        ("accelerate",),
        "Accelerator",
        "docs/how-to/accelerate.md",
        (
            Place("save", "save_state", "output_dir", 0, "--output_dir"),
            Place("resume", "load_state", "input_dir", 0, "--resume_from_checkpoint"),
            Place("events", "ProjectConfiguration", "logging_dir", asked=False),
        ),
        seed="accelerate.utils.set_seed(42)",
    ),
    Framework("Megatron-LM", ("megatron",)),
    Framework("Composer", ("composer",)),
)  # fmt: skip


def installed(package: str) -> int | None:
    """The first number of the version that is installed here; None without one."""
    try:
        return int(version(package).partition(".")[0])
    except (PackageNotFoundError, ValueError):
        return None
