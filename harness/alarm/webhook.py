"""News for a webhook: JSON of our own, or a message as Slack takes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from harness.alarm.client import Client
from harness.alarm.texts import Place
from harness.alarm.watch import NEWS, Step, Watch
from harness.report.github.markdown import cut
from harness.text import one_line

Format = Literal["auto", "generic", "slack"]
FORMAT = "harness-alarm/1"
_MOST = 50  # entries of a list
_SLACK_TEXT = 2900  # characters; Slack refuses a section of more than 3000
_SLACK_LINES = 20
_WORDS = {
    "opened": "turned red",
    "reopened": "is red again",
    "changed": "is still red, for another reason",
    "closed": "is green again",
    "gone": "is not in the matrix any more",
}


def slack_wanted(format_: Format, url: str) -> bool:
    """Whether ``url`` is to have Slack's format; ``auto`` goes by the host."""
    if format_ != "auto":
        return format_ == "slack"
    try:
        return urlsplit(url).hostname == "hooks.slack.com"
    except ValueError:
        return False


def generic(
    done: Sequence[tuple[Step, tuple[int, ...]]], watch: Watch, complaints: Sequence[str], place: Place
) -> dict[str, Any]:
    """The news as JSON; the same news have the same ``id``, by which a receiver can tell a repetition.

    Args:
        done: the steps, each with the numbers of its issues.
        watch: which judged the night.
        complaints: of the quarantine file.
        place: where the night ran.
    """
    news = [_news(step, numbers, place) for step, numbers in done if step.kind in NEWS]
    newer = {one["subject"] for one in news}
    news = [*(one for one in watch.memory.owed if one["subject"] not in newer), *news]
    red, held = watch.red(), watch.held()
    content: dict[str, Any] = {
        "format": FORMAT,
        "status": "red" if red or complaints else "green",
        "night": watch.name,
        "repository": place.repository,
        "commit": watch.night.commit,
        "run": place.run_url,
        "cells": {
            "red": len(red),
            "quarantined": len(held),
            "green": sum(outcome.green for outcome in watch.night.outcomes),
        },
        "news": news[:_MOST],
        "news_left_out": max(0, len(news) - _MOST),
        "quarantined": [outcome.cell.id for outcome in held[:_MOST]],
        "quarantine_complaints": [one_line(text) for text in complaints[:_MOST]],
    }
    said = json.dumps([watch.name, content["news"], content["quarantine_complaints"]], sort_keys=True)
    return {"id": hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()[:32], **content}


def slack(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same for Slack: a text for notifications, and blocks."""
    counts = content["cells"]
    head = f"Night watch: {counts['red']} red, {counts['quarantined']} in quarantine, {counts['green']} green"
    lines = [_slack_line(news) for news in content["news"]]
    lines += [f"*quarantine*: {_slack(cut(text, 400))}" for text in content["quarantine_complaints"]]
    shown = lines[:_SLACK_LINES]
    more = len(lines) - len(shown) + content["news_left_out"]
    blocks = [_section(f"*{_slack(head)}*"), *(_section(line) for line in shown)]
    if more:
        blocks.append(_section(f"and {more} more"))
    if content["run"]:
        blocks.append(_section(f"<{content['run']}|run>"))
    return {"text": _slack(head), "blocks": blocks}


def post(client: Client, content: Mapping[str, Any]) -> None:
    """Tell it; after a lost answer once more, so that it may come twice, but does not get lost."""
    client.write("POST", "", content, again=True)


def _news(step: Step, numbers: tuple[int, ...], place: Place) -> dict[str, Any]:
    spell = step.spell
    first = step.outcomes[0] if step.outcomes else None
    alone = first is not None and len(step.outcomes) == 1 and step.kind not in ("closed", "gone")
    head = first.headline if first is not None and alone else None
    return {
        "kind": step.kind,
        "subject": spell.subject,
        "cells": len(spell.cells),
        "what": cut(head.what, 600) if head else None,
        "since_step": head.since if head else None,
        "component": first.component if first and alone else None,
        "reproduce": head.command if head else None,
        "first_bad_commit": {"after": spell.good, "up_to": spell.bad},
        "red_since": spell.since,
        "nights": spell.nights,
        "issues": [place.issue_url(number) for number in numbers if number],
    }


def _slack_line(news: Mapping[str, Any]) -> str:
    subject = _slack(news["subject"])
    if news["issues"]:
        subject = f"<{news['issues'][0]}|{subject}>"
    many = f" ({news['cells']} cells)" if news["cells"] > 1 else ""
    parts = [f"*{subject}*{many} {_WORDS[news['kind']]}"]
    if news["what"]:
        lost = news["component"] or "not diagnosed"
        parts.append(f"{_slack(news['what'])}; since {_slack(news['since_step'])}; lost: {_slack(lost)}")
    if news["reproduce"]:
        parts.append(f"`{_slack(news['reproduce']).replace('`', chr(39))}`")
    return "\n".join(parts)


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": cut(text, _SLACK_TEXT)}}


def _slack(text: str) -> str:
    """Slack's three characters: without them there is no link, no channel, nobody to notify."""
    return one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
