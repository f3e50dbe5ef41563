"""The webhook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.commands.cli import main
from tests.alarm.world import CELL, ROOT, World
from tests.nights import COMMITS, green, red, write
from tests.webserver import Hook


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
