"""harness/night/night.py."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.matrix import Cell
from harness.night.night import read_night
from harness.night.outcome import MISSING, commit
from harness.night.when import since
from harness.verdict import Run, Verdict
from tests.nights import COMMITS, green, not_run, ran, red, write

CELL = "h100/dev/gpt"


@pytest.fixture(autouse=True)
def _no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_SHA", raising=False)


def test_every_verdict_below_the_folder_is_read_and_sorted_by_cell(tmp_path: Path) -> None:
    night = read_night(write(tmp_path, red("h100/dev/b"), green("cpu/lts/a"), green("h100/dev/a")))
    assert [outcome.cell.id for outcome in night.outcomes] == ["cpu/lts/a", "h100/dev/a", "h100/dev/b"]
    assert [outcome.green for outcome in night.outcomes] == [True, True, False]


def test_what_a_run_puts_aside_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, green(CELL))
    aside = tmp_path / "h100/dev/.gpt.old"
    aside.mkdir()
    (aside / "verdict.json").write_text("{")
    assert len(read_night(tmp_path).outcomes) == 1


def test_a_cell_that_was_expected_and_left_nothing_is_red(tmp_path: Path) -> None:
    night = read_night(write(tmp_path, green(CELL)), [Cell.parse(CELL), Cell.parse("h100/dev/lost")])
    lost = night.outcomes[1]
    assert (lost.green, lost.missing, lost.signature) == (False, True, MISSING)
    assert lost.headline.what.startswith("no verdict")
    assert lost.headline.command == 'nox -s "case(h100)(dev,lost)"'


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"checks": 3, "diagnosis": null}', "\xff"])
def test_a_torn_verdict_is_its_own_cell_s_red_and_hides_no_other(tmp_path: Path, text: str) -> None:
    write(tmp_path, green("h100/dev/a"), green(CELL))
    (tmp_path / CELL / "verdict.json").write_bytes(text.encode("latin-1"))
    sound, torn = read_night(tmp_path).outcomes
    assert sound.green
    assert not torn.green
    assert not torn.missing
    assert "cannot be read" in torn.headline.what


def test_a_verdict_in_the_folder_of_another_cell_is_not_taken_for_that_cell_s(tmp_path: Path) -> None:
    green("h100/dev/other").write(tmp_path / CELL / "verdict.json")
    (outcome,) = read_night(tmp_path).outcomes
    assert not outcome.green
    assert "is that of h100/dev/other" in outcome.headline.what


@pytest.mark.parametrize("folder", ["no-such/dev/gpt", "h100/no-such/gpt"])
def test_a_folder_that_is_no_cell_is_an_error(tmp_path: Path, folder: str) -> None:
    green(CELL).write(tmp_path / folder / "verdict.json")
    with pytest.raises(UsageError, match="expected"):
        read_night(tmp_path)


def test_no_results_at_all_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="found none"):
        read_night(tmp_path)


def test_the_commit_is_the_run_s_own_before_the_workflow_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_SHA", COMMITS["f"])
    night = read_night(write(tmp_path, green("h100/dev/a", commit="b"), green("h100/dev/b", commit="")))
    assert [outcome.commit for outcome in night.outcomes] == [COMMITS["b"], COMMITS["f"]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ABCDEF1", "abcdef1"),
        (COMMITS["a"] + "+", COMMITS["a"]),
        ("main", None),
        ("abc", None),
        ("", None),
        (None, None),
        (f"{COMMITS['a']}\n](http://x)", None),
    ],
)
def test_a_commit_is_hexadecimal_or_none(text: object, found: str | None) -> None:
    assert commit(text) == found


def test_the_same_reason_has_the_same_signature_and_another_has_another(tmp_path: Path) -> None:
    def signature(verdict: object) -> str:
        (outcome,) = read_night(write(tmp_path, verdict)).outcomes  # type: ignore[arg-type]
        return outcome.signature

    first = signature(red(CELL))
    assert signature(red(CELL, step=53, commit="c")) == first
    assert signature(red(CELL, component="optimizer")) != first
    assert signature(red(CELL, metric="num-zeros")) != first


def test_the_same_results_have_the_same_digest(tmp_path: Path) -> None:
    verdict = red(CELL)
    first = read_night(write(tmp_path, verdict)).digest
    assert read_night(write(tmp_path, verdict)).digest == first
    assert read_night(write(tmp_path, green(CELL))).digest != first


# -- which night -----------------------------------------------------------------------------------


def ago(**time: float) -> str:
    return ran(timedelta(**time)).started


def of(verdict: Verdict, **time: float) -> Verdict:
    return replace(verdict, run=ran(timedelta(**time)))


def outcome_of(tmp_path: Path, verdict: Verdict, text: str | None, *, strict: bool = False) -> Any:
    (outcome,) = read_night(write(tmp_path, verdict), since=since(text, strict=strict)).outcomes
    return outcome


@pytest.mark.parametrize("verdict", [green(CELL), red(CELL), not_run(CELL, "skipped")])
def test_a_verdict_of_another_night_is_red_and_says_when_it_ran(tmp_path: Path, verdict: Verdict) -> None:
    early = of(verdict, hours=3)
    outcome = outcome_of(tmp_path, early, ago(hours=2))
    assert (outcome.state, outcome.red, outcome.missing, outcome.verdict) == ("old", True, True, None)
    assert early.run is not None
    day, _, time = early.run.started.rstrip("Z").partition("T")
    assert f"it ran at {day} {time} UTC, before this night" in outcome.headline.what
    assert outcome.signature == MISSING
    assert outcome_of(tmp_path, early, ago(hours=4)).state == verdict.status


def test_without_a_time_the_alarm_takes_a_day_and_others_take_everything(tmp_path: Path) -> None:
    assert outcome_of(tmp_path, of(green(CELL), hours=23), None, strict=True).green
    assert outcome_of(tmp_path, of(green(CELL), hours=25), None, strict=True).state == "old"
    assert outcome_of(tmp_path, of(green(CELL), days=300), None).green


def test_a_verdict_from_before_there_were_runs_says_it_by_its_end(tmp_path: Path) -> None:
    verdict = replace(green(CELL, finished=ago(hours=30)), run=None)
    assert outcome_of(tmp_path, verdict, None, strict=True).state == "old"
    assert outcome_of(
        tmp_path, replace(green(CELL, finished=ago(hours=1)), run=None), None, strict=True
    ).green


@pytest.mark.parametrize("run", [None, Run("x", "yesterday", ""), Run("x", "", "2026-13-01T00:00:00Z")])
def test_a_verdict_without_a_time_is_red_where_it_matters_and_said_elsewhere(
    tmp_path: Path, run: Run | None
) -> None:
    verdict = replace(green(CELL), run=run)
    strict = outcome_of(tmp_path, verdict, None, strict=True)
    assert strict.red
    assert "nobody knows when it ran" in strict.headline.what
    shown = outcome_of(tmp_path, verdict, ago(hours=1))
    assert shown.green
    assert "nobody knows when it ran" in shown.remark
    assert not outcome_of(tmp_path, verdict, None).remark


def test_every_time_of_a_verdict_counts(tmp_path: Path) -> None:
    now = ago()
    assert (
        outcome_of(tmp_path, replace(green(CELL), run=Run("x", now, ago(days=9))), ago(hours=1)).state
        == "old"
    )
    early = replace(green(CELL, finished=ago(days=9)), run=Run("x", now, now))
    assert outcome_of(tmp_path, early, ago(hours=1)).state == "old"


def test_a_time_that_is_still_to_come_is_none_of_this_night(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, of(green(CELL), hours=-30), None, strict=True)
    assert outcome.red
    assert "still to come" in outcome.headline.what


@pytest.mark.parametrize("text", ["", "tonight", "2026-99-01", "2999-01-01T00:00:00Z", "12:00"])
def test_a_night_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        since(text)


@pytest.mark.parametrize(
    "text",
    ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05", "2026-01-02T04:04:05+01:00", "2026-01-02 03:04:05.9Z"],
)
def test_a_night_is_told_in_utc_to_the_second(text: str) -> None:
    assert since(text).start == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def test_refused_is_red_skipped_only_where_it_was_expected(tmp_path: Path) -> None:
    write(tmp_path, not_run("cpu/dev/a", "refused", "the golden is broken"), not_run("h100/dev/a", "skipped"))
    refused, skipped = read_night(tmp_path).outcomes
    assert (refused.red, refused.green, skipped.red, skipped.green) == (True, False, False, False)
    assert refused.headline.what == "refused: the golden is broken"
    assert refused.headline.since == "no step was judged"
    _, skipped = read_night(tmp_path, [Cell.parse("h100/dev/a")]).outcomes
    assert skipped.red


def test_refused_for_another_reason_is_another_red(tmp_path: Path) -> None:
    def signature(message: str) -> str:
        return str(outcome_of(tmp_path, not_run(CELL, "refused", message), None).signature)

    assert signature("a") == signature("a") != signature("b")


def test_passed_without_a_check_is_no_pass(tmp_path: Path) -> None:
    path = write(tmp_path, green(CELL)) / CELL / "verdict.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "checks": []}))
    (outcome,) = read_night(tmp_path).outcomes
    assert outcome.red
    assert "passed without a check" in outcome.headline.what


def test_a_run_that_began_and_left_nothing_is_red_when_the_night_is_over(tmp_path: Path) -> None:
    write(tmp_path, green("cpu/dev/a"))
    (tmp_path / CELL).mkdir(parents=True)
    (tmp_path / CELL / ".harness-cell").touch()
    _, ended = read_night(tmp_path).outcomes
    assert ended.red
    assert "left no verdict" in ended.headline.what


def test_failed_without_a_failed_check_is_red_all_the_same(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, replace(red(CELL), checks=(), diagnosis=None), None)
    assert outcome.red
    assert outcome.headline.what
