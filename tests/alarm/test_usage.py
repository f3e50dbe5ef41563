"""Quarantine, dry run, usage."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from harness.commands.cli import main
from tests.alarm.world import CELL, World
from tests.nights import COMMITS, green, listing, not_run, ran, red, write
from tests.webserver import Hook


def test_the_issue_of_a_cell_in_quarantine_is_left_alone_until_it_is_taken_out(
    world: World, tmp_path: Path
) -> None:
    world.night(red(CELL))
    entry = f"- {{cell: {CELL}, reason: flaky, owner: ann, expires: 2999-01-01, green_nights: 9}}\n"
    (tmp_path / "quarantine.yaml").write_text(entry)
    assert world.night(red(CELL)) == 0
    assert world.night(green(CELL)) == 0
    assert world.night(red(CELL)) == 0
    assert world.issue()["state"] == "open"
    assert len(world.comments()) == 1
    assert "in quarantine until 2999-01-01" in world.comments()[0]
    (tmp_path / "quarantine.yaml").unlink()
    assert world.night(green(CELL)) == 0
    assert world.issue()["state"] == "closed"


def test_a_red_cell_in_quarantine_opens_no_issue(world: World, hook: Hook, tmp_path: Path) -> None:
    entry = "- {cell: 'h100/*/*', reason: flaky, owner: ann, expires: 2999-01-01, green_nights: 9}\n"
    (tmp_path / "quarantine.yaml").write_text(entry)
    assert world.night(red(CELL)) == 0
    assert not world.tracker.issues
    assert not hook.requests


def test_an_entry_that_is_over_is_told_once_a_night(world: World, hook: Hook, tmp_path: Path) -> None:
    entry = f"- {{cell: {CELL}, reason: flaky, owner: ann, expires: 2020-01-01, green_nights: 9}}\n"
    (tmp_path / "quarantine.yaml").write_text(entry)
    assert world.night(green(CELL)) == 1
    assert world.night(again=True) == 1
    assert len(hook.requests) == 1
    (said,) = hook.requests[0].content["quarantine_complaints"]
    assert "expired on 2020-01-01" in said
    assert world.night(green(CELL)) == 1
    assert len(hook.requests) == 2


def test_a_dry_run_writes_nothing_and_says_what_it_would(
    world: World, hook: Hook, capsys: pytest.CaptureFixture[str]
) -> None:
    world.night(red("h100/dev/other"))
    before, writes, told = world.state.read_text(), world.writes(), len(hook.requests)
    assert world.night(red(CELL), green("h100/dev/other"), more=("--dry-run",)) == 1
    said = capsys.readouterr().out
    assert f"dry run: {CELL}: turned red: issue opened" in said
    assert "dry run: h100/dev/other: green again: issue closed" in said
    assert (world.state.read_text(), world.writes(), len(hook.requests)) == (before, writes, told)


def test_a_dry_run_needs_nobody_to_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "results", red(CELL))
    assert main(["alarm", str(tmp_path / "results"), "--dry-run"]) == 1
    assert f"dry run: {CELL}: turned red" in capsys.readouterr().out


def test_without_anybody_to_tell_it_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "results", green(CELL))
    assert main(["alarm", str(tmp_path / "results")]) == 2
    assert "nobody to tell" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more",
    [("--label", "a,b"), ("--label", ""), ("--wait", "-1"), ("--together", "0"), ("--repository", "x")],
)
def test_an_option_that_makes_no_sense_is_refused(world: World, more: tuple[str, str]) -> None:
    assert world.night(red(CELL), more=more) == 2
    assert not world.tracker.requests


def test_a_folder_without_results_is_an_error_not_a_quiet_night(tmp_path: Path) -> None:
    assert main(["alarm", str(tmp_path), "--dry-run"]) == 2


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 2}', '{"format": 1, "cells": {"x": {"streak": "3"}}}']
)
def test_a_state_that_is_none_is_refused(world: World, text: str) -> None:
    world.state.write_text(text)
    assert world.night(red(CELL)) == 2
    assert not world.tracker.requests
    assert world.state.read_text() == text


def test_a_state_written_by_one_night_is_read_by_the_next(world: World) -> None:
    world.night(green(CELL, commit="a"), red("h100/dev/other"))
    state = json.loads(world.state.read_text())
    assert state["cells"][CELL]["good"] == COMMITS["a"]
    assert [spell["subject"] for spell in state["spells"]] == ["h100/dev/other"]
    assert [path.name for path in world.path.iterdir() if path.name.startswith(".")] == []


# -- which night, and what should be in it ---------------------------------------------------------


def dry(tmp_path: Path, *more: str) -> int:
    return main(["alarm", str(tmp_path / "results"), "--dry-run", *more])


def test_yesterday_s_green_is_red(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = replace(green(CELL), run=ran(timedelta(hours=30)))
    write(tmp_path / "results", old, green("h100/dev/sound"))
    assert dry(tmp_path) == 1
    said = capsys.readouterr().out
    assert f"{CELL}: its verdict is old: it ran at " in said
    assert "1 red, 0 red in quarantine, 1 green" in said
    assert dry(tmp_path, "--since", ran(timedelta(hours=31)).started) == 0
    assert dry(tmp_path, "--since", ran(timedelta(hours=-3)).started) == 2


def test_a_night_that_skipped_everything_has_held_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "results", not_run(CELL, "skipped", "no GPU"))
    assert dry(tmp_path) == 3
    assert "0 red, 0 red in quarantine, 0 green, 1 skipped" in capsys.readouterr().out
    write(tmp_path / "results", green("h100/dev/sound"))
    assert dry(tmp_path) == 0
    file = tmp_path / "listing.json"
    file.write_text(json.dumps(listing(CELL, "h100/dev/sound")))
    assert dry(tmp_path, "--expect", str(file)) == 1
    assert f"{CELL}: skipped: no GPU" in capsys.readouterr().out


def test_a_cell_that_is_skipped_keeps_its_issue(world: World) -> None:
    world.night(red(CELL))
    world.night(not_run(CELL, "skipped"), green("h100/dev/sound"))
    assert world.issue()["state"] == "open"
    assert not world.comments()


def test_a_refused_cell_opens_an_issue_that_says_why(world: World) -> None:
    assert world.night(not_run(CELL, "refused", "the golden is broken")) == 1
    assert "refused: the golden is broken" in world.issue()["body"]


@pytest.mark.parametrize(
    ("cells", "more"),
    [
        ((), ()),
        ((CELL,), ("--hardware", "h200")),
        ((CELL,), ("--hardware", "h100", "--hardware", "h200")),
        ((CELL,), ("--track", "lts")),
    ],
)
def test_an_expectation_of_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cells: tuple[str, ...], more: tuple[str, ...]
) -> None:
    write(tmp_path / "results", green(CELL))
    file = tmp_path / "listing.json"
    file.write_text(json.dumps(listing(*cells)))
    assert dry(tmp_path, "--expect", str(file), *more) == 2
    assert "nothing would be expected" in capsys.readouterr().err


def test_what_to_expect_of_no_listing_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "results", green(CELL))
    assert dry(tmp_path, "--hardware", "h100") == 2
