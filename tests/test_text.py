"""harness/text.py: no text of a run is a command to GitHub's runner."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from harness.checks import Check
from harness.commands.cli import main
from harness.diagnosis import Diagnosis
from harness.report.summary import summary
from harness.report.terminal import Terminal, render
from harness.text import for_log, guarded
from harness.verdict import Verdict
from tests.nights import red, write

EVIL = (
    "::error::forged", "  ::stop-commands::x", "a\n::add-mask::x", "a ##[group]x", ":::x", "a\r::debug::x",
    "\u200b::notice::x", "\ufeff::notice::x", f"{'a' * 30} ::error::{'b' * 70} ::error::c",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _in_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")


def is_command(line: str) -> bool:
    """As the runner reads a line: after white space and what has no width."""
    while line and (line[0].isspace() or not line[0].isprintable()):
        line = line[1:]
    return line.startswith("::") or "##[" in line


def commands_in(text: str) -> list[str]:
    return [line for line in text.replace("\r", "\n").split("\n") if is_command(line)]


@pytest.mark.parametrize("text", EVIL)
def test_no_line_is_a_command_however_it_is_written(text: str) -> None:
    assert not commands_in(for_log(text))
    for size in (1, 2, 3, 1000):
        stream = io.StringIO()
        shown = guarded(stream)
        shown.writelines(text[i : i + size] for i in range(0, len(text), size))
        assert not commands_in(stream.getvalue())


def test_what_is_no_command_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "tests/a.py::test_b\n std::vector\n#[x] : :\n"
    assert for_log(text) == text
    monkeypatch.delenv("GITHUB_ACTIONS")
    assert for_log("::x") == "::x"
    assert guarded(sys.stdout) is sys.stdout


def test_a_guarded_stream_is_still_that_stream() -> None:
    stream = io.StringIO()
    shown = guarded(stream)
    assert guarded(shown) is shown
    assert shown.isatty() is False
    print("a", "::b", sep="\n", file=shown)
    assert stream.getvalue() == "a\n: :b\n"


def evil_verdict(text: str) -> Verdict:
    check = Check(text, text, "continuous", "exact", passed=False, first_bad_step=2, message=text)
    return Verdict(
        "cpu/dev/evil", "failed", (check,), Diagnosis("weights", (text,)), {}, {"golden": text}, text, text
    )


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize("columns", [20, 40, 80])
def test_a_verdict_is_no_command_wherever_a_terminal_folds_it(text: str, columns: int) -> None:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=guarded(stream), width=columns, highlight=False, markup=False)
    summary([evil_verdict(text)], console)
    Terminal(console).verdict(evil_verdict(text))
    assert not commands_in(stream.getvalue())
    assert not commands_in(for_log(render(evil_verdict(text))))


@pytest.mark.parametrize("text", EVIL)
def test_no_command_of_ours_prints_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    verdict = red("cpu/dev/evil", metric=text, message=text, evidence=(text,), command=text)
    write(tmp_path / "results", verdict)
    for words in (["status"], ["alarm", "--dry-run"], ["github", "summary"], ["goldens", "show"]):
        assert main([*words, "results"]) in (0, 1, 2)
        said = capsys.readouterr()
        assert not commands_in(said.out + said.err)


def test_an_annotation_is_the_only_command_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        tmp_path, red("cpu/dev/evil", metric="::error::x", message="a\n::add-mask::x", command="\n::debug::x")
    )
    assert main(["github", "annotations", str(tmp_path)]) == 0
    (line,) = commands_in(capsys.readouterr().out)
    assert line.startswith("::error title=cpu/dev/evil is red::")
