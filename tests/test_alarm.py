"""harness/alarm, against servers that behave like GitHub and like a webhook, failures included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.alarm.spells import Spell, unwrap, wrap
from harness.checks import Check
from harness.commands.cli import main
from tests.nights import COMMITS, green, listing, red, write
from tests.webserver import Fault, Hook, Tracker

ROOT = Path(__file__).parents[1]
CELL = "h100/dev/gpt_resume"
ISSUES = "/repos/someone/something/issues"


class World:
    """A repository, a folder of results, and the watch that is run again and again."""

    def __init__(self, path: Path, tracker: Tracker) -> None:
        self.path, self.tracker = path, tracker
        self.results = path / "results"
        self.state = path / "state.json"
        self.nights = 0

    def night(
        self, *verdicts: Any, again: bool = False, more: tuple[str, ...] = (), fast: bool = True
    ) -> int:
        """One night with these verdicts beside those of the nights before."""
        self.nights += not again
        write(self.results, *verdicts)
        wait = ("--wait", "0.01") if fast else ()
        name = ("--night", f"night-{self.nights}")
        return main(["alarm", str(self.results), "--state", str(self.state), *name, *wait, *more])

    def issue(self, number: int = 1) -> dict[str, Any]:
        return self.tracker.issues[number - 1]

    def comments(self, number: int = 1) -> list[str]:
        return [comment["body"] for comment in self.tracker.comments[number]]

    def writes(self) -> int:
        return len(self.tracker.made("POST")) + len(self.tracker.made("PATCH"))


@pytest.fixture(autouse=True)
def _outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [
        name for name in os.environ if name.startswith(("GITHUB_", "HARNESS_")) or "proxy" in name.lower()
    ]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    with Tracker() as tracker:
        monkeypatch.setenv("GITHUB_TOKEN", Tracker.TOKEN)
        monkeypatch.setenv("GITHUB_REPOSITORY", Tracker.REPOSITORY)
        monkeypatch.setenv("GITHUB_API_URL", tracker.url)
        yield World(tmp_path, tracker)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    with Hook() as server:
        monkeypatch.setenv("HARNESS_WEBHOOK_URL", server.url)
        yield server


# -- the life of an issue --------------------------------------------------------------------------


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


# -- idempotence -----------------------------------------------------------------------------------


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


# -- failures of the server ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_is_tried_again(world: World, status: int) -> None:
    world.tracker.fail((status, {}, {"message": "Server Error"}), method="GET", times=3)
    assert world.night(red(CELL)) == 1
    assert len(world.tracker.issues) == 1


@pytest.mark.parametrize(
    "fault",
    [
        (429, {"Retry-After": "1"}, {"message": "Too Many Requests"}),
        (403, {"Retry-After": "1"}, {"message": "You have exceeded a secondary rate limit."}),
        (503, {"Retry-After": "1"}, {"message": "Unavailable"}),
    ],
)
def test_a_server_that_says_how_long_to_wait_is_obeyed(world: World, fault: Any) -> None:
    world.tracker.fail(fault, method="GET")
    assert world.night(red(CELL)) == 1
    first, second = world.tracker.made("GET")[:2]
    assert second.at - first.at >= 1.0
    assert len(world.tracker.issues) == 1


def test_a_limit_on_a_write_is_waited_for_and_the_write_made_once(world: World) -> None:
    limit: Fault = (
        403,
        {},
        {"message": "You have exceeded a secondary rate limit. Please wait a few minutes."},
    )
    world.tracker.fail(limit, method="POST", path=ISSUES, times=2)
    assert world.night(red(CELL)) == 1
    first, second, third = (request.at for request in world.tracker.made("POST", ISSUES))
    assert second - first >= 0.6  # 60 times --wait 0.01: it did not say how long
    assert third - second >= 1.2
    assert len(world.tracker.issues) == 1


def test_an_allowance_that_is_used_up_is_waited_for_until_it_is_renewed(world: World) -> None:
    reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 1)}
    world.tracker.fail((403, reset, {"message": "API rate limit exceeded"}), method="GET")
    assert world.night(red(CELL)) == 1
    first, second = world.tracker.made("GET")[:2]
    assert second.at - first.at >= 1.0


def test_a_server_that_asks_for_hours_is_told_no(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.tracker.fail((429, {"Retry-After": "7200"}, {"message": "Too Many Requests"}), method="GET")
    assert world.night(red(CELL)) == 2
    assert "asks to wait 7200 s" in capsys.readouterr().err


def test_a_server_that_never_recovers_is_given_up(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.tracker.fail((500, {}, {"message": "Server Error"}), method="GET", times=20)
    assert world.night(red(CELL)) == 2
    assert len(world.tracker.made("GET")) == 6
    assert "after 6 tries" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "token is not valid"), (403, "permission to write issues"), (410, "switched off")],
)
def test_a_refusal_is_not_tried_again_and_says_what_to_do(
    world: World, capsys: pytest.CaptureFixture[str], status: int, advice: str
) -> None:
    world.tracker.fail((status, {}, {"message": "No."}), method="GET", times=9)
    assert world.night(red(CELL)) == 2
    assert len(world.tracker.requests) == 1
    assert advice in capsys.readouterr().err


def test_one_issue_that_cannot_be_kept_does_not_silence_the_others(world: World, hook: Hook) -> None:
    refused: Fault = (422, {}, {"message": "Validation Failed", "errors": [{"message": "no"}]})
    world.tracker.fail(refused, method="POST", path=ISSUES)
    assert world.night(red(CELL), red("h100/dev/other")) == 2
    assert [issue["title"] for issue in world.tracker.issues] == ["h100/dev/other is red: lr-schedule"]
    assert len(hook.requests) == 1
    assert world.night(again=True) == 1
    assert len(world.tracker.issues) == 2


def test_nobody_there_to_answer_ends_with_2(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tracker() as gone:
        address = gone.url
    monkeypatch.setenv("GITHUB_API_URL", address)
    assert world.night(red(CELL)) == 2


# -- secrets ---------------------------------------------------------------------------------------


def alarm(folder: Path, tracker: Tracker, hook: Hook) -> tuple[int, str]:
    """As a process, with everything that Python and its libraries may say."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "GITHUB_TOKEN": Tracker.TOKEN,
        "GITHUB_REPOSITORY": Tracker.REPOSITORY,
        "GITHUB_API_URL": tracker.url,
        "HARNESS_WEBHOOK_URL": hook.url,
    }
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "harness", "alarm", "results", "--wait", "0.01"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert Tracker.TOKEN not in said
    assert not any(part in said for part in Hook.SECRET.split("/"))
    assert "Traceback" not in said
    return done.returncode, said


def test_no_secret_is_printed_when_servers_fail(tmp_path: Path) -> None:
    write(tmp_path / "results", red(CELL))
    with Tracker() as tracker, Hook() as hook:
        hook.fail("drop", times=3)
        hook.fail((500, {}, {"message": "no"}), times=30)
        tracker.fail("drop", method="GET", times=2)
        status, said = alarm(tmp_path, tracker, hook)
    assert status == 2
    assert "webhook: POST /: 500 no: after 6 tries" in said


def test_no_secret_is_printed_when_nobody_is_there(tmp_path: Path) -> None:
    write(tmp_path / "results", red(CELL))
    with Tracker() as tracker, Hook() as hook:
        pass  # both ports are closed again
    status, said = alarm(tmp_path, tracker, hook)
    assert status == 2
    assert "no answer after 6 tries: NewConnectionError" in said
    with Tracker() as there:
        status, said = alarm(tmp_path, there, hook)
    assert status == 2
    assert "webhook: POST /: no answer after 6 tries" in said


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GITHUB_TOKEN", "secret\nX-Other: 1"),
        ("HARNESS_WEBHOOK_URL", "https://hooks.example/se cret"),
        ("HARNESS_WEBHOOK_URL", "http://hooks.example/secret"),
        ("HARNESS_WEBHOOK_URL", "https://[secret"),
        ("HARNESS_WEBHOOK_URL", "ftp://secret"),
        ("GITHUB_API_URL", "http://api.example"),
    ],
)
def test_a_secret_that_cannot_be_sent_safely_is_refused_without_being_shown(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    assert world.night(red(CELL)) == 2
    said = capsys.readouterr()
    assert "secret" not in said.out + said.err


# -- untrusted text --------------------------------------------------------------------------------


EVIL = "@everyone see #1, <img src=x> ``` [x](http://x) | ` --> <!-- harness-alarm:end --> \x1b[2J \u202e"


def test_untrusted_text_notifies_nobody_and_ends_nothing(world: World) -> None:
    from markdown_it import MarkdownIt

    evil = red(CELL, message=EVIL, evidence=(EVIL, "a ````` b"), command=f"nox {EVIL}")
    world.night(evil)
    world.night(red(CELL, component="optimizer", message=EVIL, evidence=(EVIL,), command=f"nox {EVIL}"))
    world.night(evil)
    assert unwrap(world.issue()["body"]) is not None
    for text in (world.issue()["body"], *world.comments()):
        assert "\x1b" not in text
        assert "\u202e" not in text
        shown = MarkdownIt("commonmark").enable("table").parse(text)
        plain = [
            child.content
            for token in shown
            for child in token.children or []
            if child.type not in ("code_inline", "html_inline")
        ]
        assert not any("@" in part or "#1" in part for part in plain)
        links = [
            child.attrs["href"]
            for token in shown
            for child in token.children or []
            if child.type == "link_open"
        ]
        assert all(str(link).startswith("https://github.com/someone/something/") for link in links)
        html = [
            child.content for token in shown for child in token.children or [] if child.type == "html_inline"
        ]
        html += [token.content for token in shown if token.type == "html_block"]
        assert all(part.startswith("<!-- harness-alarm:") for part in html)


def test_an_issue_stays_below_github_s_limit_however_much_there_is_to_say(world: World) -> None:
    checks = tuple(
        Check(f"resumed: {n}", None, "continuous", "exact", passed=False, message="x" * 9000)
        for n in range(300)
    )
    monster = red(CELL, message="m" * 90_000, evidence=("e" * 90_000,) * 50, more=checks)
    assert world.night(monster) == 1
    world.issue()["body"] += "\n" + "what people wrote " * 1000
    assert (
        world.night(red(CELL, component="optimizer", message="n" * 90_000, evidence=("f" * 90_000,) * 50))
        == 1
    )
    assert len(world.issue()["body"]) <= Tracker.LIMIT
    assert world.issue()["body"].endswith("what people wrote ")


@pytest.mark.parametrize(
    "damage",
    [
        '{"subject":"../../etc","good":null,"bad":null,"since":"2026-01-01","nights":1,"night":"","signature":"","cells":[]}',
        '{"subject":"h100/dev/x"}',
        "[1]",
        "{not json}",
        "{}",
    ],
)
def test_a_mark_that_people_have_damaged_counts_as_none(damage: str) -> None:
    assert unwrap(f"<!-- harness-alarm:begin {damage} -->") is None


def test_a_mark_survives_its_way_through_an_issue() -> None:
    spell = Spell(CELL, None, COMMITS["b"], "2026-11-24", 3, "-->night--", "f" * 16, (CELL,))
    body = wrap(spell, "text")
    assert body.count("-->") == 2
    assert unwrap(body) == spell


# -- many at once ----------------------------------------------------------------------------------


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


# -- the webhook -----------------------------------------------------------------------------------


def test_the_webhook_is_told_what_changed_and_nothing_else(world: World, hook: Hook) -> None:
    world.night(green(CELL, commit="a"))
    assert not hook.requests
    world.night(red(CELL, commit="b"))
    world.night(red(CELL, commit="c"))
    world.night(green(CELL, commit="d"))
    turned, recovered = (request.content for request in hook.requests)
    assert turned["format"] == "harness-alarm/1"
    assert turned["status"] == "red"
    assert turned["commit"] == COMMITS["b"]
    assert turned["cells"] == {"red": 1, "quarantined": 0, "green": 0}
    (news,) = turned["news"]
    assert news["kind"] == "opened"
    assert news["subject"] == CELL
    assert news["component"] == "lr-schedule"
    assert news["first_bad_commit"] == {"after": COMMITS["a"], "up_to": COMMITS["b"]}
    assert news["issues"] == ["https://github.com/someone/something/issues/1"]
    assert recovered["status"] == "green"
    assert [news["kind"] for news in recovered["news"]] == ["closed"]
    assert turned["id"] != recovered["id"]


def test_the_documentation_shows_what_the_webhook_is_told(world: World, hook: Hook) -> None:
    world.night(red(CELL))
    (told,) = (request.content for request in hook.requests)
    text = (ROOT / "docs" / "github.md").read_text()
    shown = json.loads(text.partition("```json\n")[2].partition("```")[0])
    assert shown.keys() == told.keys()
    assert shown["news"][0].keys() == told["news"][0].keys()
    assert shown["cells"].keys() == told["cells"].keys()
    assert shown["format"] == told["format"]


def test_slack_gets_its_own_format_in_which_nothing_notifies_anybody(world: World, hook: Hook) -> None:
    evil = "<!channel> & <@U123> " + "z" * 9000
    world.night(red(CELL, evidence=(evil,), command=f"run {evil}"), more=("--webhook-format", "slack"))
    (request,) = hook.requests
    assert set(request.content) == {"text", "blocks"}
    texts = [block["text"]["text"] for block in request.content["blocks"]]
    assert all(len(text) <= 3000 for text in texts)
    assert len(texts) <= 50
    whole = "\n".join(texts)
    assert "&lt;!channel&gt; &amp; &lt;@U123&gt;" in whole
    assert "<!" not in whole
    assert "<@" not in whole
    assert f"<https://github.com/someone/something/issues/1|{CELL}>" in whole


def test_without_github_the_webhook_alone_tells_red_and_green(tmp_path: Path, hook: Hook) -> None:
    def night(name: str, verdict: Any) -> int:
        results = write(tmp_path / "results", verdict)
        state = str(tmp_path / "state.json")
        return main(["alarm", str(results), "--state", state, "--night", name, "--wait", "0"])

    assert night("1", green(CELL, commit="a")) == 0
    assert night("2", red(CELL, commit="b")) == 1
    assert night("3", red(CELL, commit="b")) == 1
    assert night("4", green(CELL, commit="c")) == 0
    assert [[news["kind"] for news in request.content["news"]] for request in hook.requests] == [
        ["opened"],
        ["closed"],
    ]
    assert hook.requests[0].content["news"][0]["first_bad_commit"]["after"] == COMMITS["a"]


def test_a_webhook_that_fails_is_told_by_the_next_run_and_the_issue_is_not_opened_twice(
    world: World, hook: Hook
) -> None:
    hook.fail((500, {}, None), times=6)
    assert world.night(red(CELL)) == 2
    assert len(world.tracker.issues) == 1
    assert world.night(red(CELL), red("h100/dev/other")) == 1
    assert len(world.tracker.issues) == 2
    news = hook.requests[-1].content["news"]
    assert [(one["kind"], one["subject"]) for one in news] == [("opened", CELL), ("opened", "h100/dev/other")]
    told = len(hook.requests)
    assert world.night(red(CELL)) == 1
    assert len(hook.requests) == told


def test_what_the_webhook_is_owed_gives_way_to_newer_news_of_the_same_cell(world: World, hook: Hook) -> None:
    hook.fail((500, {}, None), times=6)
    assert world.night(red(CELL)) == 2
    assert world.night(green(CELL)) == 0
    assert [one["kind"] for one in hook.requests[-1].content["news"]] == ["closed"]


# -- quarantine, dry run, usage --------------------------------------------------------------------


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
