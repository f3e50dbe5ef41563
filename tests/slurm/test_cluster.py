"""The cluster itself: what the other tests take for granted of it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm import rank
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import ROOT, left_behind

TWO_NODES = ("srun", "--nodes=2", "--nodelist=n1,n2", "--label")
TALK = str(Path(rank.__file__).with_name("talk.py"))


def talking(cluster: Cluster) -> subprocess.Popen[str]:
    """A job of a task on each of two nodes, once one has heard the other."""
    process = cluster.popen(*TWO_NODES, sys.executable, TALK, FIRST="n1")
    heard(process, "line 3")
    return process


def heard(process: subprocess.Popen[str], pattern: str) -> str:
    """What it has said up to a line that a pattern finds."""
    said = ""
    assert process.stdout
    for line in process.stdout:
        said += line
        if re.search(pattern, line):
            return said
    raise AssertionError(f"it never said {pattern}: {said}")


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is gone afterwards, also when a test fails."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def script(folder: Path, text: str) -> str:
    (folder / "job.sh").write_text(f"#!/bin/sh\n{text}\n")
    return str(folder / "job.sh")


def test_ranks_on_two_nodes_meet_over_gloo_each_bound_to_a_gpu(cluster: Cluster) -> None:
    bound = ("--ntasks=4", "--ntasks-per-node=2", "--gpus-per-task=1")
    words = (*TWO_NODES, *bound, sys.executable, str(rank.__file__))
    with ended(cluster.popen(*words, FIRST="n1", STEPS="5", OMP_NUM_THREADS="1")) as process:
        said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said
    places = sorted(re.findall(r"rank \d of 4 on \w+: GPU \d", said))
    assert places == [f"rank {i} of 4 on n{1 + i // 2}: GPU {i % 2}" for i in range(4)]
    assert "step 4\n" in said


def test_a_machine_sees_the_folders_that_are_shared_and_has_a_tmp_and_a_shm_of_its_own(
    cluster: Cluster, tmp_path: Path
) -> None:
    write = 'echo "$(hostname)" | tee /tmp/own /dev/shm/own > "$1/$(hostname)"'
    assert cluster.call("srun", "--nodes=3", "sh", "-c", write, "sh", str(tmp_path)).returncode == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        n: f"{n}\n" for n in cluster.names
    }
    read = cluster.call("srun", "--nodes=3", "--label", "cat", "/tmp/own", "/dev/shm/own").stdout
    assert sorted(read.splitlines()) == [f"{i}: n{i + 1}" for i in range(3) for _ in range(2)]
    assert cluster.call("ls", "/tmp/own", "/dev/shm/own").returncode == 2
    assert not os.path.exists("/dev/shm/own")
    assert cluster.call("hostname").stdout == "head\n"


def test_a_signal_reaches_a_command_on_the_head_and_its_status_comes_back(cluster: Cluster) -> None:
    text = "import os, signal; print(os.getppid()); signal.sigwait({signal.SIGTERM}); exit(7)"
    text = f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGTERM}}); {text}"
    process = cluster.popen(sys.executable, "-uc", text)
    assert heard(process, r"^\d+$") == "0\n"  # its parent is outside the head's namespace of processes
    assert cluster.pids("head", "sigwait") == [process.pid]
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 7


def test_the_prefix_leads_to_the_head_and_what_it_runs_ends_with_it(cluster: Cluster) -> None:
    words = [
        *cluster.prefix(),
        "sh",
        "-c",
        "hostname; sinfo --noheader --partition=main --format=%D; exec sleep 321",
    ]
    with ended(subprocess.Popen(words, stdout=subprocess.PIPE, text=True)) as process:
        assert heard(process, "^3$") == "head\n3\n"
        cluster.wait("sleep runs", lambda: cluster.pids("head", "^sleep 321"))
        process.terminate()
        process.wait(10)
    cluster.wait("sleep is gone", lambda: not cluster.pids("head", "sleep 321"), 5)


def test_a_node_that_is_switched_off_ends_the_job_and_comes_back(cluster: Cluster) -> None:
    with ended(talking(cluster)) as process:
        assert len(cluster.pids("n2", re.escape(TALK))) == 1
        cluster.switch_off("n2")
        assert cluster.pids("n2", "") == []
        said, _ = process.communicate(timeout=60)
    assert process.returncode, said  # of the task that has lost its peer, or of the node
    cluster.wait("n2 is down", lambda: cluster.states()["n2"].startswith("down"), 60)
    assert cluster.states()["n3"] == "idle"
    cluster.start("n2")
    cluster.wait("n2 is idle", lambda: cluster.states()["n2"] == "idle", 60)
    assert cluster.call("srun", "--nodelist=n2", "hostname").stdout == "n2\n"


def test_a_cable_that_is_pulled_is_silence_and_mended_the_node_is_back(cluster: Cluster) -> None:
    with ended(talking(cluster)) as process:
        cluster.cut("n2")
        time.sleep(1)
        assert process.poll() is None  # nothing is reset, and nobody knows
        assert len(cluster.pids("n1", re.escape(TALK))) == len(cluster.pids("n2", re.escape(TALK))) == 1
        said, _ = process.communicate(timeout=60)
    assert "Node failure on n2" in said  # its exit status may be 0
    cluster.mend("n2")
    cluster.wait("n2 is idle", lambda: cluster.states()["n2"] == "idle", 60)
    assert cluster.call("srun", "--nodelist=n2", "hostname").stdout == "n2\n"


def test_an_array_that_is_waited_for_ends_with_the_highest_status(cluster: Cluster, tmp_path: Path) -> None:
    job = script(tmp_path, "exit $((SLURM_ARRAY_TASK_ID == 2 ? 4 : SLURM_ARRAY_TASK_ID == 3 ? 3 : 0))")
    out = f"--output={tmp_path}/%a.log"
    assert cluster.call("sbatch", "--wait", "--array=0-4%3", out, job).returncode == 4
    assert cluster.call("sbatch", "--wait", "--array=0-1", out, job).returncode == 0


def test_a_job_that_is_preempted_is_told_and_starts_again(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = script(
        tmp_path,
        'echo "start ${SLURM_RESTART_COUNT:-0}"\n[ -n "$SLURM_RESTART_COUNT" ] && exit\n'
        "srun sh -c 'trap \"echo told; exit\" TERM; sleep 300 & wait'\nexec sleep 300",
    )
    words = ("sbatch", "--parsable", "--nodes=3", "--exclusive")
    number = cluster.call(*words, "--open-mode=append", f"--output={log}", job).stdout.strip()
    cluster.wait("it runs", lambda: log.exists() and "start 0" in log.read_text())
    cluster.wait("its steps run", lambda: all(cluster.pids(name, "sleep 300") for name in cluster.names))
    urgent = cluster.call("srun", "--partition=urgent", "--nodes=1", "hostname")
    assert urgent.stdout in {f"{name}\n" for name in cluster.names}, urgent.stderr
    cluster.wait("it is over", lambda: cluster.job(number)["JobState"] == "COMPLETED", 60)
    assert cluster.job(number)["Restarts"] == "1"
    assert log.read_text().count("told") >= 1
    assert log.read_text().endswith("start 1\n")


def test_a_process_that_a_job_has_left_is_found(cluster: Cluster) -> None:
    assert left_behind(cluster) == {}
    assert (
        cluster.call("srun", "--nodelist=n3", "sh", "-c", "setsid sleep 654 > /dev/null 2>&1 &").returncode
        == 0
    )
    assert cluster.pids("n3", "^sleep 654$")
    (commands,) = left_behind(cluster, 0.5).values()
    ((pid, command),) = commands.items()
    assert command == "sleep 654"
    os.kill(pid, signal.SIGKILL)
    assert left_behind(cluster) == {}


def test_waiting_for_a_dead_daemon_ends_with_its_log(cluster: Cluster) -> None:
    (slurmd,) = cluster.pids("n3", "^slurmd ")
    os.kill(slurmd, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"(?s)n3 is dead .*waiting for: a miracle\n.*n3\.out:\n"):
        cluster.wait("a miracle", lambda: False)
    assert cluster.repair() == ["n3"]
    with pytest.raises(TimeoutError, match=r"not in 0\.2 s: a miracle; nodes: .*'n3': "):
        cluster.wait("a miracle", lambda: False, 0.2)


def by_hand(folder: Path) -> tuple[subprocess.Popen[str], list[str]]:
    words = [sys.executable, "-m", "tests.slurm.cluster", str(folder), "1", str(folder.parent)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    return process, heard(process, "^export SLURM_CONF=").splitlines()


def mentioning(word: str) -> list[str]:
    done = subprocess.run(["ps", "-wweo", "args="], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if word in line]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_by_hand_it_runs_until_it_is_ended_and_leaves_no_process(
    cluster: Cluster, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / f"by-hand-{number}"
    asleep = ["sleep", f"500.{os.getpid()}"]  # another's may be on this machine
    for _ in range(2):  # the folder of one that is gone is taken
        process, (_, prefix, _) = by_hand(folder)
        job = subprocess.Popen([*prefix.split(), "srun", *asleep], stderr=subprocess.PIPE, text=True)
        with ended(process), ended(job):
            cluster.wait("the job runs", lambda: any(line[0] == "/" for line in mentioning(asleep[1])))
            assert mentioning(f"{folder}/munge")
            process.send_signal(number)
            assert process.wait(20) == (0 if number == signal.SIGTERM else -number)
            job.wait(20)
        cluster.wait("nothing is left", lambda: not mentioning(str(folder)) + mentioning(asleep[1]), 10)


def test_a_folder_with_files_is_not_replaced(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with (
        pytest.raises(FileExistsError, match="found files, expected an empty folder or a cluster's"),
        Cluster(tmp_path),
    ):
        pass
    assert (tmp_path / "mine").exists()


def test_what_is_late_is_seen_after_some_seconds(cluster: Cluster, tmp_path: Path) -> None:
    if not shutil.which("bindfs") or not os.path.exists("/dev/fuse"):
        pytest.skip(
            "missing hardware: a slow file system; bindfs (apt-get install bindfs) emulates it on /dev/fuse"
        )
    shared = tmp_path / "shared"
    shared.mkdir()
    look = (
        f"cat {shared}/file; echo looked; until [ -e {shared}/file ]; do sleep 0.1; done; cat {shared}/file"
    )
    with Cluster(tmp_path / "cluster", nodes=1, shared=[shared], late=True) as late:
        with ended(late.popen("srun", "sh", "-c", look)) as process:
            heard(process, "^looked$")
            (shared / "file").write_text("new")
            began = time.monotonic()
            assert late.call("cat", str(shared / "file")).stdout == "new"  # the head is not late
            said, _ = process.communicate(timeout=20)
        assert said == "new"
        assert time.monotonic() - began > 1
