"""What a name belongs to, and what a whole state should hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.checkpoints import components, open_checkpoint
from harness.checkpoints.gaps import find_gaps
from harness.diagnosis import COMPONENTS
from tests.checkpoints.made import WEIGHT, ranks, save, state


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("model.decoder.layers.0.mlp.linear_fc1.weight", "weights"),
        ("model.decoder.layers.0.mlp.experts.1.linear_fc1.weight", "experts"),
        ("model.decoder.layers.0.mlp.router.weight", "experts"),
        ("model.embedding.word_embeddings.weight", "embedding"),
        ("model.output_layer.weight", "embedding"),
        ("buffer.decoder.layers.0.mlp.router.expert_bias", "experts"),
        ("buffer.scale", "buffers"),
        ("optimizer.exp_avg.decoder.x", "optimizer"),
        ("optimizer.group.0.lr", "lr-schedule"),
        ("optimizer.group.0.betas", "optimizer"),
        ("scheduler.step", "lr-schedule"),
        ("grad_scaler.scale", "grad-scaler"),
        ("rng.default.0_0_0", "rng"),
        ("data.consumed_samples", "data-order"),
        ("iteration", "iteration"),
        ("something", "unknown"),
    ],
)
def test_native_name_belongs_to_its_component(name: str, component: str) -> None:
    assert components.native(name) == component
    assert component in COMPONENTS


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("state_dict.layer1.weight", "weights"), ("net.0.bias", "weights"), ("ema.decay", "buffers"),
        ("optimizer_state_dict.state.3.exp_avg", "optimizer"), ("optim.param_groups.0.lr", "lr-schedule"),
        ("optimizer.param_groups.0.betas", "optimizer"), ("lr_scheduler.last_epoch", "lr-schedule"),
        ("lr_schedulers.0._step_count", "lr-schedule"), ("LRScheduler.last_lr", "lr-schedule"),
        ("torch_rng_state", "rng"), ("rng.cuda", "rng"), ("random_state", "rng"),
        ("numpy_random_state.1", "rng"),
        ("scaler._scale", "grad-scaler"), ("GradScaler.growth_tracker", "grad-scaler"),
        ("train_dataloader.position", "data-order"), ("sampler.epoch", "data-order"),
        ("consumed_train_samples", "data-order"), ("loops.fit_loop.epoch_progress.current", "data-order"),
        ("epoch", "data-order"), ("global_step", "iteration"), ("iteration", "iteration"),
        ("model.embed_tokens.weight", "embedding"), ("lm_head.weight", "embedding"),
        ("model.layers.0.experts.3.w1", "experts"), ("bn.running_mean", "buffers"), ("what", "unknown"),
    ],
)  # fmt: skip
def test_foreign_name_is_judged_by_its_words(name: str, component: str) -> None:
    assert components.foreign(name) == component


def gaps(folder: Path) -> dict[str, str]:
    return {gap.component: gap.sentence for gap in find_gaps(open_checkpoint(folder))}


def test_whole_state_has_no_gap(tmp_path: Path) -> None:
    assert gaps(ranks(tmp_path / "a", state())) == {}


@pytest.mark.parametrize(
    ("gone", "component", "said"),
    [
        ("scheduler.", "lr-schedule", "no position of the learning-rate schedule"),
        ("rng.", "rng", "no random streams"),
        ("data.", "data-order", "no data position"),
        ("optimizer.exp_avg.", "optimizer", "no first moments"),
        ("optimizer.exp_avg_sq.", "optimizer", "no second moments"),
        ("optimizer.step.", "optimizer", "no optimizer step counts"),
        (f"optimizer.exp_avg.{WEIGHT}", "optimizer", f"weights but no moments of {WEIGHT}"),
        (f"model.{WEIGHT}", "weights", f"moments but no weights of {WEIGHT}"),
        ("model.embedding", "embedding", "moments but no weights of embedding.word_embeddings.weight"),
    ],
)
def test_what_is_missing_from_a_native_state_is_said(
    tmp_path: Path, gone: str, component: str, said: str
) -> None:
    tensors = {name: tensor for name, tensor in state().items() if not name.startswith(gone)}
    found = gaps(ranks(tmp_path / "a", tensors))
    assert said in found[component]
    assert set(found) == {component}


def test_half_precision_without_masters_and_scale_is_a_gap(tmp_path: Path) -> None:
    tensors = state()
    tensors[f"model.{WEIGHT}"] = tensors[f"model.{WEIGHT}"].half()
    found = gaps(ranks(tmp_path / "a", tensors))
    assert f"no float32 master of {WEIGHT}" in found["weights"]
    assert "no loss scale" in found["grad-scaler"]


def test_router_without_experts_is_a_gap(tmp_path: Path) -> None:
    tensors = state()
    router = "decoder.layers.0.mlp.router.weight"
    for name in ("model.", "optimizer.exp_avg.", "optimizer.exp_avg_sq."):
        tensors[name + router] = tensors[name + WEIGHT]
    assert "a router but no decoder.layers.0.mlp.experts" in gaps(ranks(tmp_path / "a", tensors))["experts"]


def test_nobody_can_say_what_somebody_elses_state_should_hold(tmp_path: Path) -> None:
    assert find_gaps(open_checkpoint(save({"w": 1}, tmp_path / "a.pt"))) == ()
