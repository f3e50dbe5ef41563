"""A resumed run is the uninterrupted one: series and state, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.checkpoints import MANIFEST, TRACKER, diff, iter_dir
from harness.errors import CheckpointError, TrainerFailed
from tests.native.conftest import Run, Trains
from tests.native.test_equivalence import MOE

pytestmark = pytest.mark.torch

PARALLEL = {
    "tensor_model_parallel_size": 2,
    "pipeline_model_parallel_size": 2,
    "sequence_parallel": True,
}
K, N = 6, 12

VARIANTS: dict[str, tuple[int, dict[str, Any]]] = {
    "fp32 torch": (1, {"ckpt_format": "torch"}),
    "fp32 torch_dist async": (1, {"ckpt_format": "torch_dist", "async_save": True}),
    "bf16 masters, sharded optimizer, torch_dist async": (
        8,
        {**PARALLEL, "bf16": True, "use_distributed_optimizer": True, "async_save": True},
    ),
    "bf16 masters, sharded optimizer, torch": (
        8,
        {**PARALLEL, "bf16": True, "use_distributed_optimizer": True, "ckpt_format": "torch"},
    ),
    "fp16 with a loss scale that moves": (
        2,
        {
            "fp16": True,
            "initial_loss_scale": 2.0**14,
            "loss_scale_window": 4,
            "tensor_model_parallel_size": 2,
            "ckpt_format": "torch",
        },
    ),
    "batch-size ramp-up, untied embeddings": (
        2,
        {
            "rampup_batch_size": "2 2 16",
            "pipeline_model_parallel_size": 2,
            "untie_embeddings_and_output_weights": True,
        },
    ),
    "experts over EP and ETP": (
        4,
        {
            **MOE,
            "tensor_model_parallel_size": 4,
            "expert_model_parallel_size": 2,
            "expert_tensor_parallel_size": 2,
            "sequence_parallel": True,
            "ckpt_format": "torch",
        },
    ),
    "expert bias and float8 scales": (
        2,
        {
            **MOE,
            "moe_router_score_function": "sigmoid",
            "moe_router_enable_expert_bias": True,
            "fp8_format": "e4m3",
            "fp8_amax_history_len": 4,
            "tensor_model_parallel_size": 2,
            "sequence_parallel": True,
        },
    ),
    "virtual stages, decoupled rate": (
        4,
        {
            "num_layers": 8,
            "pipeline_model_parallel_size": 4,
            "num_layers_per_virtual_pipeline_stage": 1,
            "decoupled_lr": 0.02,
            "ckpt_format": "torch",
        },
    ),
}


def assert_same_from_k(run: Run, resumed: Run) -> None:
    assert set(run.series) == set(resumed.series)
    for metric, series in run.series.items():
        expected = dict(zip(series.steps, series.values, strict=True))
        found = resumed.series[metric]
        steps = [int(step) for step in series.steps if step > K]
        assert [int(step) for step in found.steps] == steps, metric
        assert [float(v) for v in found.values] == [float(expected[s]) for s in steps], metric


@pytest.mark.parametrize("variant", VARIANTS)
def test_resumed_run_equals_uninterrupted_run(variant: str, train: Trains) -> None:
    world, extra = VARIANTS[variant]
    run = train(world, **extra)
    resumed = train(world, load=train.rewound(run, K), **extra)
    assert_same_from_k(run, resumed)
    difference = diff(iter_dir(run.checkpoints, N), iter_dir(resumed.checkpoints, N))
    assert difference.compared > 20
    assert difference.entries == ()


def test_loss_scale_moves_in_the_fp16_variant(train: Trains) -> None:
    world, extra = VARIANTS["fp16 with a loss scale that moves"]
    assert len(set(train(world, **extra).values("loss-scale"))) > 1


def test_loss_falls(train: Trains) -> None:
    losses = train(1, train_iters=60, save_interval=0, attention_dropout=0.0).values("lm loss")
    assert losses[-1] < 0.8 * losses[0]


def test_distributed_checkpoint_loads_in_another_layout(train: Trains) -> None:
    quiet: dict[str, Any] = {"attention_dropout": 0.0, "hidden_dropout": 0.0, "bf16": False}
    run = train(4, **quiet, tensor_model_parallel_size=2, pipeline_model_parallel_size=2)
    moved = train(
        2,
        load=train.rewound(run, K),
        **quiet,
        tensor_model_parallel_size=1,
        pipeline_model_parallel_size=2,
    )
    expected = run.values("lm loss")[K:]
    assert moved.values("lm loss") == pytest.approx(expected, rel=1e-5)
    # Loaded and saved at once, nothing moves: the state is the same tensors in other pieces.
    probe = train(
        1,
        load=train.rewound(run, K),
        **quiet,
        harness_exit_iters=K,
    )
    difference = diff(iter_dir(run.checkpoints, K), iter_dir(probe.checkpoints, K))
    assert [entry for entry in difference.entries if entry.component != "rng"] == []


@pytest.mark.parametrize("kind", ["torch", "torch_dist"])
def test_ranks_with_padding_only_of_the_vocabulary_are_saved_and_resumed(kind: str, train: Trains) -> None:
    # 61 tokens in four parts of 32 rows: the last two ranks hold none that is real.
    extra: dict[str, Any] = {
        "tensor_model_parallel_size": 4,
        "make_vocab_size_divisible_by": 32,
        "ckpt_format": kind,
    }
    run = train(4, **extra)
    resumed = train(4, load=train.rewound(run, K), **extra)
    assert_same_from_k(run, resumed)
    assert diff(iter_dir(run.checkpoints, N), iter_dir(resumed.checkpoints, N)).entries == ()


def test_torch_checkpoint_refuses_another_layout_by_name(train: Trains) -> None:
    run = train(2, ckpt_format="torch", tensor_model_parallel_size=2)
    with pytest.raises((CheckpointError, TrainerFailed), match=r"TP 2.*TP 1"):
        train(1, ckpt_format="torch", load=train.rewound(run, K))


def _files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.suffix in (".pt", ".distcp")]


@pytest.mark.parametrize("kind", ["torch", "torch_dist"])
def test_torn_checkpoint_is_refused_by_file_name(kind: str, train: Trains) -> None:
    run = train(1, ckpt_format=kind)
    load = train.rewound(run, K)
    victim = _files(load)[0]
    content = victim.read_bytes()
    victim.unlink()  # the file is a hard link
    victim.write_bytes(content[: len(content) // 2])
    with pytest.raises((CheckpointError, TrainerFailed), match=victim.name):
        train(1, ckpt_format=kind, load=load)


def test_checkpoint_whose_save_did_not_end_is_refused_and_says_which(train: Trains) -> None:
    run = train(1)
    unfinished = train.rewound(run, K)
    (iter_dir(unfinished, K) / MANIFEST).unlink()
    with pytest.raises(TrainerFailed, match=rf"iter_{K:07d}: has no {MANIFEST}, which is written when"):
        train(1, load=unfinished)
    ahead = train.rewound(run, K)
    (ahead / TRACKER).write_text(str(N))
    with pytest.raises(TrainerFailed, match=rf"{TRACKER}: names iteration {N}, but .* found: {K}"):
        train(1, load=ahead)


def test_same_arguments_give_the_same_bits(train: Trains) -> None:
    runs = [train(2, tensor_model_parallel_size=2, bf16=True) for _ in range(2)]
    for metric, series in runs[0].series.items():
        assert [float(v) for v in series.values] == runs[1].values(metric), metric
