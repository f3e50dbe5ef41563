"""What of ``harness sweep`` needs no cluster: what is refused, what is written, what is read of the queue."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.commands.cli import main
from harness.errors import NotRun
from harness.matrix import Cell
from harness.night.hosts import Seat, seat, suspects
from harness.night.outcome import read_outcome
from harness.protocol.results import claim
from harness.report.summary import Line
from harness.sweep import endings
from harness.sweep.asked import MOST, Wish, arrays
from harness.sweep.board import Board
from harness.sweep.folder import Folder, Record
from harness.sweep.queue import Task, keys, parsed
from harness.verdict import Run
from harness.verdict.sweep import JOB, MARKER, VERDICT
from tests.nights import green, not_run, red
from tests.plain_case import write_case

ROOT = Path(__file__).parents[1]
CELL = Cell("cpu", "dev", "any")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip()


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of its names, which are not come to."""
    folder = tmp_path_factory.mktemp("bin")
    for name in ("sbatch", "squeue", "scancel"):
        (folder / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--run-option=--no-such-thing"], "--no-such-thing"),
        (["--engine", "local"], "nox is the sweep on one machine"),
        (["--engine", "kubernetes"], "expected slurm"),
        (["--at-most", "0"], "expected 1 or more"),
        (["--time-limit", "0"], "expected minutes"),
        (["--environments", "there"], "expected node or here"),
        (["--slurm-option", "gpu"], "as in --slurm-option=--partition=gpu"),
        (["--run-option", "full"], "as in --run-option=--protocol=full"),
        (["--run-option=--results=elsewhere"], "expected another option"),
        (["--run-option=--dry-run"], "expected another option"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "--hardware", "cpu", *words]) == 2
    text = said(capsys)
    assert expected in text
    assert len(text.splitlines()) == 1


def test_without_slurm_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["sweep", "--hardware", "cpu"]) == 2
    assert "sbatch, squeue, scancel not found on PATH" in said(capsys)


@pytest.mark.usefixtures("slurm")
def test_without_a_cell_there_is_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "--hardware", "cpu", "--track", "dev"]) == 3
    assert "holds no case" in said(capsys)


@pytest.mark.usefixtures("slurm")
def test_two_tracks_that_nobody_makes_environments_of_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_case(tmp_path / "test_cases" / "plain" / "any")
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "--hardware", "cpu"]) == 2
    assert "no noxfile.py is here" in said(capsys)


# -- arrays, and what is written for them ---------------------------------------------------------


def test_cells_that_ask_for_the_same_share_an_array_of_no_more_than_slurm_takes() -> None:
    wishes = [Wish(Cell("cpu", "dev", f"c{i}"), f"c{i}") for i in range(MOST + 1)]
    wishes += [
        replace(wishes[0], nodes=2, ranks=4, engine=True),
        replace(wishes[0], cell=Cell("cpu", "lts", "c0")),
    ]
    made = list(arrays(wishes))
    assert [len(one.wishes) for one in made] == [MOST, 1, 1, 1]
    assert [(one.track, one.nodes, one.ranks) for one in made[1:]] == [
        ("dev", 1, 1),
        ("dev", 2, 4),
        ("lts", 1, 1),
    ]


def test_a_script_is_quoted_words_and_a_task_becomes_its_cells_command(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "it's $(here)", "harness-1")
    told = tmp_path / "told"
    show = "import json, os, sys; json.dump([sys.argv, os.environ['HARNESS_JOB']], open(sys.argv[1], 'w'))"
    words = ["run", "$(touch hacked)", "a b"]
    cell = {"cell": CELL.id, "folder": str(tmp_path / "cell"), "words": words}
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / MARKER).write_text('{"id": "before"}')
    content = {"python": "python", "prefix": [sys.executable, "-c", show, str(told)], "engine": False}
    script = folder.array(0, {**content, "cells": [{}, cell]})
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/sh"
    assert shlex.split(lines[1]) == [
        "exec", sys.executable, "-m", "harness.sweep.task", str(folder.path / "0.json"),
    ]  # fmt: skip
    env = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_JOB_ID": "77", "SLURM_RESTART_COUNT": "2"}
    subprocess.run(
        ["sh", str(script)], env={**os.environ, **env, "PYTHONPATH": str(ROOT)}, check=True, cwd=tmp_path
    )
    assert json.loads(told.read_text()) == [
        ["-c", str(told), "python", "-u", "-m", "harness", *words], "77_1.2",
    ]  # fmt: skip
    record = folder.record(0, 1)
    assert record is not None
    assert (record.before, record.restart) == ("before", 2)
    assert not (tmp_path / "hacked").exists()


# -- the queue -----------------------------------------------------------------------------------


def test_tasks_are_read_of_what_squeue_prints() -> None:
    queue = parsed(
        "12_[3-5,9,20-24:2%4]|PENDING||0:00|JobArrayTaskLimit\n"
        "12_1|RUNNING|n2|0:07|None\n12_2|COMPLETING|n[1-3]|1:00|None\n13|PENDING||0:00|Priority\n\n"
    )
    assert set(queue.waiting) == {(12, i) for i in (3, 4, 5, 9, 20, 22, 24)} | {(13, -1)}
    assert queue.there[12, 1] == Task("RUNNING", "n2", "0:07", "None")
    assert (12, 2) in queue
    assert (12, 6) not in queue
    assert list(keys("nonsense")) == []


@pytest.mark.parametrize("terminal", [True, False])
def test_a_board_in_a_terminal_and_plain_lines_without_one_say_the_same(*, terminal: bool) -> None:
    console = Console(file=StringIO(), force_terminal=terminal, width=100, height=20, no_color=True)
    queue = parsed("12_1|RUNNING|n2|0:07|None\n12_[2-4]|PENDING||0:00|Resources\n")
    names = {(12, i): f"cpu/dev/c{i}" for i in range(1, 5)}
    with Board(console, 5) as board:
        board.look(parsed("12_[0-4]|PENDING||0:00|Resources\n"), {(12, 0): "cpu/dev/c0", **names})
        board.ended(Line.of_verdict(red("cpu/dev/c0")), "n1")
        board.look(queue, names)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    expected = (
        ["cpu/dev/c0", "failed", "cpu/dev/c1: running on n2, 0:07", "1 running, 3 to come (Resources)"]
        if terminal
        else ["5 cells waiting: Resources", "cpu/dev/c0: failed on n1, 1.0 s (1 of 5)"]
    )
    for said in expected:
        assert said in text, text


# -- what became of a task ------------------------------------------------------------------------


def test_a_verdict_of_a_run_before_is_none_of_a_task(tmp_path: Path) -> None:
    verdict = green(CELL.id)
    verdict.write(endings.place(tmp_path, CELL) / VERDICT)
    assert verdict.run is not None
    record = Record("n1", 0.0, 0, before=verdict.run.id)
    assert endings.left_by(tmp_path, CELL, record, (1, 0)) is None
    assert endings.left_by(tmp_path, CELL, None, (1, 0)) is None
    found = endings.left_by(tmp_path, CELL, replace(record, before="another"), (1, 0))
    assert found is not None
    assert found.green


def test_a_verdict_of_another_job_is_none_of_a_task_and_its_folder_is_left_to_it(tmp_path: Path) -> None:
    verdict, folder = green(CELL.id), endings.place(tmp_path, CELL)
    verdict.write(folder / VERDICT)
    record = Record("n1", 0.0, 0, before="one before")
    for job, left, over in (("12_0", True, False), ("13_0", False, True)):
        (folder / MARKER).write_text(json.dumps({"id": "this one", "job": job, "restart": 0}))
        assert (endings.left_by(tmp_path, CELL, record, (12, 0)) is not None) is left
        assert endings.taken_over(tmp_path, CELL, record, (12, 0)) is over
    (folder / MARKER).write_text(json.dumps({"id": "one before", "job": "9_0", "restart": 0}))
    assert not endings.taken_over(tmp_path, CELL, record, (12, 0))  # it was there when the task began


@pytest.mark.parametrize(
    ("task", "status", "words"),
    [
        (Task("OUT_OF_MEMORY", "n2"), "error", "it ran out of memory: OUT_OF_MEMORY"),
        (Task("TIMEOUT", "n2"), "error", "time limit"),
        (Task("NODE_FAIL", "n2"), "error", "its node was lost"),
        (Task("FAILED", "n2", reason="RaisedSignal:9(Killed)"), "error", "RaisedSignal:9"),
        (Task("PREEMPTED", "n2"), "skipped", "taken away on n2"),
        (Task("CANCELLED", ""), "skipped", "it was cancelled"),
        (None, "error", "Slurm knows no more of it"),
    ],
)
def test_a_task_without_a_verdict_gets_one_of_what_slurm_says(
    task: Task | None, status: str, words: str, tmp_path: Path
) -> None:
    endings.write(
        tmp_path, CELL, task=task, record=None, words=["run", "any"], last="Killed"
    )  # as it is written, whoever reads results can read it
    outcome = read_outcome(CELL, endings.place(tmp_path, CELL))
    assert outcome.verdict is not None
    assert (outcome.state, outcome.red) == (status, status == "error")
    assert words in outcome.verdict.message
    if status == "error":
        assert outcome.verdict.diagnosis is not None
        evidence = outcome.verdict.diagnosis.evidence
        assert words in outcome.headline.what
        assert any("Killed" in line for line in evidence)


# -- who has the folder --------------------------------------------------------------------------


def claimed(results: Path, number: str, **more: Any) -> Any:
    run = Run(f"run of {number}", "2026-11-27T01:02:03Z", "")
    return claim(results, CELL.hardware, CELL.track, CELL.case, run=run, waiting=lambda _: None)


def test_a_start_that_was_given_up_takes_no_folder_and_leaves_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(JOB, "77_1.0")
    with claimed(tmp_path, "the first") as folder:
        folder.still_ours()
        marker = folder.path / MARKER
        assert json.loads(marker.read_text())["job"] == "77_1"
        # No lock has kept the second start off, as on file systems that have none between machines.
        marker.write_text(json.dumps({"id": "run of the second", "job": "77_1", "restart": 1}))
        with pytest.raises(NotRun, match="another run of job 77_1"):
            folder.still_ours()
    with pytest.raises(NotRun, match="started again"), claimed(tmp_path, "the first, late"):
        pytest.fail("it has got the folder of a later start")
    monkeypatch.setenv(JOB, "78_1.0")  # another job, of another sweep
    with claimed(tmp_path, "another") as folder:
        assert json.loads(marker.read_text())["restart"] == 0


# -- suspected machines --------------------------------------------------------------------------


def seats(**hosts: tuple[int, int]) -> list[Seat]:
    """By host, how many of its cells are red, and how many are not."""
    return [
        Seat("h100", frozenset([host]), red=i < bad)
        for host, (bad, good) in hosts.items()
        for i in range(bad + good)
    ]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (seats(n1=(0, 5), n2=(3, 0), n3=(0, 4)), ["n2: 3 of 3 cells red, 0 of 9 elsewhere"]),
        (seats(n1=(0, 5), n2=(2, 1)), ["n2: 2 of 3 cells red, 0 of 5 elsewhere"]),
        (seats(n1=(0, 5), n2=(1, 0)), []),  # a single one
        (seats(n1=(1, 5), n2=(3, 0)), []),  # elsewhere too
        (seats(n2=(3, 0)), []),  # there is no elsewhere
        (seats(n1=(0, 1), n2=(2, 18)), []),  # most cells ran there: chance
    ],
)
def test_a_machine_is_suspected_where_all_red_cells_were_on_it_and_chance_is_no_reason(
    where: list[Seat], expected: list[str]
) -> None:
    assert [one.partition(" (h100)")[0] for one in suspects(where)] == expected


def test_cells_on_several_nodes_suspect_the_one_that_all_red_ones_had() -> None:
    pairs = [
        ("n1", "n2", True),
        ("n2", "n3", True),
        ("n1", "n3", False),
        ("n3", "n4", False),
        ("n1", "n4", False),
    ]
    assert [one[:2] for one in suspects(Seat("h100", frozenset(two), bad) for *two, bad in pairs)] == ["n2"]


def test_where_a_cell_ran_is_read_of_its_verdict(tmp_path: Path) -> None:
    nodes = {
        "engine": "slurm",
        "phases": {"continuous": {"nodes": ["n1", "n2"]}, "resumed": {"nodes": ["n2", "n3"]}},
    }
    for verdict, expected in (
        (green(CELL.id, host="n7"), {"n7"}),
        (green(CELL.id, host="n7.cluster.example"), {"n7"}),  # as Slurm calls it
        (green(CELL.id, host="10.1.2.3"), {"10.1.2.3"}),
        (green(CELL.id, host="n7", nodes=nodes), {"n1", "n2", "n3"}),
        (red(CELL.id), None),
        (not_run(CELL.id, "skipped"), None),
    ):
        verdict.write(tmp_path / VERDICT)
        found = seat(read_outcome(CELL, tmp_path))
        assert (found and set(found.hosts)) == expected
