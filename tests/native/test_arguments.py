"""Arguments are Megatron-LM's; what does not fit is named before anything is started."""

from __future__ import annotations

import pytest

from harness.errors import CaseError
from harness.trainers.native.arguments import parse

NEEDED = [
    *("--num-layers", "4", "--hidden-size", "64", "--num-attention-heads", "4", "--seq-length", "64"),
    *("--micro-batch-size", "2", "--train-iters", "100"),
]


def test_values_flags_and_derived_sizes_are_read() -> None:
    args = parse([*NEEDED, "--bf16", "--lr", "1e-3", "--use-checkpoint-opt_param-scheduler"], 1)
    assert args.precision == "bf16"
    assert args.lr == 1e-3
    assert args.ffn_hidden_size == 256
    assert args.use_checkpoint_opt_param_scheduler


def test_arguments_that_are_ignored_are_listed() -> None:
    assert parse([*NEEDED, "--moe-grouped-gemm"], 1).ignored == ("--moe-grouped-gemm",)


@pytest.mark.parametrize(
    ("words", "world", "message"),
    [
        (["--hiden-size", "3"], 1, "--hiden-size.*--hidden-size"),
        (["--lr", "fast"], 1, "--lr: found 'fast', expected float"),
        (["--bf16", "yes"], 1, "--bf16: found 'yes'"),
        (["--tensor-model-parallel-size", "3"], 8, "world size 8 does not factor: TP 3"),
        (["--pipeline-model-parallel-size", "3"], 3, "--num-layers 4 is not a multiple of PP 3"),
        (["--global-batch-size", "3"], 1, "batch size 3 is not a multiple of micro-batch 2"),
        (["--data-path", "/data/pile"], 1, "--data-path: found '/data/pile', expected synthetic"),
        (["--ckpt-format", "zarr"], 1, "--ckpt-format: found 'zarr', expected torch or torch_dist"),
        (["--bf16", "--fp16"], 1, "exclude each other"),
        (["--num-experts", "8", "--expert-model-parallel-size", "3"], 8, "EP 3"),
    ],
)
def test_what_does_not_fit_is_named(words: list[str], world: int, message: str) -> None:
    with pytest.raises(CaseError, match=message):
        parse([*NEEDED, *words], world)


def test_missing_arguments_are_named() -> None:
    with pytest.raises(CaseError, match="--train-iters missing"):
        parse(NEEDED[:-2], 1)
