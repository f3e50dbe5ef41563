"""What a terminal shows: while a cell runs, its verdict, a sweep's board, and the table at the end."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from harness.checks import Check, Worst
from harness.commands.cli import main
from harness.diagnosis import Diagnosis
from harness.errors import EXIT_FAILED, EXIT_NOTHING, EXIT_PASSED, EXIT_USAGE
from harness.matrix import Cell
from harness.night.headline import Headline
from harness.report.board import Board, running
from harness.report.summary import Line, show, summary
from harness.report.terminal import Terminal, render
from harness.text import one_line, printable
from harness.verdict import Verdict
from tests.made_results import GPT, MOE, Made, make_cell, write_events
from tests.nights import green, not_run, ran, write

ESCAPE = "\x1b"
_METRICS = ("lm loss", "grad-norm")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Made]:
    """A red and a green cell in one folder of results."""
    root = tmp_path_factory.mktemp("cells")
    return make_cell(root, MOE, lost="experts", n=20, metrics=_METRICS), make_cell(
        root, GPT, n=20, metrics=_METRICS
    )


class Screen(StringIO):
    """Has a width: a terminal ends each line there."""

    def isatty(self) -> bool:
        return True


def plain(width: int = 80, *, terminal: bool = False, screen: bool = False) -> tuple[Console, StringIO]:
    stream = Screen() if screen else StringIO()
    console = Console(
        file=stream, width=width, force_terminal=terminal, highlight=False, markup=False,
        legacy_windows=False, _environ={"TERM": "xterm-256color"},
    )  # fmt: skip
    return console, stream


def on_a_terminal(*arguments: str, cwd: Path, columns: int = 80, **env: str) -> tuple[int, str]:
    """Run ``harness`` on a real pseudo-terminal."""
    ours, theirs = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "CI")}
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments],
        cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs,
        env=clean | {"TERM": "xterm-256color", "COLUMNS": str(columns), "PYTHONPATH": os.getcwd()} | env,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    while True:
        ready, _, _ = select.select([ours], [], [], 0.1)
        try:
            said += os.read(ours, 65536) if ready else b""
        except OSError:  # the other end is closed
            break
        if not ready and process.poll() is not None:
            break
    os.close(ours)
    return process.wait(), said.decode()


# -- the summary -----------------------------------------------------------------------------------


def test_a_red_cell_gets_three_lines_and_the_command(made: tuple[Made, Made]) -> None:
    console, stream = plain()
    red, green = made
    summary([red.verdict, green.verdict], console)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    at = lines.index(f"✗ {red.verdict.cell}")
    assert lines[at + 1] == "  what:  resuming does not continue the same training"
    assert lines[at + 2] == "  since: step 11, 1 step after the checkpoint of 10 (continuous: lm loss)"
    assert lines[at + 3] == "  lost:  experts: experts, or their router"
    assert lines[at + 4] == "  entry: model.decoder.layers.2.mlp.experts.linear_fc1.weight"
    assert lines[at + 5] == f"  again: {red.verdict.reproduce}"
    assert lines[-1] == "2 cells: 1 passed, 1 failed"
    assert not [line for line in lines if line.startswith(f"✓ {green.verdict.cell}")]


@pytest.mark.parametrize("columns", [60, 80])
def test_nothing_but_the_command_is_wider_than_the_terminal(made: tuple[Made, Made], columns: int) -> None:
    console, stream = plain(columns, screen=True)
    summary([one.verdict for one in made], console)
    wide = [line for line in stream.getvalue().splitlines() if len(line) > columns]
    assert all(line.startswith(("  again: ", "✗ cpu/")) for line in wide)
    assert len([line for line in wide if line.startswith("  again: ")]) == 1


def test_the_whole_name_of_a_cell_is_there_at_80_columns(made: tuple[Made, Made]) -> None:
    console, stream = plain(80, screen=True)
    summary([made[1].verdict], console)
    name = "".join(line.split()[0] for line in stream.getvalue().splitlines()[1:3])
    assert name == made[1].verdict.cell


@pytest.mark.parametrize("colours", [False, True])
def test_where_there_is_no_terminal_no_cell_of_a_table_is_broken(
    made: tuple[Made, Made], colours: bool
) -> None:
    """A log has no width, also where FORCE_COLOR asks for colours in it."""
    verdict = made[0].verdict
    name, one, two = "continuous: lm loss validation ppl of a long name", 4.809358119964612, -1.6285254955e-11
    worst = Worst(123456, one, two)
    odd = Check(name, "lm loss", "continuous", "exact", passed=False, first_bad_step=123456, worst=worst)
    console, stream = plain(40, terminal=colours)
    Terminal(console).verdict(replace(verdict, checks=(odd,)))
    summary([verdict], console)
    said = stream.getvalue().splitlines()
    assert [line for line in said if all(text in line for text in (name, "123456", repr(one), repr(two)))]
    assert [line for line in said if line.startswith(verdict.cell) and "failed" in line]


def test_a_verdict_cannot_steer_the_terminal() -> None:
    evil = f"{ESCAPE}[2J{ESCAPE}]0;owned\x07 \x9b31m \u202e \r forged"
    verdict = Verdict(
        cell="cpu/dev/evil",
        status="failed",
        checks=(
            Check(evil, evil, "continuous", "exact", passed=False, first_bad_step=2,
                  worst=Worst(2, evil, "\ud800"), message=evil),
        ),
        diagnosis=Diagnosis("weights", (evil,)),
        timing={"total": 1.0},
        provenance={"golden": evil},
        reproduce=f"harness run {evil}",
    )  # fmt: skip
    console, stream = plain()
    summary([verdict], console)
    Terminal(console).verdict(verdict)
    shown = stream.getvalue() + render(verdict)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800]", shown)
    assert "\\x1b[2J" in shown


def test_what_is_hidden_is_spelled_out_and_the_rest_is_left_alone() -> None:
    assert printable("größer → 9.7 ✓ \n") == "größer → 9.7 ✓ \n"
    assert printable("a\x1b\x00\u202e") == "a\\x1b\\x00\\u202e"
    assert one_line("two\nlines\r") == "two lines\\r"


# -- the command line ------------------------------------------------------------------------------


def test_status_says_by_its_exit_code_whether_a_cell_is_red(
    made: tuple[Made, Made], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(made[0].folder.parents[2])]) == EXIT_FAILED
    assert "1 passed, 1 failed" in capsys.readouterr().out
    green = make_cell(tmp_path, GPT, n=4, metrics=_METRICS)
    assert main(["status", str(green.folder.parents[2])]) == EXIT_PASSED


def test_status_of_an_empty_folder_has_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(tmp_path)]) == EXIT_NOTHING
    assert str(tmp_path) in capsys.readouterr().err


def test_a_broken_verdict_is_red_and_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = make_cell(tmp_path, MOE, n=4, metrics=_METRICS)
    make_cell(tmp_path, GPT, n=4, metrics=_METRICS)
    (broken.folder / "verdict.json").write_text('{"cell": ')
    assert main(["status", str(tmp_path / "results")]) == EXIT_FAILED
    said = capsys.readouterr().out
    assert "1 passed, 1 unreadable" in said
    assert "is not JSON" in said


def test_an_expected_cell_that_left_nothing_is_red(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = make_cell(tmp_path, GPT, n=4, metrics=_METRICS)
    listing = tmp_path / "listing.json"
    listing.write_text(_listing(GPT, MOE))
    results = there.folder.parents[2]
    assert main(["status", str(results)]) == EXIT_PASSED
    assert main(["status", str(results), "--expect", str(listing)]) == EXIT_FAILED
    assert "1 passed, 1 no verdict" in capsys.readouterr().out


def test_status_of_a_night_shows_old_refused_and_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, begin = str(tmp_path / "results"), ran(timedelta(hours=1)).started
    write(tmp_path / "results", not_run("h100/dev/a", "skipped", "no GPU"))
    assert main(["status", results]) == EXIT_NOTHING
    assert "1 cell: 1 skipped" in capsys.readouterr().out
    write(tmp_path / "results", green("cpu/dev/a"))
    assert main(["status", results, "--since", begin]) == EXIT_PASSED
    assert "skipped: no GPU" in capsys.readouterr().out
    write(tmp_path / "results", replace(green("cpu/dev/a"), run=ran(timedelta(hours=2))))
    assert main(["status", results]) == EXIT_PASSED
    assert main(["status", results, "--since", begin]) == EXIT_FAILED
    assert "? old" in capsys.readouterr().out
    write(tmp_path / "results", not_run("cpu/dev/a", "refused", "the golden is broken"))
    assert main(["status", results]) == EXIT_FAILED
    assert "what:  refused: the golden is broken" in capsys.readouterr().out
    listing = tmp_path / "listing.json"
    listing.write_text("[]")
    assert main(["status", results, "--expect", str(listing)]) == EXIT_USAGE


def _listing(*cases: str) -> str:
    sessions = [
        {"session": f"case(cpu)(dev,{case})", "name": "case(cpu)", "tags": ["cpu", "dev", case],
         "call_spec": {"track": "dev", "name": case}}
        for case in cases
    ]  # fmt: skip
    return json.dumps(sessions)


def test_colours_on_a_terminal_and_none_with_no_color(made: tuple[Made, Made], tmp_path: Path) -> None:
    results = str(made[0].folder.parents[2])
    code, colourful = on_a_terminal("status", results, cwd=tmp_path)
    assert code == EXIT_FAILED
    assert f"{ESCAPE}[1;31m" in colourful
    _, bare = on_a_terminal("status", results, cwd=tmp_path, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", bare)
    assert "✗ failed" in bare


def test_without_a_terminal_there_is_not_one_escape(made: tuple[Made, Made], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "status", str(made[0].folder.parents[2])],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert done.returncode == EXIT_FAILED
    assert ESCAPE not in done.stdout
    assert "✗ failed" in done.stdout


# -- while it runs ---------------------------------------------------------------------------------


def test_without_a_terminal_phases_are_plain_lines() -> None:
    console, stream = plain()
    with Terminal(console) as terminal:
        terminal.phase_started("continuous", 0, 100)
        terminal.progress("continuous", 50)
        terminal.phase_ended("continuous", 12.34)
        terminal.note("waiting for another run")
    assert stream.getvalue().splitlines() == [
        "continuous: iterations 0 to 100",
        "continuous: 0 to 100 in 12.3 s",
        "waiting for another run",
    ]


def test_on_a_terminal_the_bar_is_gone_before_the_verdict(made: tuple[Made, Made]) -> None:
    console, stream = plain(terminal=True)
    with Terminal(console) as terminal:
        terminal.phase_started("continuous", 0, 100)
        terminal.progress("continuous", 50)
        terminal.phase_ended("continuous", 12.34)
        terminal.phase_started("resumed", 50, 100)
        terminal.progress("resumed", 75)
        terminal.verdict(made[0].verdict)
    said = stream.getvalue()
    assert "100" in said
    after = said[said.index("FAILED") :]
    assert "resumed" not in after.splitlines()[0]
    assert f"{ESCAPE}[?25h" in said  # the cursor is back


def _begin(root: Path, case: str, phase: str, step: int) -> Path:
    """A cell that runs: its marker, and what its phase has logged so far."""
    folder = root / "cpu" / "dev" / case
    (folder / phase).mkdir(parents=True)
    (folder / ".harness-cell").touch()
    write_events(folder / phase / "tensorboard", 1, {"lm loss": [10.0 - i for i in range(step)]})
    return folder


def test_a_running_cell_is_seen_with_its_phase_and_step(tmp_path: Path) -> None:
    folder = _begin(tmp_path, MOE, "continuous", 7)
    assert str(running(folder)) == "continuous, step 7"
    assert str(running(tmp_path / "none")) == "starting"
    resumed = folder / "resumed"
    resumed.mkdir()
    os.utime(resumed, (time.time() + 5, time.time() + 5))
    assert str(running(folder)) == "resumed, starting"


def test_a_torn_event_file_does_not_stop_the_board(tmp_path: Path) -> None:
    folder = _begin(tmp_path, MOE, "continuous", 7)
    (events,) = (folder / "continuous").rglob("*tfevents*")
    events.write_bytes(events.read_bytes()[:-5])
    assert str(running(folder)) == "continuous, step 6"


def test_the_board_ends_when_every_expected_cell_has_a_verdict(tmp_path: Path) -> None:
    results = tmp_path / "results"
    cells = [Cell("cpu", "dev", GPT), Cell("cpu", "dev", MOE)]
    running_cell = _begin(results, GPT, "continuous", 3)
    console, stream = plain()
    looks: list[float] = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            make_cell(tmp_path, MOE, lost="experts", n=4, metrics=_METRICS)
        if len(looks) == 4:
            shutil.rmtree(running_cell)
            make_cell(tmp_path, GPT, n=4, metrics=_METRICS)
        assert len(looks) < 10, "it goes on though nothing is left"

    ended = Board(results, console, cells).follow(wait=wait)
    assert len(looks) == 4
    assert [cell.state for cell in ended] == ["passed", "failed"]
    said = stream.getvalue()
    assert said.index(f"cpu/dev/{GPT}: continuous") < said.index(f"cpu/dev/{MOE}: failed")
    assert said.index(f"cpu/dev/{MOE}: failed") < said.index(f"cpu/dev/{GPT}: passed")
    assert said.splitlines()[-1] == "2 cells: 1 passed, 1 failed"
    assert said.count(f"cpu/dev/{GPT}: continuous") == 1


def test_on_a_terminal_the_board_shows_what_runs_what_ended_and_what_is_to_come(tmp_path: Path) -> None:
    results = tmp_path / "results"
    _begin(results, GPT, "continuous", 3)
    make_cell(tmp_path, MOE, lost="experts", n=4, metrics=_METRICS)
    console, stream = plain(terminal=True)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    cells = [Cell("cpu", "dev", name) for name in (GPT, MOE, "still_to_come")]
    Board(results, console, cells).follow(wait=interrupt)
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "continuous, step 3" in said
    assert "✗ failed" in said
    assert "1 cell to come" in said


# -- pytest ----------------------------------------------------------------------------------------

_DRIVER = """
from harness.plugin import _VERDICT
from harness.verdict.reading import read_verdict

def test_cell(harness_cell, request, pytestconfig):
    cell = harness_cell
    folder = pytestconfig.rootpath / "results" / cell.hardware / cell.track / cell.case
    request.node.stash[_VERDICT] = read_verdict(folder / "verdict.json")
"""


@pytest.mark.parametrize("workers", [[], ["-p", "xdist.plugin", "-n", "2"]])
def test_pytest_ends_a_sweep_with_the_table_of_its_cells(tmp_path: Path, workers: list[str]) -> None:
    made = [make_cell(tmp_path, MOE, lost="experts", n=4, metrics=_METRICS)]
    made.append(make_cell(tmp_path, GPT, n=4, metrics=_METRICS))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_driver.py").write_text(_DRIVER)
    cells = [f"--cell={one.verdict.cell}" for one in made]
    command = [sys.executable, "-m", "pytest", "-p", "harness.plugin", "-p", "no:cacheprovider"]
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # installed or not, the plugin is named once
    done = subprocess.run(
        [*command, "test_driver.py", *cells, *workers],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.getcwd()} | alone,
    )  # fmt: skip
    said = done.stdout.partition(" cells ")[2]
    assert said.count("again: ") == 1, done.stdout + done.stderr
    assert "  lost:  experts: experts, or their router" in said
    assert "2 cells: 1 passed, 1 failed" in said


def test_where_no_terminal_ends_a_line_no_name_and_no_number_is_broken_over_two() -> None:
    long = f"rank-{'0123456789' * 30}"
    failed = Check("continuous: lm loss", "lm loss", "continuous", "exact", passed=False, first_bad_step=3,
                   message=f"the checkpoint {long} and a number {'7' * 200} are there")  # fmt: skip
    verdict = Verdict("cpu/dev/" + "case" * 40, "failed", (failed,), None, {}, {}, "harness run")
    for width in (40, 80):
        stream = StringIO()
        console = Console(file=stream, width=width, force_terminal=False)
        said = Headline(failed.message, "step 3", long, "again")
        show([replace(Line.of_verdict(verdict), said=said)], console)
        for word in (long, "7" * 200, verdict.cell):
            assert word in stream.getvalue()
        assert any(long in line and "7" * 200 in line for line in stream.getvalue().splitlines())
