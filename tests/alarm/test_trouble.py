"""Failures of the server, secrets, untrusted text."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.alarm.spells import Spell, unwrap, wrap
from harness.checks import Check
from tests.alarm.world import CELL, ISSUES, ROOT, World
from tests.nights import COMMITS, red, write
from tests.webserver import Fault, Hook, Tracker


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
