"""Shared memory does what gloo does, bit for bit, and a rank that waits in it is not the one to blame."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import CaseError, TrainerFailed
from harness.launch.launcher import Launcher
from harness.trainers.base import Launch
from harness.trainers.native.comm.torch_world import TorchWorld
from harness.trainers.native.main import join
from tests.native.conftest import Trains
from tests.native.test_equivalence import MOE


def start(launcher: Launcher, folder: Path, *words: str, size: int = 4, timeout: float = 120.0) -> None:
    target = "tests.native.shared_ranks:run"
    launch = Launch(kind="fork", world_size=size, target=target, argv=words)
    launcher.run(launch, phase="continuous", folder=folder, timeout=timeout)


def test_every_collective_gives_the_bits_of_gloo(launcher: Launcher, tmp_path: Path) -> None:
    start(launcher, tmp_path, "compare=0:300")


def test_tensors_larger_than_a_slot_give_the_bits_of_gloo(launcher: Launcher, tmp_path: Path) -> None:
    start(launcher, tmp_path, "compare=1000:1014:big")


def test_scalars_views_and_tensors_with_gradients_are_taken(launcher: Launcher, tmp_path: Path) -> None:
    start(launcher, tmp_path, "views")


def test_no_slot_is_reused_before_all_have_read_it(launcher: Launcher, tmp_path: Path) -> None:
    start(launcher, tmp_path, "rounds=1500")


def test_messages_arrive_in_order_on_each_lane_though_all_send_first(
    launcher: Launcher, tmp_path: Path
) -> None:
    start(launcher, tmp_path, "sends=2")


def test_a_sender_far_ahead_keeps_no_memory(launcher: Launcher, tmp_path: Path) -> None:
    start(launcher, tmp_path, "ring=20", size=2)


def test_more_messages_than_the_list_holds_arrive_in_order(launcher: Launcher, tmp_path: Path) -> None:
    start(launcher, tmp_path, "crowd=2500", size=2)


@pytest.mark.parametrize("where", ["collective", "message"])
def test_a_rank_that_waits_leaves_the_processor_to_others(
    where: str, launcher: Launcher, tmp_path: Path
) -> None:
    start(launcher, tmp_path, f"waits={where}", size=3)


def test_ranks_ask_for_short_turns_and_for_nothing_else(launcher: Launcher, tmp_path: Path) -> None:
    start(launcher, tmp_path, f"turns={os.getpriority(os.PRIO_PROCESS, 0)}", size=2)


def test_no_rank_sleeps_on_after_the_others_have_come(launcher: Launcher, tmp_path: Path) -> None:
    start(launcher, tmp_path, "stirs=3000", timeout=60.0)


@pytest.mark.parametrize("where", ["collective", "message"])
def test_the_rank_that_does_not_come_is_the_one_called_hung(
    where: str, launcher: Launcher, tmp_path: Path
) -> None:
    with pytest.raises(TrainerFailed, match="rank 2 gave no sign of life"):
        start(launcher, tmp_path, f"absent={where}", size=3, timeout=1.0)


def test_a_killed_rank_ends_the_others_that_wait_for_it(launcher: Launcher, tmp_path: Path) -> None:
    with pytest.raises(TrainerFailed, match="rank 2 was killed by SIGKILL"):
        start(launcher, tmp_path, "killed", size=3)


def test_a_training_run_has_the_same_series_over_shared_memory_and_over_gloo(train: Trains) -> None:
    layout: dict[str, Any] = {
        **MOE,
        "tensor_model_parallel_size": 4,
        "pipeline_model_parallel_size": 2,
        "expert_model_parallel_size": 2,
        "expert_tensor_parallel_size": 2,
        "sequence_parallel": True,
        "use_distributed_optimizer": True,
        "bf16": True,
        "train_iters": 4,
        "eval_interval": 2,
        "save_interval": 0,
    }
    shared = train(8, target="tests.native.shared_ranks:train_shared", **layout)
    gloo = train(8, target="tests.native.shared_ranks:train_gloo", **layout)
    assert len(shared.values("lm loss")) == 4
    assert set(shared.series) == set(gloo.series)
    for metric in gloo.series:
        assert shared.values(metric) == gloo.values(metric), metric


def test_gloo_is_used_where_it_is_asked_for_and_where_nothing_is_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert isinstance(join(0, 1, cpu, "nowhere"), TorchWorld)
    assert isinstance(join(0, 2, cuda, "nowhere"), TorchWorld)
    monkeypatch.setenv("HARNESS_COMM", "gloo")
    assert isinstance(join(0, 2, cpu, "nowhere"), TorchWorld)


def test_an_unknown_backend_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_COMM", "mpi")
    with pytest.raises(CaseError, match=r"HARNESS_COMM.*'mpi'.*gloo"):
        join(0, 2, torch.device("cpu"), os.devnull)
