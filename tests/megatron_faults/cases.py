"""The smallest cases of Megatron-LM on which each fault shows, in its own format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Of every case: without Transformer Engine and apex, on mock data.
_BASE: Mapping[str, Any] = {
    "--num-layers": 2, "--hidden-size": 32, "--num-attention-heads": 4, "--seq-length": 32,
    "--max-position-embeddings": 32, "--micro-batch-size": 2, "--global-batch-size": 8, "--train-iters": 8,
    "--mock-data": True, "--tokenizer-type": "NullTokenizer", "--vocab-size": 120, "--split": "949,50,1",
    "--data-cache-path": "${DATA_CACHE_PATH}", "--tensorboard-dir": "${TENSORBOARD_PATH}",
    "--save": "${CHECKPOINT_SAVE_PATH}", "--load": "${CHECKPOINT_LOAD_PATH}", "--save-interval": 4,
    "--log-interval": 1, "--log-params-norm": True, "--log-num-zeros-in-grad": True,
    "--eval-interval": 1000, "--eval-iters": 1, "--distributed-backend": "nccl", "--ckpt-format": "torch",
    "--lr": 0.0015, "--lr-decay-style": "cosine", "--min-lr": 1.0e-5, "--lr-decay-iters": 320,
    "--lr-warmup-fraction": 0.01, "--weight-decay": 0.01, "--clip-grad": 1.0,
    "--use-checkpoint-opt_param-scheduler": True, "--transformer-impl": "local",
    "--no-persist-layer-norm": True, "--no-masked-softmax-fusion": True, "--no-bias-swiglu-fusion": True,
    "--no-gradient-accumulation-fusion": True, "--attention-softmax-in-fp32": True,
    "--deterministic-mode": True,
}  # fmt: skip
_ENVIRONMENT = {
    "CUDA_DEVICE_MAX_CONNECTIONS": 1, "NVTE_ALLOW_NONDETERMINISTIC_ALGO": 0, "NCCL_ALGO": "Ring",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}  # fmt: skip
_MOE = {
    "--num-experts": 4, "--moe-router-topk": 2, "--moe-router-load-balancing-type": "none",
    "--moe-token-dispatcher-type": "alltoall", "--disable-bias-linear": True,
    "--moe-router-score-function": "sigmoid", "--moe-router-enable-expert-bias": True,
    "--moe-router-bias-update-rate": 0.001, "--expert-model-parallel-size": 2,
}  # fmt: skip

#: Arguments beyond the common ones, by the name of the case, and how many processes.
CASES: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "fp32": (1, {}),
    "bf16": (1, {"--bf16": True}),
    "fp16": (1, {"--fp16": True, "--initial-loss-scale": 1024, "--loss-scale-window": 3}),
    "moe": (2, _MOE),
    "dp2": (2, {}),
    "validated": (1, {"--eval-interval": 3}),
}


def write(folder: Path) -> Path:
    """All of them below ``folder``."""
    import yaml

    for name, (processes, arguments) in CASES.items():
        case = {
            "ENV_VARS": _ENVIRONMENT,
            "MODEL_ARGS": {**_BASE, **arguments},
            "TEST_TYPE": "ckpt-resume",
            "HARNESS": {"trainer": {"cpu": "megatron"}, "world_size": processes},
        }
        path = folder / "gpt" / name / "model_config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(case, sort_keys=False))
    return folder
