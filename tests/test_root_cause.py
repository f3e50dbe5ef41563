"""Which rank failed first, and of what: under the real torchrun, and in logs as launchers leave them."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import time
from pathlib import Path

import pytest

from harness.errors import TrainerFailed
from harness.launch import root_cause
from harness.launch.root_cause import RootCause
from harness.text import one_line
from harness.trainers.base import Launch
from tests.launching import run_phase

BOOM = "ValueError: loaded state dict contains a parameter group that doesn't match"
GONE = "RuntimeError: [pair.cc:553] Connection closed by peer [127.0.0.1]:28340"


# -- the real launcher -------------------------------------------------------------------------


def torchrun(tmp_path: Path, script: str, *options: str, logs: bool = True, **env: str) -> TrainerFailed:
    """Two real ranks of a script that fails."""
    path = tmp_path / "train.py"
    path.write_text("import os, sys, time\nRANK = int(os.environ['RANK'])\n" + textwrap.dedent(script))
    kept = ["--log-dir", str(tmp_path / "out" / "logs" / "1"), "--tee", "0:3", "--redirects", "3"]
    launch = Launch(
        kind="exec",
        world_size=2,
        argv=(
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
            *(kept if logs else []), *options, str(path),
        ),
        env=env,
        cwd=tmp_path,
    )  # fmt: skip
    with pytest.raises(TrainerFailed) as caught:
        run_phase(launch, phase="resumed", folder=tmp_path / "out")
    return caught.value


@pytest.mark.torch
@pytest.mark.parametrize("logs", [True, False])
def test_a_rank_that_is_told_of_a_peers_end_by_gloo_is_not_blamed(tmp_path: Path, logs: bool) -> None:
    script = """
        import torch, torch.distributed as dist
        from torch.distributed.elastic.multiprocessing.errors import record

        @record
        def main():
            dist.init_process_group("gloo")
            one = torch.ones(1)
            dist.all_reduce(one)
            if RANK == 1:
                raise ValueError("loaded state dict is another's, TOKEN-OF-MINE")
            while True:
                dist.all_reduce(one)

        main()
    """
    failed = torchrun(tmp_path, script, logs=logs, MY_TOKEN="TOKEN-OF-MINE")
    assert (failed.rank, failed.reason) == (1, "failed: ValueError: loaded state dict is another's, ***")
    assert failed.raised is not None
    assert f"raised in main ({tmp_path}/train.py:13)" in " ".join(failed.evidence)
    log = Path(failed.log)
    assert (log.name, log.parent.name) == (("stderr.log", "1") if logs else ("trainer.log", "logs"))
    assert "loaded state dict" in log.read_text()


@pytest.mark.torch
def test_a_rank_that_is_killed_is_blamed(tmp_path: Path) -> None:
    script = "if RANK == 1:\n    os.kill(os.getpid(), 9)\ntime.sleep(100)\n"
    failed = torchrun(tmp_path, script)
    assert (failed.rank, failed.reason) == (1, "was killed by SIGKILL, perhaps out of memory")


@pytest.mark.torch
def test_the_rank_that_the_launcher_saw_first_may_only_have_been_told(tmp_path: Path) -> None:
    """Rank 1 fails, and takes its time to end; rank 0 is gone sooner, and is torchrun's root cause."""
    script = """
        import atexit
        here = os.path.dirname(os.path.abspath(__file__))
        if RANK == 1:
            atexit.register(time.sleep, 100)
            atexit.register(open, here + "/failed", "w")
            raise KeyError("optimizer")
        while not os.path.exists(here + "/failed"):
            time.sleep(0.05)
        raise RuntimeError("Connection closed by peer")
    """
    failed = torchrun(tmp_path, script)
    assert "Connection closed" not in failed.reason
    assert (failed.rank, failed.reason) == (1, "failed: KeyError: 'optimizer'")


@pytest.mark.torch
def test_of_several_attempts_the_last_is_told_and_the_first_beside_it(tmp_path: Path) -> None:
    script = """
        if RANK == 0:
            time.sleep(100)
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            raise KeyError("the first")
        print("argument --lr: it is none", file=sys.stderr)
        sys.exit(2)
    """
    failed = torchrun(tmp_path, script, "--max-restarts", "1")
    assert failed.rank == 1
    assert failed.reason == (
        "exited with status 2 without a traceback; its log ends with: argument --lr: it is none"
    )
    assert "attempt_1/1/stderr.log" in failed.log
    said = " ".join(failed.evidence)
    assert "started its ranks 2 times" in said
    assert "rank 1 failed: KeyError: 'the first'; its log: " in said


@pytest.mark.torch
def test_a_script_that_is_not_there_is_told(tmp_path: Path) -> None:
    failed = torchrun(tmp_path, "", "--no-python")  # which makes it the program, and it is none
    assert "train.py" in failed.reason
    assert "Permission denied" in failed.reason


# -- what they leave behind --------------------------------------------------------------------


def traceback(words: str, line: int = 5) -> str:
    place = f'  File "train.py", line {line}, in main'
    return f"Traceback (most recent call last):\n{place}\n    step()\n{words}\n"


def rank(folder: Path, number: int, stderr: str, attempt: int = 0, **files: str) -> Path:
    path = folder / "logs" / "1" / "none_x" / f"attempt_{attempt}" / str(number)
    path.mkdir(parents=True)
    (path / "stderr.log").write_text(stderr, errors="surrogateescape")
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text)
    return path


def report(*failures: tuple[int, int, str], root: int = 0) -> str:
    """Torchrun's, of (rank, exit code, error file)."""

    def entry(at: int) -> str:
        number, code, file = failures[at]
        return (
            f"[{at}]:\n  time      : 2026-11-27_16:09:10\n  host      : node\n"
            f"  rank      : {number} (local_rank: {number})\n  exitcode  : {code} (pid: {100 + number})\n"
            f"  error_file: {file}\n  traceback : To enable traceback see: https://pytorch.org\n"
        )

    others = "".join(entry(at) for at in range(len(failures)) if at != root)
    return (
        f"{'=' * 60}\ntrain.py FAILED\n{'-' * 60}\nFailures:\n{others}{'-' * 60}\n"
        f"Root Cause (first observed failure):\n{entry(root)}{'=' * 60}\n"
    )


def read(folder: Path, log: str, *, killed: int = 0, status: int = 1) -> RootCause:
    folder.mkdir(exist_ok=True)
    (folder / "trainer.log").write_text(log, errors="surrogateescape")
    return root_cause.of_command(folder, folder / "trainer.log", one_line, killed=killed, status=status)


@pytest.mark.parametrize(
    "gone",
    [
        GONE,
        "torch.distributed.DistBackendError: NCCL communicator was aborted on rank 0.",
        "BrokenPipeError: [Errno 32] Broken pipe",
        "RuntimeError: Process group has been aborted",
        "ConnectionResetError: [Errno 104] Connection reset by peer",
        "torch.distributed.elastic.multiprocessing.api.SignalException: Process 3 got signal: 15",
    ],
)
def test_whichever_the_launcher_names_a_secondary_failure_is_not_the_cause(tmp_path: Path, gone: str) -> None:
    rank(tmp_path, 0, traceback(gone))
    rank(tmp_path, 1, traceback(BOOM))
    for root in (0, 1):
        found = read(tmp_path, report((0, 1, "<N/A>"), (1, 1, "<N/A>"), root=root))
        assert (found.rank, found.reason) == (1, f"failed: {BOOM}")
        assert found.log.parent.name == "1"


def test_folders_of_ranks_without_their_words_do_not_hide_the_log_that_all_share(tmp_path: Path) -> None:
    for number in (0, 1):
        rank(tmp_path, number, "")
    lines = "".join(f"[rank1]: {line}\n" for line in traceback(BOOM).splitlines())
    found = read(tmp_path, lines + report((0, 1, "<N/A>"), (1, 1, "<N/A>")))
    assert (found.rank, found.reason) == (1, f"failed: {BOOM}")


def test_ranks_of_a_second_node_are_numbered_from_its_first(tmp_path: Path) -> None:
    rank(tmp_path, 1, traceback(BOOM))
    found = root_cause.of_command(tmp_path, tmp_path / "trainer_1.log", one_line, status=1, first=2)
    assert (found.rank, found.reason) == (3, f"failed: {BOOM}")
    log = "".join(f"[default0]:{line}\n" for line in traceback(BOOM).splitlines())
    (tmp_path / "trainer_1.log").write_text(log)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    found = root_cause.of_command(elsewhere, tmp_path / "trainer_1.log", one_line, status=1, first=2)
    assert (found.rank, found.reason) == (2, f"failed: {BOOM}")


def test_where_no_log_knows_the_cause_none_is_named(tmp_path: Path) -> None:
    rank(tmp_path, 0, traceback(GONE))
    found = read(tmp_path, report((0, 1, "<N/A>")))
    assert found.reason.startswith("was told that another rank had gone, and no log says why")
    assert found.raised is None


def test_what_a_clean_up_finds_is_not_the_cause(tmp_path: Path) -> None:
    during = "\nDuring handling of the above exception, another exception occurred:\n\n"
    rank(tmp_path, 0, traceback(BOOM) + during + traceback(GONE))
    found = read(tmp_path, report((0, 1, "<N/A>")))
    assert found.reason == f"failed: {BOOM} (then {GONE})"


def test_of_two_of_the_same_kind_the_error_files_times_decide(tmp_path: Path) -> None:
    for number, when in ((0, "1795795842"), (1, "1795795841")):
        extra = {"py_callstack": traceback(f"OSError: of {number}"), "timestamp": when}
        told = {"message": {"message": f"OSError: of {number}", "extraInfo": extra}}
        rank(tmp_path, number, "", error_json=json.dumps(told))
    found = read(tmp_path, "")
    assert (found.rank, found.reason) == (1, "failed: OSError: of 1")
    assert found.log.name == "error.json"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"message": 5}', '{"message": {"message": 5}}', "[" * 100_000, "\0" * 50]
)
def test_an_error_file_that_is_none_is_passed_over(tmp_path: Path, text: str) -> None:
    rank(tmp_path, 1, traceback(BOOM), error_json=text)
    assert read(tmp_path, report((1, 1, "<N/A>"))).reason == f"failed: {BOOM}"


def test_an_exception_that_was_caught_long_before_did_not_end_the_rank(tmp_path: Path) -> None:
    steps = "".join(f"step {step}\n" for step in range(100))
    rank(tmp_path, 0, traceback("ImportError: no apex") + steps)
    rank(tmp_path, 1, traceback("ImportError: no apex") + steps + "it diverged: aborting\n")
    found = read(tmp_path, report((0, -15, "<N/A>"), (1, 3, "<N/A>"), root=1))
    assert found.rank == 1
    assert found.reason == (
        "exited with status 3 without a traceback; its log ends with: it diverged: aborting"
    )


def test_a_rank_that_the_launcher_had_to_kill_is_not_the_cause(tmp_path: Path) -> None:
    rank(tmp_path, 0, "waiting\n")
    rank(tmp_path, 1, traceback(BOOM))
    closing = "W1127 16:09:10.695000 14 api.py:1028] Sending process 100 closing signal SIGTERM\n"
    found = read(tmp_path, closing + report((0, -9, "<N/A>"), (1, 1, "<N/A>")))
    assert found.reason == f"failed: {BOOM}"


def test_ft_launchers_line_and_its_restarts_are_read(tmp_path: Path) -> None:
    for attempt in range(3):
        rank(tmp_path, 0, traceback(GONE), attempt)
        rank(tmp_path, 1, traceback(BOOM), attempt)
    said = (
        "{rank}: ProcessFailure(local_rank={rank}, pid=17, exitcode={code}, error_file='<N/A>', message='')"
    )
    failures = ", ".join(said.format(rank=rank, code=code) for rank, code in ((1, 1), (0, -15)))
    line = f"[ERROR] [ft_launcher16@vm] Some rank(s) exited with non-zero exit code: {{{failures}}}."
    found = read(tmp_path, line)
    assert (found.rank, found.reason) == (1, f"failed: {BOOM}")
    assert "attempt_2" in str(found.log)
    assert "started its ranks 3 times" in " ".join(found.evidence)


@pytest.mark.parametrize(
    ("log", "who", "reason"),
    [
        (traceback(BOOM), None, f"failed: {BOOM}"),
        ("ok\nKilled\n", None, "exited with status 137 (killed by SIGKILL, perhaps out of memory)"),
        ("[launch.py:325] ['python', 'a.py', '--local_rank=1'] exits with return code = -9\n", 1,
         "was killed by SIGKILL, perhaps out of memory"),
        (traceback("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"), None,
         "failed: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"),
        ("\x1b[31m" + traceback("OSError: \x1b[1mboom\x1b[0m \x07\u202e"), None,
         "failed: OSError: boom \\x07\\u202e"),
        (traceback(BOOM) + "\udcff\udcfe\x00 no text\n", None, f"failed: {BOOM}"),
    ],
)  # fmt: skip
def test_a_command_of_ones_own_is_read_from_its_one_log(
    tmp_path: Path, log: str, who: int | None, reason: str
) -> None:
    found = read(tmp_path, log, status=137)
    assert found.rank == who
    assert found.reason.startswith(reason)


def test_a_command_that_was_killed_itself_is_told_so(tmp_path: Path) -> None:
    found = read(tmp_path, "training\n", killed=9, status=0)
    assert found.reason == "was killed by SIGKILL, perhaps out of memory"
    found = read(tmp_path, "Fatal Python error: x\n", killed=11, status=0)
    assert found.reason == "was killed by SIGSEGV; its log ends with: Fatal Python error: x"


def test_a_log_of_gigabytes_is_read_from_its_end(tmp_path: Path) -> None:
    path = rank(tmp_path, 1, "") / "stderr.log"
    with path.open("r+b") as log:
        log.seek(6 << 30)  # sparse
        log.write(("\n" + traceback(BOOM)).encode())
        log.write(b"[rank1]:[W] a farewell\n" * 20)
    began = time.monotonic()
    assert read(tmp_path, report((1, 1, "<N/A>"))).reason == f"failed: {BOOM}"
    assert time.monotonic() - began < 5


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    folder = rank(tmp_path, 1, "")
    for name in ("stderr.log", "error.json"):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    assert read(tmp_path, report((1, 7, str(folder / "error.json")))).reason == "exited with status 7"
