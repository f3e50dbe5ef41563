"""Cells over two nodes of three: the phases rotate, and what comes out is what one machine gives."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.slurm.cells import ROOT, Cell, scripted, tiny, trained
from tests.slurm.cluster import Cluster

HEART = "gpt3_tp2_pp2_dp2_resume_torch_dist_dist_optimizer"


def nodes(cell: Cell) -> dict[str, list[str]]:
    """Of each phase, in the order of its ranks."""
    return {name: one["nodes"] for name, one in cell.verdict["provenance"]["nodes"]["phases"].items()}


def test_the_bits_of_two_nodes_are_those_of_one_machine(cluster: Cluster, tmp_path: Path) -> None:
    with Cell(
        cluster, tmp_path, (HEART, "--nodes", "2"), cases=ROOT / "test_cases", goldens=ROOT / "goldens"
    ) as cell:
        assert cell.end(400) == 0, cell.told
    verdict = cell.verdict
    # The golden was recorded on one machine.
    assert "compared bit for bit" in verdict["provenance"]["golden"]
    assert all(
        check["passed"] and check["kind"] == "exact"
        for check in verdict["checks"]
        if check["metric"] == "lm loss"
    )
    assert nodes(cell) == {"interrupted": ["n1", "n2"], "resumed": ["n2", "n3"]}
    assert verdict["provenance"]["nodes"]["moved"] == "no rank came back to the node of the phase before"


def test_a_script_is_one_torchrun_a_node(cluster: Cluster, tmp_path: Path) -> None:
    with Cell(cluster, scripted(tmp_path), ("--golden-update",)) as cell:
        assert cell.end(300) == 1, cell.told  # it has recorded
    assert all(check["passed"] for check in cell.verdict["checks"] if check["against"] != "golden"), cell.told
    logs = [*cell.results.glob("*/*/*/resumed/logs/*.log")]
    assert sorted(path.name for path in logs) == ["trainer.log", "trainer_1.log"]
    said = "".join(path.read_text() for path in logs)
    assert all(f"rank {rank} of 4 has ended at 8" in said for rank in range(4))
    assert nodes(cell)["continuous"] == ["n1", "n2"]
    assert nodes(cell)["resumed"][0] != nodes(cell)["interrupted"][0]


def test_a_checkpoint_that_is_on_one_node_only_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    with Cell(cluster, scripted(tmp_path, keep="/dev/shm/kept")) as cell:
        assert cell.end(300) == 1, cell.told
    assert cell.verdict["diagnosis"]["component"] == "checkpoint", cell.told


def test_the_stand_in_for_megatron_is_one_torchrun_a_node(cluster: Cluster, tmp_path: Path) -> None:
    checkout = tmp_path / "megatron"
    checkout.mkdir()
    shutil.copy(ROOT / "tests" / "stand_ins" / "pretrain_gpt.py", checkout)
    case = tmp_path / "cases" / "gpt" / "tiny"
    case.mkdir(parents=True)
    (case / "model_config.yaml").write_text(
        """
TEST_TYPE: ckpt-resume
MODEL_ARGS: {--num-layers: 2, --train-iters: 8, --save-interval: 4, --tensorboard-dir: "${TENSORBOARD_PATH}",
             --save: "${CHECKPOINT_SAVE_PATH}", --load: "${CHECKPOINT_LOAD_PATH}",
             --pipeline-model-parallel-size: 2}
HARNESS: {trainer: {cpu: megatron}, world_size: 2, nodes: 2}
"""
    )
    words = ("--megatron-lm", str(checkout), "--golden-update")
    with Cell(cluster, tmp_path, words) as cell:
        assert cell.end(300) == 1, cell.told  # it has recorded
    assert all(check["passed"] for check in cell.verdict["checks"] if check["against"] != "golden"), cell.told
    assert nodes(cell)["continuous"] == ["n1", "n2"]
    assert nodes(cell)["resumed"] == ["n2", "n3"]


def test_an_interrupt_gives_the_nodes_back(cluster: Cluster, tmp_path: Path) -> None:
    with Cell(cluster, tiny(tmp_path, iterations=100_000)) as cell:
        trained(cell)
        assert cluster.queue()
        cell.process.send_signal(signal.SIGINT)
        assert cell.end(60) == 130
        assert not cluster.queue()
    assert "nothing is left running" in cell.told


def test_an_interrupt_while_it_waits_leaves_the_queue(cluster: Cluster, tmp_path: Path) -> None:
    with cluster.popen("srun", "-N3", "--exclusive", "sleep", "600") as holder:
        try:
            cluster.wait("the nodes are taken", lambda: "RUNNING" in cluster.queue().values())
            with Cell(cluster, tiny(tmp_path)) as cell:
                cell.until("waiting for 3 nodes: job ")
                cell.process.send_signal(signal.SIGINT)
                assert cell.end(60) == 130
                assert len(cluster.queue()) == 1
        finally:
            os.killpg(holder.pid, signal.SIGTERM)


def test_a_preempted_cell_was_not_run(cluster: Cluster, tmp_path: Path) -> None:
    with Cell(cluster, tiny(tmp_path, iterations=100_000)) as cell:
        trained(cell)
        began = time.monotonic()
        assert cluster.call("srun", "-N3", "--partition=urgent", "--exclusive", "true").returncode == 0
        assert cell.end(60) == 3, cell.told
    assert time.monotonic() - began < 60
    assert cell.verdict["status"] == "skipped"
    assert "was preempted" in cell.verdict["message"]


def test_more_nodes_than_there_are(cluster: Cluster, tmp_path: Path) -> None:
    with Cell(cluster, tiny(tmp_path), ("--nodes", "4")) as cell:
        assert cell.end(60) == 2
    assert "2 ranks are not the same number on each" in cell.told
    with Cell(cluster, tiny(tmp_path / "more"), ("--slurm-option=--partition=nowhere",)) as cell:
        assert cell.end(60) == 2
    assert "salloc gives no 3 nodes" in cell.told
    assert "nowhere" in cell.told or "partition" in cell.told
    assert not cluster.queue()


@pytest.mark.parametrize(
    "words", [("--no-rotation",), ("--new-job-per-phase",)], ids=["no-rotation", "new-job"]
)
def test_where_the_phases_run_is_said(cluster: Cluster, tmp_path: Path, words: tuple[str, ...]) -> None:
    with Cell(cluster, tiny(tmp_path), (*words, "--golden-update")) as cell:
        assert cell.end(200) == 1, cell.told
    found = cell.verdict["provenance"]["nodes"]
    jobs = {one["job"] for one in found["phases"].values()}
    if "--no-rotation" in words:
        assert len(jobs) == 1
        assert found["moved"] == "ranks came back to the node of the phase before"
    else:
        assert len(jobs) == len(found["phases"]) > 1
        assert found["moved"].startswith("each phase had a job of its own")
