"""The parts of a cell's report about what it ran on: ranks, time, provenance, logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from harness.report.cell_files import Beside, objects, plain
from harness.report.markup import Markup, el, table
from harness.report.picture import Layout, draw, lost_of
from harness.text import count, duration

if TYPE_CHECKING:
    from harness.goldens import Golden
    from harness.verdict import Verdict

_LOGS = 128
#: Keys of a provenance that are shown in another place, or that no person compares by eye.
_ELSEWHERE = ("fingerprint", "golden", "golden_provenance", "resumed", "state", "subject")
#: What no rank can lose.
_NOWHERE = ("performance", "memory", "nondeterminism", "unknown", "crash", "checkpoint")


def fingerprint(verdict: Verdict) -> Mapping[str, Any]:
    """What decided the bits of the run, as its trainer wrote it."""
    found = verdict.provenance.get("fingerprint")
    return found if isinstance(found, Mapping) else {}


def layouts(verdict: Verdict, beside: Beside, arguments: Mapping[str, Any] | None) -> Markup | None:
    """Which rank holds what, in the run that saved and in the one that resumed."""
    by_phase = dict(beside.layouts)
    known = fingerprint(verdict).get("layout", verdict.provenance.get("layout"))
    if not by_phase and isinstance(known, str):
        by_phase = dict.fromkeys(("continuous", "resumed"), known)
    saved = by_phase.get("continuous") or by_phase.get("interrupted")
    lost = None
    if verdict.diagnosis and verdict.diagnosis.component not in _NOWHERE:
        component = verdict.diagnosis.component
        found = objects(beside.state.get("entries"))
        lost = lost_of(component, (entry for entry in found if entry.get("component") == component))
    pictures = []
    for title, text, mark in (
        ("Saved by the run before", saved, None), ("Resumed by", by_phase.get("resumed"), lost),
    ):  # fmt: skip
        layout = Layout.parse(text, arguments) if text else None
        if layout:
            pictures.append(draw(title, layout, mark))
    if not pictures:
        return None
    return el(
        "section", el("h2", "Which rank holds what", id="layouts"), el("div", pictures, class_="layouts")
    )


def timings(verdict: Verdict) -> Markup | None:
    """Seconds by what they were spent on."""
    times = dict(verdict.timing)
    if not times:
        return None
    longest = max((s for name, s in times.items() if name != "total"), default=0.0) or 1.0
    rows = [
        el(
            "tr",
            el("th", name, scope="row"),
            el("td", duration(seconds), class_="number"),
            el("td", None if name == "total" else _bar(seconds / longest), aria_hidden="true"),
        )
        for name, seconds in sorted(times.items(), key=lambda item: (item[0] == "total", -item[1]))
    ]
    note = "A phase's time includes its start-up."
    return el("section", el("h2", "Time", id="time"),
              table("Time by what it was spent on", ("what", "time", ""), rows, class_="narrow"),
              el("p", note, class_="muted"))  # fmt: skip


def _bar(share: float) -> Markup:
    return el("svg", el("rect", width=f"{max(1.0, share * 160):.0f}", height=10, rx=2),
              class_="bar", width=160, height=10, viewBox="0 0 160 10")  # fmt: skip


def provenance(verdict: Verdict, golden: Golden | None) -> Markup:
    """What ran, beside what the golden was recorded on."""
    ours = {k: v for k, v in verdict.provenance.items() if k not in _ELSEWHERE}
    ours = {**_flat(fingerprint(verdict)), **ours}
    theirs = _flat(golden.fingerprint) if golden else {}
    side = {k: v for k, v in (golden.provenance if golden else {}).items()
            if k not in ("fingerprint", "resumed", "state", "statistics", "subject")}  # fmt: skip
    rows = []
    for key in dict.fromkeys((*theirs, *ours)):
        differs = key in theirs and (key not in ours or ours[key] != theirs[key])
        rows.append(el(
            "tr",
            el("th", key, scope="row"),
            el("td", plain(ours.get(key))),
            el("td", plain(theirs.get(key))),
            el("td", "≠ differs" if differs else "= same" if key in theirs else "",
               class_="bad" if differs else "muted"),
        ))  # fmt: skip
    facts = [(el("dt", key), el("dd", plain(value))) for key, value in side.items()]
    if golden:
        facts.insert(0, (el("dt", "file"), el("dd", el("code", golden.path))))
        if golden.fallback:
            facts.insert(
                1,
                (
                    el("dt", "fallback"),
                    el("dd", "the track's, not this platform's own: never compared exactly"),
                ),
            )
    return el(
        "section",
        el("h2", "Provenance", id="provenance"),
        table("What ran, and what the golden was recorded on", ("", "this run", "golden", ""), rows),
        el("h3", "The golden"),
        el("dl", facts)
        if facts
        else el("p", "There was none." if golden is None else "Nothing is known of it."),
    )


def _flat(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """One row an operation of ``numerics``, and whatever else is a mapping."""
    return {
        f"{key}: {part}" if isinstance(value, Mapping) else key: one
        for key, value in fingerprint.items()
        for part, one in (value.items() if isinstance(value, Mapping) else [("", value)])
    }


def logs(beside: Beside) -> Markup | None:
    """Links to the logs of the ranks; they lead to the files beside the report."""
    if not beside.logs:
        return None
    items = [el("li", el("a", name, href=quote(name))) for name in beside.logs[:_LOGS]]
    left = len(beside.logs) - len(items)
    return el("section", el("h2", "Logs", id="logs"),
              el("details", el("summary", count(len(beside.logs), "file")), el("ul", items),
                 el("p", f"and {left} more") if left else None))  # fmt: skip
