"""The table of small configurations, and how each becomes a case of Megatron-LM's own format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_MOE = "gpt3_moe_mcore_te_tp4_ep2_etp2_pp2_resume_torch_dist_dist_optimizer"
_DECOUPLED = "gpt3_mcore_te_tp1_pp4_vp1_resume_torch_decoupled_lr"
#: What core 0.16.1 says when it loads what it saved of a pipeline stage that has no decoupled parameters.
_GROUPS = "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"

_ENVIRONMENT = {
    "CUDA_DEVICE_MAX_CONNECTIONS": "1",
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0",
    "NCCL_ALGO": "Ring",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
#: Four layers of width 32, ten iterations of eight samples, saved after five; without what wants kernels.
_BASE = {
    "--num-layers": "4",
    "--hidden-size": "32",
    "--num-attention-heads": "4",
    "--seq-length": "32",
    "--max-position-embeddings": "32",
    "--transformer-impl": "local",
    "--no-persist-layer-norm": "true",
    "--no-masked-softmax-fusion": "true",
    "--no-bias-swiglu-fusion": "true",
    "--no-gradient-accumulation-fusion": "true",
    "--attention-softmax-in-fp32": "true",
    "--deterministic-mode": "true",
    "--distributed-backend": "nccl",
    "--micro-batch-size": "2",
    "--global-batch-size": "8",
    "--train-iters": "10",
    "--lr": "0.005",
    "--min-lr": "0.0005",
    "--lr-decay-style": "cosine",
    "--lr-decay-iters": "10",
    "--lr-warmup-fraction": "0.1",
    "--weight-decay": "1e-2",
    "--clip-grad": "1.0",
    "--mock-data": "true",
    "--tokenizer-type": "NullTokenizer",
    "--vocab-size": "120",
    "--split": "949,50,1",
    "--data-cache-path": "${DATA_CACHE_PATH}",
    "--eval-interval": "1000",
    "--eval-iters": "1",
    "--save": "${CHECKPOINT_SAVE_PATH}",
    "--load": "${CHECKPOINT_LOAD_PATH}",
    "--save-interval": "5",
    "--use-checkpoint-opt_param-scheduler": "true",
    "--tensorboard-dir": "${TENSORBOARD_PATH}",
    "--log-interval": "1",
    "--log-params-norm": "true",
    "--log-num-zeros-in-grad": "true",
    "--log-memory-to-tensorboard": "true",
    "--log-timers-to-tensorboard": "true",
    "--log-validation-ppl-to-tensorboard": "true",
    "--timing-log-level": "0",
}
_TORCH, _DIST = {"--ckpt-format": "torch"}, {"--ckpt-format": "torch_dist"}
_BF16, _ZERO = {"--bf16": "true"}, {"--use-distributed-optimizer": "true"}
_EXPERTS = {
    "--num-experts": "4",
    "--expert-model-parallel-size": "2",
    "--moe-router-topk": "2",
    "--moe-router-load-balancing-type": "aux_loss",
    "--moe-aux-loss-coeff": "1e-2",
    "--moe-token-dispatcher-type": "alltoall",
    "--disable-bias-linear": "true",
}


@dataclass(frozen=True)
class Config:
    """A configuration, and what is expected of it.

    Args:
        name: of its case.
        about: in a few words.
        arguments: on top of the small ones that all share.
        second: MODEL_ARGS_2, on top of these; None for none.
        processes: how many.
        red: by the version of megatron-core, what a red verdict of it must say; everywhere else it is green.
        case: the folder of a case of this repository, which is run as it is; then nothing else is said.
    """

    name: str
    about: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    second: Mapping[str, str] | None = None
    processes: int = 1
    red: Mapping[str, str] = field(default_factory=dict)
    case: Path | None = None

    def write(self, cases: Path) -> Path:
        """Its case below a folder of cases; the path of its folder."""
        if self.case is not None:
            return self.case
        folder = cases / "gpt" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model_config.yaml").write_text(self.text(), encoding="utf-8")
        return folder

    def text(self) -> str:
        """Of its file."""
        first = {**_BASE, **self.arguments}
        lines = ["TEST_TYPE: ckpt-resume", "ENV_VARS:", *_lines(_ENVIRONMENT), "MODEL_ARGS:", *_lines(first)]
        if self.second is not None:
            lines += ["MODEL_ARGS_2:", *_lines({**first, **self.second})]
        lines += ["HARNESS:", "  trainer: {cpu: megatron}", f"  world_size: {self.processes}"]
        return "\n".join([*lines, ""])


def _lines(values: Mapping[str, str]) -> list[str]:
    return [f"  {key}: {value}" for key, value in values.items()]


def _own(name: str, family: str) -> Path:
    return ROOT / "test_cases" / family / name


CONFIGS: Final = (
    Config("tp1_torch", "one process", _TORCH),
    Config("tp1_torch_args2", "MODEL_ARGS_2 that are MODEL_ARGS", _TORCH, second={}),
    Config(
        "tp2_torch_dist",
        "two tensor-parallel, torch_dist",
        {**_DIST, **_BF16, "--tensor-model-parallel-size": "2"},
        processes=2,
    ),
    Config(
        "pp2_torch_bf16",
        "two stages, bf16",
        {**_TORCH, **_BF16, "--pipeline-model-parallel-size": "2"},
        processes=2,
    ),
    Config(
        "pp4_vp1_torch_bf16",
        "four stages, a layer in each virtual one, bf16",
        {
            **_TORCH,
            **_BF16,
            "--num-layers": "8",
            "--pipeline-model-parallel-size": "4",
            "--num-layers-per-virtual-pipeline-stage": "1",
        },
        processes=4,
    ),
    Config(
        "dp2_zero_torch_dist",
        "distributed optimizer, torch_dist",
        {**_DIST, **_BF16, **_ZERO},
        processes=2,
    ),
    Config("dp2_zero_torch", "distributed optimizer, torch", {**_TORCH, **_BF16, **_ZERO}, processes=2),
    Config(
        "moe_ep2_torch_dist",
        "experts over two processes",
        {**_DIST, **_BF16, **_ZERO, **_EXPERTS},
        processes=2,
    ),
    Config(
        "dp2_async_torch_dist",
        "--async-save",
        {**_DIST, **_BF16, **_ZERO, "--async-save": "true"},
        processes=2,
    ),
    Config(
        "dp2_persistent_torch_dist",
        "--async-save by a process that a rank spawns, which stays",
        {**_DIST, **_BF16, **_ZERO, "--async-save": "true", "--use-persistent-ckpt-worker": "true"},
        processes=2,
    ),
    Config(
        "reshard_tp1_tp2",
        "resumed with two tensor-parallel instead of two data-parallel",
        {
            **_DIST,
            "--hidden-dropout": "0",
            "--attention-dropout": "0",
            "--tensor-model-parallel-size": "1",
            "--make-vocab-size-divisible-by": "128",
        },
        second={"--tensor-model-parallel-size": "2", "--make-vocab-size-divisible-by": "64"},
        processes=2,
    ),
    Config(_MOE, "the first heart case, small, 8 processes", case=_own(_MOE, "moe")),
    Config(
        _DECOUPLED,
        "the second heart case, small, 4 processes",
        case=_own(_DECOUPLED, "gpt"),
        red={"0.16.1": _GROUPS},
    ),
)


def chosen(words: Sequence[str]) -> list[Config]:
    """Those whose name has one of the words in it, in their order; all, without a word."""
    return [one for one in CONFIGS if not words or any(word in one.name for word in words)]
