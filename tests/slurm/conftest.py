"""One cluster for all tests, as whole and as quiet before each as it was at first."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing
from tests.slurm.configuration import HEAD

ROOT = Path(__file__).parents[2]
#: What belongs to a machine, and not to a job.
_DAEMONS = re.compile(r"(slurmctld|: slurmscriptd|slurmd|slurmstepd|munged|bindfs)\b")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes that see the tests' folders, this Python and this repository."""
    if why := missing():
        pytest.skip(why)  # a failure where CI is set, see tests/conftest.py
    shared = [tmp_path_factory.getbasetemp(), ROOT, Path(sys.prefix), Path(sys.base_prefix)]
    with Cluster(tmp_path_factory.mktemp("slurm"), shared=shared) as made:
        print(f"{len(made.names)} nodes after {made.seconds:.2f} s")
        yield made


@pytest.fixture(autouse=True)
def quiet(cluster: Cluster) -> Iterator[None]:
    """After each test: all nodes are there and idle, no job is left; a process that is left is a failure."""
    yield
    broken = cluster.repair()
    if queue := cluster.queue():
        cluster.call("scancel", "--full", "--signal=KILL", *queue)
        cluster.call("scancel", *queue)  # what waits to be started again has no process to kill
    cluster.wait("the queue is empty", lambda: not cluster.queue(), 60)
    cluster.wait("all nodes idle", lambda: {*cluster.states().values()} == {"idle"}, 60 if broken else 30)
    found = left_behind(cluster)
    for machine in found.values():
        for pid in machine:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert not found, f"the test has left processes: {found}"


def left_behind(cluster: Cluster, seconds: float = 3) -> dict[str, dict[int, str]]:
    """What runs on each machine and is no daemon, after some time to end; machines without are left out."""

    def strangers() -> dict[str, dict[int, str]]:
        every = {name: cluster.commands(name) for name in (HEAD, *cluster.names)}
        return {
            name: found
            for name, commands in every.items()
            if (found := {pid: command for pid, command in commands.items() if not _DAEMONS.match(command)})
        }

    with contextlib.suppress(TimeoutError):
        cluster.wait("no process is left", lambda: not strangers(), seconds)
    return strangers()
