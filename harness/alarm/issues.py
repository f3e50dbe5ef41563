"""The issues of one repository that belong to the night watch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from typing import Any

from harness.alarm import texts
from harness.alarm.client import Client, Unsure
from harness.alarm.spells import unwrap, wrap
from harness.alarm.texts import Place
from harness.alarm.watch import Known, Step
from harness.errors import AlarmError
from harness.night.quarantine import Quarantine

_LOOK_BACK = timedelta(days=90)  # an older closed issue is another story


class Issues:
    """Reads and writes them.

    Args:
        client: talks to GitHub's API.
        label: every issue of the watch has it; others are never touched.
        place: where the night ran.
        quarantine: for what is said of a cell in it.
    """

    def __init__(self, client: Client, label: str, place: Place, quarantine: Quarantine) -> None:
        self._client, self._label = client, label
        self._place, self._quarantine = place, quarantine
        self._path = f"/repos/{place.repository}/issues"
        self._bodies: dict[int, str] = {}

    def known(self) -> dict[str, Known]:
        """By subject: every open issue, and the closed ones of late."""
        since = _days_before(self._place.today)
        found: dict[str, Known] = {}
        for number, spell in self._listed("closed", since):
            before = found.get(spell.subject)
            if before is None or number > (before.closed or 0):
                found[spell.subject] = Known(spell, closed=number)
        by_subject: dict[str, dict[int, Any]] = {}
        for number, spell in self._listed("open"):
            by_subject.setdefault(spell.subject, {})[number] = spell
        for subject, spells in by_subject.items():
            closed = found[subject].closed if subject in found else None
            found[subject] = Known(spells[min(spells)], tuple(sorted(spells)), closed)
        return found

    def perform(self, step: Step) -> tuple[int, ...]:
        """Carry one step out; the numbers of its issues."""
        place, night, known = self._place, step.spell.night, step.known
        if known is None:
            return (self._open(step),)
        if step.kind == "reopened" and known.closed is not None:
            self._comment(known.closed, f"reopened {night}", texts.reopened(step, place))
            self._update(known.closed, step, state="open")
            return (known.closed,)
        for number in known.open:
            if step.kind == "changed":
                self._comment(number, f"changed {night} {step.spell.signature}", texts.changed(step, place))
            elif step.kind == "closed":
                self._comment(number, f"closed {night}", texts.closed(step, place))
                self._patch(number, {"state": "closed", "state_reason": "completed"})
            elif step.kind == "gone":
                self._comment(number, f"gone {night}", texts.gone(place))
                self._patch(number, {"state": "closed", "state_reason": "not_planned"})
            elif step.kind == "quarantined":
                text = texts.quarantined(step, self._quarantine)
                self._comment(number, f"quarantined {text}", text)
            if step.kind in ("changed", "stays"):
                self._update(number, step)
        return known.open

    # -- reading -------------------------------------------------------------------------------

    def _listed(self, state: str, since: str = "") -> Iterator[tuple[int, Any]]:
        query = {"labels": self._label, "state": state, "per_page": "100"}
        if since:
            query["since"] = since
        for item in self._client.pages(self._path, query):
            if not isinstance(item, dict) or "pull_request" in item or type(item.get("number")) is not int:
                continue
            spell = unwrap(item.get("body"))
            if spell is not None:
                self._bodies[item["number"]] = item["body"]
                yield item["number"], spell

    # -- writing -------------------------------------------------------------------------------

    def _open(self, step: Step) -> int:
        body = wrap(step.spell, texts.issue_text(step, self._place, texts.LIMIT - _overhead(step)))
        content = {"title": texts.issue_title(step), "body": body, "labels": [self._label]}

        def find() -> int | None:
            return next((number for number, spell in self._listed("open") if spell == step.spell), None)

        return self._once(self._path, content, find)

    def _update(self, number: int, step: Step, **more: str) -> None:
        before = self._bodies.get(number, "")
        theirs = len(wrap(step.spell, "", before)) - len(wrap(step.spell, ""))
        room = texts.LIMIT - _overhead(step) - theirs
        body = wrap(step.spell, texts.issue_text(step, self._place, room), before)
        if more or body != before:
            self._patch(number, {"body": body, **more})

    def _patch(self, number: int, content: Mapping[str, str]) -> None:
        self._client.write("PATCH", f"{self._path}/{number}", content, again=True)

    def _comment(self, number: int, key: str, text: str) -> None:
        """Once: a comment with the same key is not made again, also not by a second run."""
        mark = f"<!-- harness-alarm:comment {_digest(key)} -->"
        path = f"{self._path}/{number}/comments"

        def find() -> int | None:
            comments = self._client.pages(path, {"per_page": "100"})
            bodies = (str(one.get("body")) for one in comments if isinstance(one, dict))
            return number if any(mark in body for body in bodies) else None

        if find() is None:
            self._once(path, {"body": f"{mark}\n{text}"}, find)

    def _once(self, path: str, content: Mapping[str, Any], find: Callable[[], int | None]) -> int:
        """Make something new. An answer that got lost is no reason to make it twice."""
        for attempt in range(self._client.pace.tries):
            try:
                made = self._client.write("POST", path, content, again=False).content
            except Unsure as unsure:
                self._client.wait(attempt)
                found = find()
                if found is not None:
                    return found
                last = unsure
                continue
            number = made.get("number") if isinstance(made, dict) else None
            return number if type(number) is int else 0
        raise AlarmError(f"{last.message}: after {attempt + 1} tries") from None


def _overhead(step: Step) -> int:
    return len(wrap(step.spell, ""))


def _days_before(today: date) -> str:
    return f"{today - _LOOK_BACK}T00:00:00Z"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:16]
