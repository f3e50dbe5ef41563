"""What a name belongs to, and what a whole state should hold."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness.checkpoints import components, diff, open_checkpoint
from harness.checkpoints.gaps import find_gaps
from harness.diagnosis import COMPONENTS
from harness.diagnosis.holdings import counts_only
from tests.checkpoints.made import WEIGHT, dist, ranks, save, state

MADE = torch.ones(2)


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


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("weight_decay", "unknown"), ("num_experts", "unknown"), ("seed", "unknown"), ("lr", "unknown"),
        ("data_parallel_random_init", "unknown"), ("embedding_path", "unknown"), ("loss_scale", "unknown"),
        ("optimizer", "unknown"), ("train_iters", "unknown"), ("rampup_batch_size", "unknown"),
        ("data_path", "unknown"), ("attention_backend.AttnBackend", "unknown"), ("skip_train", "unknown"),
        ("consumed_train_samples", "data-order"), ("consumed_valid_samples", "data-order"),
        ("skipped_train_samples", "data-order"), ("consumed_train_bins", "data-order"),
        ("consumed_train_tokens", "data-order"), ("iteration", "iteration"), ("curr_iteration", "iteration"),
        ("num_floating_point_operations_so_far", "iteration"),
    ],
)  # fmt: skip
def test_an_argument_is_no_state_whatever_its_words_but_for_what_says_how_far_training_has_come(
    name: str, component: str, tmp_path: Path
) -> None:
    value = SimpleNamespace(**{name.partition(".")[0]: {name.rpartition(".")[2]: 1} if "." in name else 1})
    common = dist(tmp_path / "d", {"common_state/shard_0_1": [{"args": value}]}, flat=False)
    old = save({"args": value}, tmp_path / "r" / "mp_rank_00" / "model_optim_rng.pt").parent.parent
    for folder in (common, old):
        (entry,) = (one for key, one in open_checkpoint(folder).entries.items() if "args." in key)
        assert (entry.component, entry.key) == (component, f"args.{name}")


@pytest.mark.parametrize(
    ("file", "nest", "component"),
    [
        ("distrib_optim.pt", {0: {(torch.bfloat16, torch.float32): {"param": MADE}}}, "optimizer"),
        ("distrib_optim.pt", [{0: {(torch.bfloat16, torch.float32): {"param": MADE}}}], "optimizer"),
        ("layer_wise_optimizer_0.pt", {"fp32_from_fp16_params": [[MADE]]}, "optimizer"),
        ("layer_wise_optimizer_0.pt", [{"optimizer": {"param_groups": [{"lr": 1.0}]}}], "lr-schedule"),
        ("model_optim_rng.pt", {"optimizer": {"fp32_from_fp16_params": [[MADE]]}}, "optimizer"),
        ("model_optim_rng.pt", {"optimizer": {0: {"fp32_from_fp16_params": [[MADE]]}}}, "optimizer"),
        ("model_optim_rng.pt", {"model": {"decoder.weight": MADE}}, "weights"),
    ],
)
def test_masters_are_of_the_optimizer_wherever_megatron_keeps_them(
    file: str, nest: object, component: str, tmp_path: Path
) -> None:
    folder = save(nest, tmp_path / "mp_rank_00" / file).parent.parent
    assert {entry.component for entry in open_checkpoint(folder).entries.values()} == {component}


def test_masters_of_the_distributed_format_are_of_the_optimizer_too(tmp_path: Path) -> None:
    names = (
        "optimizer.state.fp32_param.decoder.layers.mlp.experts.experts.linear_fc1.weight",
        "optimizer.distributed.dp_group_idx_0.gbuf_idx_0.dtype_(torch.bfloat16, torch.float32)"
        ".bucket_idx_0.param",
        "chained_0.optimizer.state.fp32_param.embedding.word_embeddings.weight",
    )
    folder = dist(tmp_path / "d", dict.fromkeys(names, MADE), flat=False)
    assert {entry.component for entry in open_checkpoint(folder).entries.values()} == {"optimizer"}


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


@pytest.mark.parametrize(
    ("more", "only"), [({}, True), ({"train_dataloader": {"position": 5}}, False), ({"sampler": None}, True)]
)
def test_a_count_among_the_arguments_is_all_that_is_known_of_the_data_where_nothing_else_is(
    more: dict[str, object], tmp_path: Path, *, only: bool
) -> None:
    nest = {"args": SimpleNamespace(consumed_train_samples=80), "model": {"w": MADE}, **more}
    paths = [save(nest, tmp_path / name / "mp_rank_00" / "model_optim_rng.pt").parents[1] for name in "ab"]
    assert counts_only(diff(*paths)) is only


def test_what_the_trainer_counts_is_right_also_where_something_else_was_read(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text('{"epoch": 1.25, "global_step": 20}')
        save({"w": MADE}, tmp_path / name / "pytorch_model.bin")
    assert counts_only(diff(tmp_path / "a", tmp_path / "b"))
    for name in "ab":
        save({"position": 5}, tmp_path / name / "sampler.bin")
    assert not counts_only(diff(tmp_path / "a", tmp_path / "b"))


@pytest.mark.parametrize(
    ("key", "file", "component"),
    [
        ("learning_rate", "training_args.bin", "unknown"),
        ("seed", "checkpoint-20/training_args.bin", "unknown"),
        ("embd_pdrop", "config.json", "unknown"),
        ("hyper_parameters.optimizer.lr", "last.ckpt", "unknown"),
        ("lr_schedulers.0.last_epoch", "last.ckpt", "lr-schedule"),
        ("rng_state", "my_config.json", "rng"),
    ],
)
def test_what_a_framework_was_told_is_no_component_s(key: str, file: str, component: str) -> None:
    assert components.foreign(key, file) == component


@pytest.mark.parametrize(
    ("key", "file", "component"),
    [
        ("cpu", "rng_state.pth", "rng"),
        ("python.1.0", "rng_state_3.pth", "rng"),
        ("numpy_random_seed.state.1", "random_states_0.pkl", "rng"),
        ("last_epoch", "scheduler.pt", "lr-schedule"),
        ("base_lrs.0", "step_20/scheduler.bin", "lr-schedule"),
        ("_growth_tracker", "scaler.pt", "grad-scaler"),
        ("yielded", "sampler_1.bin", "data-order"),
        ("_snapshot._iterator_finished", "dl_state_dict.bin", "data-order"),
        ("state.0.step", "optimizer.pt", "optimizer"),
        ("base_optimizer_state.0.weight", "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "optimizer"),
        ("param_groups.0.lr", "optimizer.bin", "lr-schedule"),
        ("net.weight", "model_and_optimizer.pt", "weights"),
        ("cpu", "my_rng_model.pt", "unknown"),
        ("log_history.3.epoch", "checkpoint-20/trainer_state.json", "unknown"),
        ("epoch", "checkpoint-20/trainer_state.json", "data-order"),
        ("log_history.3.epoch", "mine.json", "data-order"),
    ],
)
def test_a_file_of_one_component_speaks_for_what_is_in_it(key: str, file: str, component: str) -> None:
    assert components.foreign(key, file) == component
