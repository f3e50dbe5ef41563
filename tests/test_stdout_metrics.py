"""Metrics that a script prints: found in its log by the expressions of its case."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.errors import MetricsError, NothingLogged
from harness.expressions import Expression
from harness.metrics import Series, read_metrics, stdout

LOSS = r"step (?P<step>\d+) loss (?P<loss>\S+)"
VALIDATION = r"validation at (?P<iteration>\d+): (?P<val_loss>\S+)"

Phase = Callable[..., Path]


@pytest.fixture
def phase(tmp_path: Path) -> Phase:
    """A phase's folder with a log."""

    def make(log: str | bytes, *expressions: str) -> Path:
        (tmp_path / "logs").mkdir(exist_ok=True)
        (tmp_path / stdout.LOG).write_bytes(log if isinstance(log, bytes) else log.encode())
        if expressions:
            stdout.declare(tmp_path, expressions)
        return tmp_path

    return make


def read(folder: Path, *, killed: bool = False) -> dict[str, Series]:
    return read_metrics(folder / "tensorboard", folder, killed=killed)


def plain(series: Series) -> dict[int, float]:
    return dict(zip(series.steps.tolist(), series.numbers(), strict=True))


# -- reading -----------------------------------------------------------------------------------------


def test_lines_that_match_are_metrics_and_all_others_say_nothing(phase: Phase) -> None:
    log = "hello\nstep 1 loss 3.5\nvalidation at 1: 9\nstep 2 loss 0.1\nstep x loss 3\n"
    found = read(phase(log, LOSS, VALIDATION))
    assert {name: plain(series) for name, series in found.items()} == {
        "loss": {1: 3.5, 2: 0.1},
        "val_loss": {1: 9},
    }


def test_a_log_is_not_looked_at_where_nobody_said_so(phase: Phase) -> None:
    with pytest.raises(NothingLogged, match="the trainer logged nothing"):
        read(phase("step 1 loss 3.5\n"))


@pytest.mark.parametrize(
    ("line", "expression", "whole"),
    [
        ("step 1 loss: 0.0168", r"step (?P<step>\d+) loss: (?P<loss>\w+)", "0.0168"),
        ("step 1 loss 2.3125", r"step (?P<step>\d+) loss (?P<loss>\d\.\d)", "2.3125"),
        ("step 1 loss 2.5e-07", r"step (?P<step>\d+) loss (?P<loss>[\d.]+)", "2.5e-07"),
        ("step 1 loss 12.5", r"step (?P<step>\d+).*(?P<loss>\d+\.\d+)", "12.5"),  # .* takes all that it can
        ("step 1 loss 12.54", r"step (?P<step>\d+).*(?P<loss>[.\d]+)", "12.54"),
        ("step 1 loss 12.54", r"step (?P<step>\d+).*\.(?P<loss>\d+)", "12.54"),
        ("step 123 loss 2", r"step (?P<step>\d\d).*loss (?P<loss>\d+)", "123"),
        ("at 123 loss 2", r".*(?P<step>\d+) loss (?P<loss>\d+)", "123"),
    ],
)
def test_a_part_of_a_number_is_an_error(phase: Phase, line: str, expression: str, whole: str) -> None:
    with pytest.raises(MetricsError, match=rf"log:1: '\w+' is '.*', a part of the number {whole}"):
        read(phase(line + "\n", expression))


@pytest.mark.parametrize(
    ("line", "expression"),
    [
        ("step 0020/0040 loss 2.", r"step 0*(?P<step>\d+)/\d+ loss (?P<loss>\d+)\.?$"),
        ("step 20.0 loss=2.", r"step (?P<step>\d+)\.0 loss=(?P<loss>[.\d]+)"),
        ("1.2.3.4 step20:loss2e", r"step(?P<step>\d+):loss(?P<loss>\d)"),
        ("1. step 20, 2, 3", r"step (?P<step>\d+), (?P<loss>\d), \d"),
        ("12:20.5 \u00e9\u4e16 20 2", r"(?P<step>\d+) (?P<loss>\d)$"),
    ],
)
def test_a_whole_number_may_touch_what_is_none(phase: Phase, line: str, expression: str) -> None:
    assert plain(read(phase(line + "\n", expression))["loss"]) == {20: 2}


def test_a_line_of_digits_takes_no_time(phase: Phase) -> None:
    line = "1" * 300_000 + "x" + "1." * 300_000 + " step 20 loss 2\n"
    started = time.monotonic()
    assert plain(read(phase(line * 3, LOSS))["loss"]) == {20: 2}
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ("[rank0]: step 1 loss 3.5\n[rank1]: step 1 loss 3.5\n", {1: 3.5}),  # every rank prints it
        ("[default0]:step 1 loss 3.5\n", {1: 3.5}),
        ("\x1b[1;32mstep \x1b[0m1 loss \x1b[31m3.5\x1b[0m\n", {1: 3.5}),
        ("\x1b]0;title\x07step 1 loss 3.5\n", {1: 3.5}),
        (" 1%|\u2588\rstep 1 loss 3.5\r 2%|\u2588\rstep 2 loss 3\r\n", {1: 3.5, 2: 3}),
        ("step 1 loss 3.5\r\nstep 2 loss 3.25\r\n", {1: 3.5, 2: 3.25}),
        (b"\xff\xfe step 1 loss 3.5 \xff\nstep 2 loss 1\n", {1: 3.5, 2: 1}),
        ("step 1 loss 1.08E+01\nstep 2 loss -.5\nstep 3 loss +3.\n", {1: 10.8, 2: -0.5, 3: 3.0}),
        (f"step 1 loss {2**60 + 1}\n", {1: 2**60 + 1}),  # no float
        ("step 0 loss 1\nstep 10 loss 2\n", {0: 1, 10: 2}),
        ("step 1 loss 1", {1: 1}),  # a script need not end its last line
    ],
)
def test_lines_as_they_come(log: str | bytes, found: dict[int, float], phase: Phase) -> None:
    assert plain(read(phase(log, LOSS))["loss"]) == found


def test_nan_and_infinity_are_numbers_and_nan_equals_itself(phase: Phase) -> None:
    found = read(phase("step 1 loss nan\nstep 1 loss NaN\nstep 2 loss inf\nstep 3 loss -Infinity\n", LOSS))
    first, *others = found["loss"].numbers()
    assert math.isnan(first)
    assert others == [math.inf, -math.inf]


def test_a_group_that_took_no_part_is_no_value(phase: Phase) -> None:
    either = r"step (?P<step>\d+) (?:loss (?P<loss>\S+)|lr (?P<lr>\S+))"
    found = read(phase("step 1 loss 2\nstep 1 lr 0.5\nstep 2 loss 1\n", either))
    assert {name: plain(series) for name, series in found.items()} == {"loss": {1: 2, 2: 1}, "lr": {1: 0.5}}


def test_a_torn_last_line_is_left_out_of_a_run_that_was_killed_only(phase: Phase) -> None:
    folder = phase("step 1 loss 3.5\nstep 2 loss 3.2", LOSS)
    assert plain(read(folder)["loss"]) == {1: 3.5, 2: 3.2}
    assert plain(read(folder, killed=True)["loss"]) == {1: 3.5}
    folder = phase("step 1 loss 3.5\rstep 2 loss 3.2", LOSS)
    assert plain(read(folder, killed=True)["loss"]) == {1: 3.5}


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("a\nstep 1 loss 3,5\n", "trainer.log:2: 'loss' is '3,5', expected a number"),
        ("step 1 loss 1_000\n", "trainer.log:1: 'loss' is '1_000', expected a number"),
        ("step 1 loss 3.5harness:\n", "'3.5harness:', expected a number"),
        (f"step 1 loss 1{'0' * 400}\n", "expected a number"),
        (f"step 1 loss 1{'0' * 5000}\n", "expected a number"),
        (f"step {2**70} loss 1\n", "trainer.log:1: the step is '1180591620717411303424', expected a whole"),
        ("step 1 loss 3.5\nx\nstep 1 loss 3.6\n",
         "trainer.log:3: 'loss' of step 1 is 3.6, expected 3.5 as in line 1"),
    ],
)  # fmt: skip
def test_what_is_no_number_or_two_is_told_with_its_line(log: str, said: str, phase: Phase) -> None:
    with pytest.raises(MetricsError) as caught:
        read(phase(log, LOSS))
    assert said in caught.value.message
    assert caught.value.advice
    assert len(caught.value.message) < 500


def test_a_step_that_took_no_part_is_an_error(phase: Phase) -> None:
    with pytest.raises(MetricsError, match=r"trainer\.log:1: the step is None"):
        read(phase("loss 3\n", r"(?:step (?P<step>\d+) )?loss (?P<loss>\S+)"))


def test_what_a_file_for_metrics_says_counts_before_what_was_printed(phase: Phase) -> None:
    folder = phase("step 1 loss 3.5 lr 1\n", r"step (?P<step>\d+) loss (?P<loss>\S+) lr (?P<lr>\S+)")
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 3.4999}\n')
    assert {name: plain(one) for name, one in read(folder).items()} == {"loss": {1: 3.4999}, "lr": {1: 1}}


@pytest.mark.parametrize("text", ["", "{", "[1]", "5", '["("]', '{"a": 1}', "[" * 100_000])
def test_a_spoilt_note_of_the_expressions_is_an_error_and_nothing_else(text: str, phase: Phase) -> None:
    folder = phase("step 1 loss 3.5\n", LOSS)
    (folder / stdout.DECLARED).write_text(text)
    with pytest.raises(MetricsError, match=r"stdout_metrics\.json: cannot be read"):
        read(folder)


def test_expressions_that_match_nothing_are_named(phase: Phase) -> None:
    folder = phase("step 1 loss 3.5\n", LOSS, VALIDATION)
    assert stdout.unmatched(folder) == [VALIDATION]
    assert stdout.unmatched(phase("nothing\n", LOSS, VALIDATION)) == [LOSS, VALIDATION]


def test_no_expression_runs_away(phase: Phase) -> None:
    """A backtracking engine needs longer than the sun for the first of these lines."""
    folder = phase(
        f"step 1 {'a' * 50_000}\nstep 2 aaX 7\n", r"step (?P<step>\d+) (?:(?:a+)+)+X (?P<loss>\d+)"
    )
    began = time.monotonic()
    assert plain(read(folder)["loss"]) == {2: 7}
    assert time.monotonic() - began < 30


# -- expressions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(", r"expected a regular expression \(RE2\): missing \)"),
        (r"(?P<step>\d+) (?=x)(?P<loss>\d)", "RE2 has no lookaround"),
        (r"(?P<step>\d+) (?P<loss>\d)\1", "no references back"),
        (r"(?P<loss>\d)", "expected one group .*step.* or .*iteration"),
        (r"(?P<step>\d+)(?P<iteration>\d+)(?P<loss>\d)", "expected one group"),
        (r"(?P<step>\d+) (\d)", "expected a named group for each metric"),
        (r"(?P<step>\d+) (?P<lm loss>\d)", "invalid named capture"),
        ("x" * 5000, "found 5000 characters"),
    ],
)
def test_an_expression_that_finds_no_metrics_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Expression.of(text)


# -- guessing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("step 10 loss 3.21", {"step": 10, "loss": 3.21}),
        ("iter 10: loss 4.2103, time 33.1ms, mfu 1.2%", {"step": 10, "loss": 4.2103}),
        ("step 0: train loss 4.2, val loss 4.3", {"step": 0, "train_loss": 4.2, "val_loss": 4.3}),
        ("Epoch [1/5], Step [100/600], Loss: 2.19", {"step": 100, "loss": 2.19}),
        (" iteration     1/  100 | time per iteration (ms): 2.0 | lm loss: 1.08E+01 | loss scale: 1.0 |",
         {"step": 1, "lm_loss": 10.8}),
        ('{"step": 3, "train/loss": 2.5}', {"step": 3, "train_loss": 2.5}),
        ("\x1b[32m[rank0]: global_step=12 loss=1e-05 lr=1e-3\x1b[0m", {"step": 12, "loss": 1e-05}),
        ("loss=3.21 at step 10", {"step": 10, "loss": 3.21}),
        ("Training loss is done. Iteration #7 Loss 3.", {"step": 7, "loss": 3.0}),
        ("step 5 loss: -3.5.", {"step": 5, "loss": -3.5}),
    ],
)  # fmt: skip
def test_a_line_with_a_step_and_a_loss_gives_an_expression_that_reads_it(
    line: str, found: dict[str, float], phase: Phase
) -> None:
    expression = stdout.suggest(["Loading data", line, "done in 3 steps"])
    assert expression is not None
    series = read(phase(f"Loading data\n{line}\n", expression))
    assert {name: plain(one) for name, one in series.items()} == {
        name: {found["step"]: value} for name, value in found.items() if name != "step"
    }


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["loss 3.21"],
        ["step 10"],
        ["{'loss': 2.31, 'grad_norm': 1.2, 'epoch': 0.1}"],
        ["10%|#### | 10/100 [00:01<00:09, 12.3it/s, loss=3]"],
        ["epoch 1 step 0 loss 3", "epoch 2 step 0 loss 2"],
        ["step 3 took 0.5 s, no loss of data"],
        ["step " + "9" * 100_000, "a" * 100_000 + "loss"],
    ],
)
def test_where_no_line_has_both_nothing_is_guessed(lines: list[str]) -> None:
    assert stdout.suggest(lines) is None


PIECES = st.sampled_from(
    ["step", "Iter", "it", "loss", "train loss", "a_loss", "lm loss:", "=", ": ", "[", "(", ".", "-", "nan",
     "'", "3", "10", "1e-3", " ", "\t", "\x1b[1m", "\r", "\\", "{", "?", "ü", "/", "%", "|"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@example(["step3a_lossnan"])
@example(["my_step 3 loss 2"])
@given(st.lists(st.lists(PIECES, max_size=40).map("".join), max_size=4))
def test_whatever_is_printed_a_guess_is_an_expression_that_matches_a_line_of_it(lines: list[str]) -> None:
    found = stdout.suggest(lines)
    if found is not None:
        assert any(Expression.of(found).found(stdout.plain(line)) for line in lines)


def test_a_line_of_very_many_losses_is_no_trouble() -> None:
    line = "step 1 " + " ".join(f"{a}{b}loss3.." for a in "abcdefgh" for b in "abcdefghijklmnop")
    assert stdout.suggest([line]) is not None


def test_the_shape_with_the_most_lines_is_taken() -> None:
    lines = ["step 0: val loss 9", *(f"iter {i}: loss {i}" for i in range(5)), "step 4: val loss 8"]
    found = stdout.suggest(lines)
    assert found is not None
    assert "iter" in found


def test_the_advice_shows_a_line_of_the_log_and_how_to_read_it(phase: Phase) -> None:
    said = stdout.advice(phase("hello\nit's step 10 loss 3.21\n"))
    assert 'its log has lines like "it\'s step 10 loss 3.21"' in said
    assert (
        "HARNESS: {metrics: {stdout: '\\bstep\\s+(?P<step>\\d+).*?\\bloss\\s+(?P<loss>[-+.\\w]+)'}}" in said
    )
    assert 'print(json.dumps({"step": step, "loss": loss.item()})' in said
    assert "${OUTPUT_PATH}/metrics.jsonl" in said
    assert "stdout" not in stdout.advice(phase("hello\n"))


def test_the_line_that_is_advised_is_one_that_is_read(phase: Phase) -> None:
    folder = phase("")
    said = stdout.advice(folder)
    line = said[said.index("with open(") :]
    script = f"import json, os\nstep = 3\nclass Loss:\n    item = lambda _: 2.5\nloss = Loss()\n{line}\n"
    env = {**os.environ, "OUTPUT_PATH": str(folder)}
    subprocess.run([sys.executable, "-W", "error", "-c", script], env=env, check=True)
    assert plain(read(folder)["loss"]) == {3: 2.5}


def test_an_epoch_counts_where_no_line_has_a_step() -> None:
    lines = [f"Epoch {n}/6, loss: 0.{n}1" for n in range(1, 6)]
    assert stdout.suggest(lines) is None
    found = stdout.suggest(lines, epochs=True)
    assert found is not None
    assert Expression.of(found).found(lines[2]) == {"step": "3", "loss": "0.31"}
    assert str(stdout.suggest([*lines, "step 3 loss 2"], epochs=True)).startswith(r"\bstep")
    torn = ["Epoch 1 loss 0.5", "Epoch 1 loss 0.25"]  # a line for each batch
    assert stdout.suggest(torn, epochs=True) is None
