"""The life of an issue, and that nothing is told twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.alarm.world import CELL, ISSUES, World
from tests.nights import COMMITS, green, listing, red
from tests.webserver import Hook, Tracker


def test_a_cell_that_turns_red_opens_one_issue_with_what_since_lost_and_the_command(world: World) -> None:
    assert world.night(green(CELL, commit="a"), green("h100/dev/sound")) == 0
    assert not world.tracker.issues
    assert world.night(red(CELL, commit="b")) == 1
    assert len(world.tracker.issues) == 1
    issue = world.issue()
    assert issue["title"] == f"{CELL} is red: lr-schedule"
    assert issue["labels"] == [{"name": "night-watch"}]
    for said in (
        "resuming does not continue the same training",
        "step 52, 2 steps after the checkpoint of 50",
        "lr-schedule: the position of the learning-rate schedule",
        'nox -s "case(h100)(dev,gpt_resume)"',
        "learning rate at step 51",
    ):
        assert said in issue["body"]


def test_the_range_of_the_first_bad_commit_goes_from_the_last_green_night_to_the_first_red(
    world: World,
) -> None:
    world.night(green(CELL, commit="a"))
    world.night(red(CELL, commit="b"))
    world.night(red(CELL, commit="c"))
    body = world.issue()["body"]
    a, b, c = (COMMITS[name] for name in "abc")
    assert f"https://github.com/someone/something/compare/{a}...{b}" in body
    assert f"git bisect start {b} {a}" in body
    assert f"commit/{c}" in body.partition("last night")[2]
    assert "2 nights" in body


def test_the_range_is_open_when_no_green_night_is_on_record(world: World) -> None:
    world.night(red(CELL, commit="b"))
    assert "or before: no green night is on record" in world.issue()["body"]
    assert "git bisect" not in world.issue()["body"]


def test_a_red_cell_whose_commit_was_green_before_is_called_flaky(world: World) -> None:
    world.night(green(CELL, commit="b"))
    world.night(red(CELL, commit="b"))
    assert "The cell is flaky" in world.issue()["body"]


def test_an_issue_is_updated_without_a_comment_while_the_cell_stays_red_for_the_same_reason(
    world: World,
) -> None:
    world.night(red(CELL, commit="b"))
    world.night(red(CELL, commit="c"))
    assert len(world.tracker.issues) == 1
    assert "2 nights" in world.issue()["body"]
    assert not world.comments()


def test_another_reason_is_said_in_one_comment(world: World) -> None:
    world.night(red(CELL))
    world.night(red(CELL, component="optimizer"))
    world.night(red(CELL, component="optimizer"))
    assert len(world.comments()) == 1
    assert "not for the same reason" in world.comments()[0]
    assert "optimizer" in world.comments()[0]


def test_a_green_cell_closes_its_issue_and_says_so_once(world: World) -> None:
    world.night(red(CELL))
    assert world.night(green(CELL, commit="c")) == 0
    assert world.issue()["state"] == "closed"
    assert world.issue()["state_reason"] == "completed"
    assert "Green again" in world.comments()[0]
    writes = world.writes()
    assert world.night(green(CELL, commit="c")) == 0
    assert world.writes() == writes


def test_a_cell_that_turns_red_again_reopens_its_issue_with_a_new_range(world: World) -> None:
    world.night(green(CELL, commit="a"))
    world.night(red(CELL, commit="b"))
    world.night(green(CELL, commit="c"))
    world.night(red(CELL, commit="d"))
    assert len(world.tracker.issues) == 1
    assert world.issue()["state"] == "open"
    assert f"compare/{COMMITS['c']}...{COMMITS['d']}" in world.issue()["body"]
    assert "1 night" in world.issue()["body"]
    assert "Red again" in world.comments()[-1]


def test_an_issue_closed_by_hand_while_the_cell_is_red_is_reopened(world: World) -> None:
    world.night(red(CELL))
    world.issue()["state"] = "closed"
    world.night(red(CELL))
    assert [issue["state"] for issue in world.tracker.issues] == ["open"]


def test_a_cell_that_did_not_run_leaves_its_issue_alone(world: World, tmp_path: Path) -> None:
    world.night(red(CELL))
    writes = world.writes()
    world.results = tmp_path / "another night"
    world.night(green("h100/dev/sound"))
    assert world.issue()["state"] == "open"
    assert world.writes() == writes


def test_what_people_write_below_the_watch_s_part_stays(world: World) -> None:
    world.night(red(CELL))
    world.issue()["body"] = f"Ann looks at it.\n{world.issue()['body']}\nSeen in #12 too."
    world.night(red(CELL, component="optimizer"))
    body = world.issue()["body"]
    assert body.startswith("Ann looks at it.\n")
    assert body.endswith("\nSeen in #12 too.")
    assert "optimizer" in body


def test_running_twice_changes_nothing_the_second_time(world: World, hook: Hook) -> None:
    world.night(green(CELL, commit="a"))
    for verdict in (red(CELL), red(CELL, component="optimizer"), green(CELL)):
        world.night(verdict)
        writes, told, issue = world.writes(), len(hook.requests), dict(world.issue())
        world.night(verdict, again=True)
        assert (world.writes(), len(hook.requests), world.issue()) == (writes, told, issue)
    assert len(world.tracker.issues) == 1


def test_running_twice_makes_no_second_issue_when_the_state_is_lost(world: World) -> None:
    world.night(green(CELL, commit="a"))
    world.night(red(CELL, commit="b"))
    world.state.unlink()
    world.night(red(CELL, commit="c"))
    assert len(world.tracker.issues) == 1
    # The range is kept by the issue itself.
    assert f"compare/{COMMITS['a']}...{COMMITS['b']}" in world.issue()["body"]


@pytest.mark.parametrize("fault", ["lose", "lie"])
def test_an_answer_that_got_lost_makes_no_second_issue_and_no_second_comment(
    world: World, fault: str
) -> None:
    world.tracker.fail(fault, method="POST", path=ISSUES)
    assert world.night(red(CELL)) == 1
    assert len(world.tracker.issues) == 1
    world.tracker.fail(fault, method="POST", path=f"{ISSUES}/1/comments")
    world.tracker.fail(fault, method="PATCH")
    assert world.night(green(CELL)) == 0
    assert len(world.comments()) == 1
    assert world.issue()["state"] == "closed"


def test_a_request_that_never_arrived_is_made_again(world: World) -> None:
    world.tracker.fail("drop", method="POST", path=ISSUES, times=2)
    assert world.night(red(CELL)) == 1
    assert len(world.tracker.issues) == 1


def test_a_run_that_was_cut_off_between_comment_and_closing_is_finished_by_the_next(world: World) -> None:
    world.night(red(CELL))
    world.tracker.fail((404, {}, {"message": "Not Found"}), method="PATCH")
    assert world.night(green(CELL)) == 2
    assert world.issue()["state"] == "open"
    assert world.night(green(CELL), again=True) == 0
    assert world.issue()["state"] == "closed"
    assert len(world.comments()) == 1


def test_issues_are_found_on_every_page_and_others_are_never_touched(world: World) -> None:
    world.tracker.page = 2
    label = [{"name": "night-watch"}]
    world.night(red(CELL))
    mine = world.issue()["body"]
    for _ in range(5):
        world.tracker.add(labels=label, body="somebody's own, with the label")
    world.tracker.add(body=mine)  # the mark without the label
    world.tracker.add(body=mine, labels=label, pull_request={"url": "…"})
    others = [dict(issue) for issue in world.tracker.issues[1:]]
    assert world.night(green(CELL)) == 0
    assert world.issue()["state"] == "closed"
    assert world.tracker.issues[1:] == others


def test_two_open_issues_of_one_cell_are_both_closed(world: World) -> None:
    world.night(red(CELL))
    world.tracker.add(body=world.issue()["body"], labels=[{"name": "night-watch"}])
    world.night(green(CELL))
    assert [issue["state"] for issue in world.tracker.issues] == ["closed", "closed"]


def test_a_next_page_on_another_server_gets_no_token(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with Tracker() as thief:
        link = {"Link": f'<{thief.url}{ISSUES}?page=2>; rel="next"'}
        world.tracker.fail((200, link, []), method="GET")
        assert world.night(red(CELL)) == 2
        assert not thief.requests
    assert "the next page is on another server" in capsys.readouterr().err


def many(count: int, make: Any = red, pair: str = "h100/dev") -> list[Any]:
    return [make(f"{pair}/case_{number:03d}") for number in range(count)]


def test_many_cells_that_turn_red_together_share_an_issue_until_all_are_green(
    world: World, hook: Hook
) -> None:
    assert world.night(*many(30), *many(3, pair="a100/dev")) == 1
    assert sorted(issue["title"] for issue in world.tracker.issues) == [
        "a100/dev/case_000 is red: lr-schedule",
        "a100/dev/case_001 is red: lr-schedule",
        "a100/dev/case_002 is red: lr-schedule",
        "h100/dev: 30 cells turned red together",
    ]
    assert len(hook.requests) == 1
    shared = next(issue for issue in world.tracker.issues if issue["title"].startswith("h100/dev:"))
    assert "case_029" in shared["body"]
    world.night(*many(29, green))
    assert shared["state"] == "open"
    assert len(world.tracker.issues) == 4
    world.night(*many(30, green))
    assert shared["state"] == "closed"


def test_a_shared_issue_of_hundreds_of_cells_fits(world: World) -> None:
    long = [red(f"h100/dev/{'x' * 90}_{number:04d}") for number in range(400)]
    assert world.night(*long) == 1
    assert len(world.tracker.issues) == 1
    assert len(world.issue()["body"]) <= Tracker.LIMIT
    assert "more" in world.issue()["body"]
    assert world.night(*(green(verdict.cell) for verdict in long)) == 0
    assert world.issue()["state"] == "closed"


def test_a_machine_that_was_silent_is_one_issue_and_no_news_of_its_cells(
    world: World, tmp_path: Path
) -> None:
    names = [verdict.cell for verdict in many(5)]
    file = tmp_path / "listing.json"
    file.write_text(json.dumps(listing(*names, CELL)))
    expect = ("--expect", str(file))
    world.night(*many(5, green), red(CELL), more=expect)
    world.results = tmp_path / "silent"
    world.results.mkdir()
    assert world.night(more=expect) == 1
    assert len(world.tracker.issues) == 2
    assert world.issue(2)["title"] == "h100/dev: 5 cells turned red together"
    assert "no verdict" in world.issue(2)["body"]
    assert not world.comments(1)  # red for a reason; that it did not run is no other one
    world.night(*many(5, green), green(CELL), more=expect)
    assert [issue["state"] for issue in world.tracker.issues] == ["closed", "closed"]


def test_a_cell_that_left_the_matrix_closes_its_issue(world: World, tmp_path: Path) -> None:
    world.night(red(CELL))
    file = tmp_path / "listing.json"
    file.write_text(json.dumps(listing("h100/dev/sound")))
    world.results = tmp_path / "without"
    world.night(green("h100/dev/sound"), more=("--expect", str(file)))
    assert world.issue()["state"] == "closed"
    assert world.issue()["state_reason"] == "not_planned"
