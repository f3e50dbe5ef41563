"""``harness sweep`` on a real Slurm: arrays, their verdicts, what it cancels, whom it suspects."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
import yaml

from harness.matrix import Cell
from harness.sweep.environments import LATE
from harness.text import utc_now
from harness.verdict import Run, Verdict
from tests.slurm import cells
from tests.slurm.cluster import Cluster
from tests.slurm.sweeps import (
    CPUS,
    EVERYWHERE,
    ROOT,
    Sweep,
    case,
    environment,
    golden,
    record,
    repository,
)

NAMES = ("a", "b", "c", "d", "e", "f")


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A golden for every case."""
    return record(tmp_path_factory.mktemp("golden"))


def test_an_array_of_six_cells_with_a_bad_one(cluster: Cluster, tmp_path: Path, recorded: Path) -> None:
    for name in NAMES:
        case(repository(tmp_path), name, bad=EVERYWHERE if name == "c" else ())
    golden(tmp_path, recorded)
    with Sweep(cluster, tmp_path, ["--at-most", "4"]) as sweep:
        status = sweep.end()
    assert status == 1, sweep.said
    assert "6 cells in 1 job array, named harness-" in sweep.said
    assert sweep.said.splitlines()[-2].startswith("6 cells: 5 passed, 1 failed"), sweep.said
    for name in NAMES:
        verdict = sweep.verdict(name)
        assert verdict["status"] == ("failed" if name == "c" else "passed"), (name, verdict["message"])
        assert verdict["provenance"]["host"] in cluster.names
    assert sweep.verdict("c")["diagnosis"]["component"] == "optimizer"
    assert "suspect" not in sweep.said  # one red cell says nothing of its machine
    assert cluster.queue() == {}
    # Whoever reads results sees nothing else than what `harness run` leaves.
    done = subprocess.run(
        [sys.executable, "-m", "harness", "status", "results"],
        cwd=tmp_path, env={**os.environ, **environment()}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "5 passed, 1 failed" in done.stdout


def test_an_interrupt_cancels_all_and_waits_until_they_are_gone(cluster: Cluster, tmp_path: Path) -> None:
    for name in NAMES:
        case(repository(tmp_path), name, pause=5)
    with Sweep(cluster, tmp_path, ["--at-most", "2"]) as sweep:
        sweep.begun("a")
        assert cluster.queue()
        sweep.process.send_signal(signal.SIGINT)
        status = sweep.end(100)
        assert cluster.queue() == {}
    assert status == 130, sweep.said
    assert "are cancelled" in sweep.said
    assert not (sweep.folder("a") / "verdict.json").exists()


def test_a_cancelled_workflow_leaves_nothing_in_the_queue(cluster: Cluster, tmp_path: Path) -> None:
    for name in NAMES:
        case(repository(tmp_path), name, pause=5)
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "cluster.yml").read_text())
    (text,) = (one["run"] for one in workflow["jobs"]["cluster"]["steps"] if one.get("id") == "sweep")
    (tmp_path / "step.sh").write_text(text)
    program = tmp_path / ".venv" / "bin" / "harness"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m harness "$@"\n')
    program.chmod(0o755)
    shell = cluster.popen(
        "bash", "--noprofile", "--norc", "-eo", "pipefail", "step.sh", cwd=tmp_path,
        RUNNER_TEMP=str(tmp_path), HARDWARE="cpu", TRACKS="here",
        OPTIONS=f"--slurm-option=--cpus-per-task={CPUS}", **environment(),
    )  # fmt: skip
    try:
        cluster.wait("a task runs", lambda: "RUNNING" in cluster.queue().values(), 120)
        shell.send_signal(signal.SIGINT)  # as GitHub's runner: the shell that it started, nobody else
        said, _ = shell.communicate(timeout=100)
    finally:
        shell.kill()
        shell.communicate()
    assert cluster.queue() == {}
    assert shell.returncode == 130, said
    assert "are cancelled" in said


def test_a_task_that_is_killed_without_a_verdict_is_red(
    cluster: Cluster, tmp_path: Path, recorded: Path
) -> None:
    for name in ("a", "b"):
        case(repository(tmp_path), name, pause=2 if name == "b" else 0)
    golden(tmp_path, recorded)
    with Sweep(cluster, tmp_path, env={"HARNESS_SHARED_WAIT": "12"}) as sweep:
        sweep.begun("b")
        (pid,) = [pid for host in cluster.names for pid in cluster.pids(host, r"-m harness run b ")]
        os.kill(pid, signal.SIGKILL)
        status = sweep.end()
    assert status == 4, sweep.said
    verdict = sweep.verdict("b")
    assert verdict["status"] == "error"
    assert "FAILED" in verdict["message"]
    assert verdict["provenance"]["host"] in verdict["message"]
    assert verdict["reproduce"].startswith("harness run b --hardware cpu --track here")
    assert sweep.verdict("a")["status"] == "passed"
    assert "left no verdict" in sweep.said


def test_a_verdict_that_the_folder_shows_late_is_waited_for(
    cluster: Cluster, tmp_path: Path, recorded: Path
) -> None:
    case(repository(tmp_path), "b", pause=2)
    golden(tmp_path, recorded)
    with Sweep(cluster, tmp_path) as sweep:
        run = sweep.begun("b")["id"]
        (pid,) = [pid for host in cluster.names for pid in cluster.pids(host, r"-m harness run b ")]
        os.kill(pid, signal.SIGKILL)
        cluster.wait("the task is gone", lambda: not cluster.queue(), 60)
        time.sleep(LATE + 4)
        assert sweep.process.poll() is None
        cell = Cell("cpu", "here", "b")
        late = Verdict(cell.id, "skipped", (), None, {}, {}, "", "late", Run(run, utc_now(), utc_now()))
        late.write(sweep.folder("b") / "verdict.json")
        status = sweep.end()
    assert status == 3, sweep.said


def test_a_node_on_which_all_red_cells_were_is_suspected(
    cluster: Cluster, tmp_path: Path, recorded: Path
) -> None:
    for name in NAMES:
        case(repository(tmp_path), name, bad=["n2"])
    golden(tmp_path, recorded)
    with Sweep(cluster, tmp_path) as sweep:
        status = sweep.end()
    assert status == 1, sweep.said
    assert "n2: 2 of 2 cells red, 0 of 4 elsewhere" in sweep.said, sweep.said


def test_a_preempted_task_is_neither_red_nor_green(cluster: Cluster, tmp_path: Path, recorded: Path) -> None:
    case(repository(tmp_path), "a", pause=2)
    golden(tmp_path, recorded)
    with Sweep(cluster, tmp_path) as sweep:
        sweep.begun("a")
        urgent = cluster.popen("srun", "--partition=urgent", "--nodes=3", "--exclusive", "sleep", "2")
        status = sweep.end()
        urgent.communicate(timeout=60)
    assert status == 3, sweep.said
    verdict = sweep.verdict("a")
    assert verdict["status"] == "skipped", verdict
    assert "PREEMPTED" in verdict["message"]


def test_a_preempted_task_begins_anew_where_that_was_asked_for(
    cluster: Cluster, tmp_path: Path, recorded: Path
) -> None:
    case(repository(tmp_path), "a", pause=1)
    golden(tmp_path, recorded)
    with Sweep(cluster, tmp_path, ["--requeue"]) as sweep:
        first = sweep.begun("a")
        urgent = cluster.popen("srun", "--partition=urgent", "--nodes=3", "--exclusive", "sleep", "2")
        second = sweep.begun("a", restart=1, seconds=200)
        status = sweep.end()
        urgent.communicate(timeout=60)
    assert status == 0, sweep.said
    assert first["job"] == second["job"]
    assert first["id"] != second["id"] == sweep.verdict("a")["run"]["id"]


def test_what_slurm_refuses_is_one_sentence_and_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    case(repository(tmp_path), "a")
    with Sweep(cluster, tmp_path, ["--slurm-option=--partition=nowhere"]) as sweep:
        status = sweep.end()
    assert status == 2, sweep.said
    assert len(sweep.said.splitlines()) == 1, sweep.said
    assert "invalid partition specified: nowhere" in sweep.said
    assert not (tmp_path / "results" / ".sweep").exists()


_NOXFILE = """
import nox
from harness.environment import tell_python

@nox.session(name="case(cpu)", tags=["cpu", "dev"], venv_backend="venv")
@nox.parametrize("track,case", [nox.param("dev", name, id=f"dev,{name}", tags=[name]) for name in "ab"])
def cell(session, track, case):
    tell_python(session, ("pytest",))
    session.run("python", "-c", "raise SystemExit('not with --install-only')")
"""


def test_the_environment_of_a_track_is_made_once_by_a_job_before_its_cells(
    cluster: Cluster, tmp_path: Path
) -> None:
    for name in "ab":
        case(repository(tmp_path), name)
    (tmp_path / "pyproject.toml").write_text(
        "[tool.harness.tracks]\ndev = {}\n[dependency-groups]\ndev = []\n"
    )
    (tmp_path / "noxfile.py").write_text(_NOXFILE)
    # What is installed here, for an environment in which nothing is.
    path = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    with Sweep(cluster, tmp_path, ["--track", "dev"], env={"PYTHONPATH": path}) as sweep:
        status = sweep.end()
    assert status == 1, sweep.said  # they have no golden
    assert sweep.said.count("environment of cpu/dev") == 1
    assert len([*(tmp_path / ".nox").glob("*/bin/python")]) == 1
    (sheet,) = tmp_path.glob("results/.sweep/*/0.json")
    (python,) = (tmp_path / ".nox").glob("*/bin/python")
    assert f'"python": "{python}"' in sheet.read_text()
    assert "2 cells: 2 failed" in sweep.said


def test_a_track_whose_environment_cannot_be_made_is_refused_with_its_last_words(
    cluster: Cluster, tmp_path: Path
) -> None:
    case(repository(tmp_path), "a")
    (tmp_path / "pyproject.toml").write_text(
        "[tool.harness.tracks]\ndev = {}\n[dependency-groups]\ndev = []\n"
    )
    text = _NOXFILE.replace('tell_python(session, ("pytest",))', 'session.error("no such wheel")')
    (tmp_path / "noxfile.py").write_text(text)
    with Sweep(cluster, tmp_path, ["--track", "dev", "a"]) as sweep:
        status = sweep.end()
    assert status == 2, sweep.said
    (path,) = tmp_path.glob("results/cpu/dev/a/verdict.json")
    assert "environment of cpu/dev could not be made" in path.read_text()


def test_a_cell_of_two_nodes_has_three_and_no_rank_comes_back(cluster: Cluster, tmp_path: Path) -> None:
    cells.tiny(tmp_path)
    words = ["--cases", "cases", "--track", "dev", "--run-option=--protocol=full"]
    with Sweep(cluster, tmp_path, words) as sweep:
        status = sweep.end()
    assert status == 1, sweep.said  # it has no golden
    (path,) = tmp_path.glob("results/cpu/dev/tiny/verdict.json")
    assert "no rank came back to a node that it had been on" in path.read_text(), path.read_text()
    assert "resuming is sound" in sweep.said
