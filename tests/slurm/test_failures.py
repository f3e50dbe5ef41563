"""What is cut, killed or switched off under a cell on two nodes is named, and nothing of it is left."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.cells import Cell, tiny, trained
from tests.slurm.cluster import Cluster

AGENT = r"harness\.launch\.agent"


def ranks(cluster: Cluster, node: str) -> list[int]:
    """The processes of an agent and of its ranks, the agent first."""
    return sorted(cluster.pids(node, AGENT))


def kill_rank(cluster: Cluster, cell: Cell) -> None:
    os.kill(ranks(cluster, "n2")[-1], signal.SIGKILL)


def stop_rank(cluster: Cluster, cell: Cell) -> None:
    os.kill(ranks(cluster, "n2")[-1], signal.SIGSTOP)


def switch_off(cluster: Cluster, cell: Cell) -> None:
    cluster.switch_off("n2")


def cut(cluster: Cluster, cell: Cell) -> None:
    cluster.cut("n2")


def kill_stepd(cluster: Cluster, cell: Cell) -> None:
    for pid in cluster.pids("n2", r"^slurmstepd"):
        os.kill(pid, signal.SIGKILL)


def kill_srun(cluster: Cluster, cell: Cell) -> None:
    for pid in cluster.pids("head", r"^srun "):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (kill_rank, r"continuous: rank 1 was killed by SIGKILL after iteration \d+, on n2"),
        (stop_rank, r"continuous: rank 1 gave no sign of life for \d+ s \(last iteration \d+\), on n2"),
        (switch_off, r"continuous: the trainer lost its node n2: nothing was heard of it for 15 s"),
        (cut, r"continuous: the trainer lost its node n2: nothing was heard of it for 15 s"),
        (kill_stepd, r"continuous: the trainer lost its node n2: nothing was heard of it for 15 s"),
        (kill_srun, r"continuous: the trainer lost srun, killed by SIGKILL"),
    ],
    ids=lambda one: one.__name__ if callable(one) else "",
)
def test_a_failure_is_named(
    cluster: Cluster, tmp_path: Path, harm: Callable[[Cluster, Cell], None], named: str
) -> None:
    words = ("--heartbeat-timeout", "10") if harm is stop_rank else ()
    with Cell(cluster, tiny(tmp_path, iterations=100_000), words) as cell:
        trained(cell)
        began = time.monotonic()
        harm(cluster, cell)
        status = cell.end()
        took = time.monotonic() - began
    print(f"{harm.__name__}: {took:.1f} s\n{cell.told}")
    assert status == 4, cell.told
    assert re.search(named, cell.verdict["provenance"]["error"]), cell.told
    assert not cluster.queue()
