"""Rates, batch sizes and loss scales as Megatron-LM computes them."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import CheckpointError
from harness.trainers.native.arguments import Arguments, parse
from harness.trainers.native.schedules import LossScaler, ParamScheduler, batch_size


def arguments(words: str) -> Arguments:
    needed = (
        "--num-layers 1 --hidden-size 8 --num-attention-heads 1 --seq-length 8 "
        "--micro-batch-size 1 --train-iters 100 --global-batch-size 4 "
    )
    return parse((needed + words).split(), 1)


def group() -> dict[str, Any]:
    return {"max_lr": 1.0, "min_lr": 0.1, "decays": True}


def test_cosine_schedule_rises_then_falls_to_its_minimum() -> None:
    only = group()
    scheduler = ParamScheduler(arguments("--lr-decay-style cosine --lr-warmup-fraction 0.1"), [only])
    seen = [only["lr"]]
    for _ in range(100):
        scheduler.step(4)
        seen.append(only["lr"])
    assert seen[0] == 0.0
    assert seen[5] == pytest.approx(0.5)
    assert seen[10] == pytest.approx(1.0)
    assert seen[55] == pytest.approx(0.55)
    assert seen[100] == pytest.approx(0.1)


def test_restored_schedule_continues_with_the_same_bits() -> None:
    first, second = group(), group()
    words = arguments("--lr-decay-style cosine --lr-warmup-fraction 0.1")
    run, resumed = ParamScheduler(words, [first]), ParamScheduler(words, [second])
    for _ in range(37):
        run.step(4)
    resumed.restore(run.state())
    for _ in range(20):
        assert first["lr"] == second["lr"]
        run.step(4)
        resumed.step(4)


def test_schedule_that_contradicts_the_checkpoint_is_an_error() -> None:
    state = ParamScheduler(arguments("--lr-warmup-fraction 0.1"), [group()]).state()
    other = ParamScheduler(arguments("--lr-warmup-fraction 0.2"), [group()])
    with pytest.raises(CheckpointError, match="warmup_steps"):
        other.restore(state)


def test_batch_size_ramps_up_in_increments() -> None:
    words = arguments("--rampup-batch-size 1 1 30")
    assert [batch_size(words, consumed) for consumed in (0, 9, 10, 19, 20, 29, 30)] == [
        1,
        1,
        2,
        2,
        3,
        3,
        4,
    ]


def test_loss_scale_halves_past_its_hysteresis_and_doubles_after_a_quiet_window() -> None:
    scaler = LossScaler(arguments("--fp16 --initial-loss-scale 8 --loss-scale-window 3"))
    scaler.update(found_inf=True)
    assert scaler.scale == 8
    scaler.update(found_inf=True)
    assert scaler.scale == 4
    for _ in range(3):
        scaler.update(found_inf=False)
    assert scaler.scale == 8
