"""What agents of several nodes say is put together, and the right one is blamed; no cluster is needed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.commands.cli import main
from harness.engines import ENGINES, Wanted, Where, engine_of
from harness.engines.lines import PIECE, Unpacker, packed
from harness.errors import UsageError
from harness.launch import shared
from harness.launch.blame import HANGS, KILLED, OWN, PEER, WAITS, WELL, Failures
from harness.launch.place import Place, bound
from harness.machine import signals
from harness.protocol import claims
from harness.protocol.results import claim
from harness.verdict import Run
from harness.verdict.reading import read_verdict
from tests.plain_case import write_case

# -- lines -----------------------------------------------------------------------------------------


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())), st.integers(1, 400))
def test_a_message_comes_through_in_short_lines(message: dict[str, Any], cut: int) -> None:
    data = packed(message) * 2
    assert all(len(line) <= PIECE + 1 for line in data.splitlines())
    unpacker = Unpacker()
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
    assert [one for piece in pieces for one in unpacker.feed(piece)] == [message, message]


def test_a_long_message_is_several_lines_below_what_srun_tears() -> None:
    lines = packed({"event": "failed", "log": "ü" * 5000}).splitlines()
    assert len(lines) > 10
    assert max(map(len, lines)) + len("1234: ") < 1000


def test_what_is_no_piece_of_a_message_is_passed_over() -> None:
    said = (
        b"a library's banner\n"
        + packed({"event": "ready"})
        + b'.{"torn\n'
        + b".[1]\n"
        + packed({"event": "done"})
    )
    assert [one["event"] for one in Unpacker().feed(said)] == ["ready", "done"]


# -- blame -----------------------------------------------------------------------------------------


def answer(suspicion: int, **more: Any) -> dict[str, Any]:
    return {"event": "failed", "rank": 0, "reason": "…", "suspicion": suspicion, **more}


def test_a_killed_rank_is_blamed_at_once() -> None:
    failures = Failures(2)
    failures.add(0, answer(PEER), 1.0)
    assert not failures.decided()
    failures.add(1, answer(KILLED), 2.0)
    assert failures.decided()
    assert failures.blame().node == 1


def test_a_broken_connection_waits_for_who_is_silent() -> None:
    failures = Failures(3)
    failures.add(0, answer(PEER), 1.0)
    failures.add(2, answer(PEER), 1.0)
    assert not failures.decided()
    failures.gone(1, 0.5)
    assert failures.decided()
    found = failures.blame()
    assert (found.node, found.answer, sorted(found.others)) == (1, None, [0, 2])


def test_who_raised_something_of_its_own_comes_before_who_was_told_of_it() -> None:
    failures = Failures(2)
    failures.add(0, answer(PEER), 1.0)
    failures.add(1, answer(OWN), 9.0)
    assert failures.blame().node == 1


def test_of_those_that_hang_the_one_that_waits_for_nobody() -> None:
    failures = Failures(3)
    failures.add(0, answer(WAITS, iteration=6), 1.0)
    failures.add(1, answer(HANGS, iteration=7), 2.0)
    failures.add(2, answer(WAITS, iteration=7), 1.0)
    assert failures.blame().node == 1


def test_of_those_that_wait_the_one_that_is_behind() -> None:
    failures = Failures(2)
    failures.add(0, answer(WAITS, iteration=7), 1.0)
    failures.add(1, answer(WAITS, iteration=6), 2.0)
    assert failures.blame().node == 1


def test_a_node_whose_ranks_have_returned_or_were_well_is_not_blamed() -> None:
    failures = Failures(3)
    failures.done(2)
    failures.add(1, answer(WELL), 1.0)
    failures.add(0, answer(PEER), 5.0)
    assert failures.decided()
    assert failures.blame().node == 0


# -- where -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"engine": "cloud"}, "--engine cloud: expected local or slurm"),
        ({"nodes": 2}, "--nodes: found --engine local, expected slurm"),
        ({"new_job": True}, "--new-job-per-phase: found --engine local"),
        ({"engine": "slurm", "nodes": 0}, "--nodes 0: expected 1 to 10000"),
        ({"engine": "slurm", "minutes": 0}, "--time-limit 0: expected minutes"),
        ({"engine": "slurm", "options": ("gpu",)}, "--slurm-option gpu: expected an option of salloc"),
    ],
)
def test_what_does_not_fit_together_is_refused(where: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Where(**where)


def test_a_command_line_says_all_of_it_again() -> None:
    where = Where("slurm", 2, rotate=False, minutes=90, options=("--partition=gpu",))
    assert where.words == [
        "--engine", "slurm", "--nodes", "2", "--no-rotation", "--time-limit", "90",
        "--slurm-option=--partition=gpu",
    ]  # fmt: skip
    assert Where().words == []


def test_without_slurm_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"--engine slurm: salloc, srun, .* not found on PATH"):
        engine_of(Wanted(Where("slurm")))
    assert main(["clean"]) == 2


def test_every_engine_of_the_table_can_be_made() -> None:
    assert sorted(ENGINES) == ["local", "slurm"]
    assert engine_of(Wanted()).provenance == {}


# -- signals ---------------------------------------------------------------------------------------


def test_signals_can_be_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (signals.stacks(), signals.preemption()) == (signal.SIGUSR1, None)
    monkeypatch.setenv("HARNESS_STACK_SIGNAL", "usr2")
    monkeypatch.setenv("HARNESS_PREEMPT_SIGNAL", "SIGUSR1")
    assert (signals.stacks(), signals.preemption()) == (signal.SIGUSR2, signal.SIGUSR1)
    signals.check()


@pytest.mark.parametrize(
    ("stacks", "preemption", "said"),
    [
        ("KILL", "", "HARNESS_STACK_SIGNAL: found 'KILL', expected the name of a signal"),
        ("", "nothing", "HARNESS_PREEMPT_SIGNAL: found 'nothing'"),
        ("", "USR1", "HARNESS_PREEMPT_SIGNAL: found SIGUSR1, by which ranks are asked for their stacks"),
    ],
)
def test_a_signal_that_cannot_be_taken_is_one_sentence(
    stacks: str,
    preemption: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HARNESS_STACK_SIGNAL", stacks)
    monkeypatch.setenv("HARNESS_PREEMPT_SIGNAL", preemption)
    assert main(["clean"]) == 2
    assert said in capsys.readouterr().err


def test_a_cell_that_is_told_by_the_signal_of_preemption_was_not_run(tmp_path: Path) -> None:
    write_case(tmp_path / "cases" / "gpt" / "plain")
    words = [
        sys.executable,
        "-m",
        "harness",
        "run",
        "plain",
        "--hardware",
        "cpu",
        "--cases",
        str(tmp_path / "cases"),
    ]
    words += ["--results", str(tmp_path / "results"), "--goldens", str(tmp_path / "goldens")]
    env = {**os.environ, "HARNESS_PREEMPT_SIGNAL": "USR2", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "iterations 0 to" in line:
                break
        process.send_signal(signal.SIGUSR2)
        rest = process.stdout.read()
    assert process.returncode == 3, rest
    verdict = read_verdict(tmp_path / "results" / "cpu" / "dev" / "plain" / "verdict.json")
    assert (verdict.status, verdict.message) == ("skipped", "its job was to be taken away: SIGUSR2 came")
    assert verdict.message in rest
    assert "Traceback" not in rest


# -- where ranks meet ------------------------------------------------------------------------------


def test_a_port_is_nobody_elses_while_it_is_kept() -> None:
    with bound("127.0.0.1", listen=False) as kept:
        port = kept.getsockname()[1]
        others = [bound("127.0.0.1", listen=False) for _ in range(50)]
        assert port not in {one.getsockname()[1] for one in others}
        for one in others:
            one.close()


def test_a_command_is_told_where_it_is() -> None:
    assert Place().variables(Path("/out")) == {}
    found = Place(1, 2, "n1", 4321).variables(Path("/out"))
    assert found["PET_LOG_DIR"] == "/out/logs/node_1"
    assert (found["PET_NNODES"], found["PET_NODE_RANK"], found["MASTER_ADDR"], found["PET_MASTER_PORT"]) == (
        "2", "1", "n1", "4321",
    )  # fmt: skip


# -- a shared folder -------------------------------------------------------------------------------


def test_what_is_late_is_named_and_waited_for(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"12")
    wanted = {str(tmp_path / "short"): 3, str(tmp_path / "new"): 1}
    assert shared.wait_for(wanted, [tmp_path], seconds=0) == [
        f"{tmp_path}/short has 2 of 3 bytes", f"{tmp_path}/new is not there",
    ]  # fmt: skip

    def arrives() -> None:
        (tmp_path / "short").write_bytes(b"123")
        (tmp_path / "new").write_bytes(b"1")

    assert shared.wait_for(wanted, [tmp_path], seconds=30, meanwhile=arrives) == []


def test_of_several_views_the_longest_counts(tmp_path: Path) -> None:
    assert shared.together([{"a": 1, "b": 5}, {"a": 3}]) == {"a": 3, "b": 5}
    os.mkfifo(tmp_path / "pipe")  # which nobody may wait for
    (tmp_path / "file").write_bytes(b"1")
    assert shared.listing([tmp_path]) == {str(tmp_path / "file"): 1}


# -- claims ----------------------------------------------------------------------------------------


def test_a_folder_is_claimed_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / ".case.claim"
    with claims.claimed(path, print):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_a_start_that_was_requeued_takes_over_from_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".case.claim"
    path.write_text(json.dumps({"host": "n7", "pid": 1, "born": "1", "job": "12", "restart": 0}))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    said: list[str] = []
    with claims.claimed(path, said.append):
        assert json.loads(path.read_text())["restart"] == 1
    assert said == []


def test_a_process_that_is_gone_from_here_has_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".case.claim"
    me = claims.Owner.here()
    path.write_text(json.dumps({"host": me.host, "pid": me.pid, "born": "another", "job": "", "restart": 0}))
    with claims.claimed(path, print):
        assert claims.Owner.read(path) == me


def test_who_is_elsewhere_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_LOOK", 0.01)
    path = tmp_path / ".case.claim"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 7, "born": "1", "job": "", "restart": 0}))
    said: list[str] = []

    def told(text: str) -> None:
        said.append(text)
        path.unlink()  # it has ended

    began = time.monotonic()
    with claims.claimed(path, told):
        assert claims.Owner.read(path) == claims.Owner.here()
    assert time.monotonic() - began < 10
    assert said[0].startswith("process 7 on elsewhere has ")
    assert not path.exists()


def test_a_job_sees_the_run_on_one_machine_that_came_before_it(tmp_path: Path) -> None:
    said: list[str] = []

    def folder(shared: bool, told: Callable[[str], None]) -> Any:
        run = Run("one", "2026-11-27T01:02:03Z", "")
        return claim(tmp_path, "cpu", "dev", "plain", run=run, waiting=told, shared=shared)

    def told(text: str) -> None:
        said.append(text)
        raise KeyboardInterrupt  # it would wait for this process

    with folder(False, print), pytest.raises(KeyboardInterrupt), folder(True, told):
        pytest.fail("both have it")
    assert said[0].startswith(f"process {os.getpid()} on ")
    with folder(True, print) as free:
        assert free.path.is_dir()


def test_what_a_run_with_the_lock_has_left_is_no_claim_for_the_next(tmp_path: Path) -> None:
    path = tmp_path / "cpu" / "dev" / ".plain.claim"
    path.parent.mkdir(parents=True)
    left = {"host": "a-container", "pid": 7, "born": "1", "job": "", "restart": 0, "locked": True}
    path.write_text(json.dumps(left))
    run = Run("one", "2026-11-27T01:02:03Z", "")
    with claim(tmp_path, "cpu", "dev", "plain", run=run, waiting=pytest.fail):
        assert claims.Owner.read(path) == claims.Owner.here(locked=True)
    assert not path.exists()
