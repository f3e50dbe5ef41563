"""The parts of a cell's report, each made of a verdict and what lies beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.diagnosis import COMPONENTS
from harness.night.headline import headline
from harness.night.outcome import SIGNS
from harness.report.cell_files import Beside, items, number, objects
from harness.report.curves import Plot
from harness.report.drawing import line_class, static_plot
from harness.report.markup import Child, Markup, el, join, quoted, table
from harness.text import count, duration, exact, printable

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.night.outcome import State
    from harness.verdict import Verdict

_TENSORS = 50  # of a component; the rest is in state_diff.json
_ROWS = 500  # of a metric's table
_STATUS = {
    "passed": "Passed", "failed": "Failed", "error": "Error", "refused": "Refused", "skipped": "Skipped",
}  # fmt: skip


# -- the verdict -----------------------------------------------------------------------------------


def top(verdict: Verdict, k: int, n: int) -> Markup:
    """Verdict and diagnosis in plain words, and how to see it oneself."""
    said = headline(verdict, k)
    hardware, track, case = (*verdict.cell.split("/", 2), "", "")[:3]
    facts: list[tuple[str, Child]] = []
    if not verdict.passed:
        facts = [("Since", said.since), ("Lost", said.lost)]
        facts += [("Entry", el("code", said.entry))] if said.entry else []
    facts.append(("Held", _held(verdict)))
    facts.append(
        ("Run", f"{n} iterations, resumed after {k}; {duration(verdict.timing.get('total', 0.0))} in all")
    )
    if verdict.coverage is not None:
        facts.append(("State", verdict.coverage.sentence()))
    facts += [("Note", str(said)) for said in verdict.provenance.get("notes") or ()]
    if golden := verdict.provenance.get("golden"):
        facts.append(("Golden", str(golden)))
    facts.append(("Commit", _commits(verdict.provenance)))
    return el(
        "header",
        el("p", el("span", SIGNS[verdict.status], aria_hidden="true"), " ", _STATUS[verdict.status],
           class_=f"badge {verdict.status}"),
        el("h1", case or verdict.cell),
        el("p", f"{hardware} · track {track}" if track else None, class_="muted"),
        el("p", _sentence(verdict, said.what), class_="lead"),
        el("dl", [(el("dt", name), el("dd", text)) for name, text in facts]),
        _command(said.command),
        _evidence(verdict),
    )  # fmt: skip


def _commits(provenance: Mapping[str, Any]) -> list[Child]:
    """Of the code under test, and of the harness where it is another; with ``+`` files were changed since."""
    tested, own = (str(provenance.get(key) or "") for key in ("commit", "harness_commit"))
    said: list[Child] = [el("code", tested) if tested else "not known: the code under test is in no checkout"]
    if tested.endswith("+"):
        said.append(" (files were changed since)")
    if version := provenance.get("harness"):
        said += [f"; harness {version}", *([" of ", el("code", own)] if own and own != tested else [])]
    return said


def _sentence(verdict: Verdict, what: str) -> str:
    if verdict.passed:
        return "The resumed run continues the uninterrupted one, and everything that was compared held."
    return f"{what[:1].upper()}{what[1:]}."


def _held(verdict: Verdict) -> str:
    made: dict[str, list[bool]] = {}
    for check in verdict.checks:
        made.setdefault(check.against, []).append(check.passed)
    return (
        ", ".join(f"{sum(held)} of {len(held)} against {_AGAINST[name]}" for name, held in made.items())
        or "–"
    )


_AGAINST = {"golden": "the golden", "continuous": "the uninterrupted run", "state": "the saved state"}


def _evidence(verdict: Verdict) -> Markup | None:
    found = verdict.diagnosis
    if found is None or not (found.evidence or found.candidates):
        return None
    return el(
        "section",
        el("h2", "Evidence", id="evidence"),
        el("ul", [el("li", quoted(line)) for line in found.evidence]),
        el("p", "It may be, the likeliest first:") if found.candidates else None,
        el("ol", [el("li", quoted(one.sentence())) for one in found.candidates])
        if found.candidates
        else None,
        _recipes(found.recipes),
    )


def _recipes(recipes: Sequence[str]) -> Markup | None:
    named = [(", " if at else "", el("code", one)) for at, one in enumerate(recipes)]
    return el("p", "How a script keeps it: ", named, " of resume-harness.") if recipes else None


def _command(command: str) -> Markup:
    return el(
        "section",
        el("h2", "See it yourself", id="reproduce"),
        el("div", el("pre", el("code", command), tabindex=0, aria_label="command that runs this cell again"),
           el("button", "Copy", type="button", class_="copy", hidden=True), class_="command"),
    )  # fmt: skip


# -- checks ----------------------------------------------------------------------------------------


def checks(verdict: Verdict, anchors: Mapping[str, str]) -> Markup:
    """Every check, the failed ones first."""
    ordered = sorted(verdict.checks, key=lambda check: (check.passed, check.against == "golden"))
    failed = len(verdict.failures)
    caption = (
        f"{count(len(ordered), 'check')}, {failed} failed"
        if failed
        else f"{count(len(ordered), 'check')}, all held"
    )
    red = [_check(check, anchors) for check in ordered[:failed]]
    green = [_check(check, anchors) for check in ordered[failed:]]
    return el(
        "section",
        el("h2", "Checks", id="checks"),
        table(caption, _HEAD, red, class_="checks") if red else None,
        el("details", el("summary", f"{count(len(green), 'check')} held"),
           table("Checks that held", _HEAD, green, class_="checks"), open=not red and len(green) < 12)
        if green else None,
    )  # fmt: skip


_HEAD = (
    "check",
    "result",
    "first bad step",
    "in words",
    "worst step",
    "expected",
    "actual",
    "off by",
    "relative",
    "kind",
)


def _check(check: Check, anchors: Mapping[str, str]) -> Markup:
    worst = check.worst
    anchor = anchors.get(check.metric or "")
    name = el("a", check.name, href=f"#{anchor}") if anchor else check.name
    status: State = "passed" if check.passed else "failed"
    cells: tuple[tuple[str, Child], ...] = (
        (status, f"{SIGNS[status]} {'held' if check.passed else 'failed'}"),
        ("number", "" if check.first_bad_step is None else str(check.first_bad_step)),
        ("words", check.message),
        ("number", "" if worst is None or worst.step is None else str(worst.step)),
        ("number value", exact(worst.expected) if worst else ""),
        ("number value", exact(worst.actual) if worst else ""),
        ("number", number(worst.abs) if worst else ""),
        ("number", number(worst.rel) if worst else ""),
        ("number", check.kind),
    )
    # Narrow screens show a row as a card, which takes its meaning as a row away: the roles give it back.
    return el(
        "tr",
        el("th", name, scope="row", role="rowheader"),
        [el("td", text, class_=kind, role="cell", data_label=label)
         for label, (kind, text) in zip(_HEAD[1:], cells, strict=True)],
        role="row",
    )  # fmt: skip


# -- metrics ---------------------------------------------------------------------------------------


def metrics(plots: Sequence[Plot], anchors: Mapping[str, str], k: int, notes: Sequence[str]) -> Markup:
    """A figure for every metric."""
    how = (
        "Drag across a plot to zoom in, double-click to see everything again; hovering shows exact values "
        "in all plots at once. With the keyboard: Tab to a plot, then the arrow keys."
    )
    return el(
        "section",
        el("h2", "Metrics", id="metrics"),
        el("p", how, class_="muted only-script") if plots else el("p", "No series could be read."),
        [el("p", note, class_="note") for note in notes],
        el(
            "div", [_metric(i, plot, anchors[plot.metric], k) for i, plot in enumerate(plots)], class_="plots"
        ),
    )


def _metric(place: int, plot: Plot, anchor: str, k: int) -> Markup:
    status: State = "failed" if plot.failed else "passed"
    badge = el("span", f"{SIGNS[status]} {status}" if plot.checks else "not compared",
               class_=f"badge {status}" if plot.checks else "badge")  # fmt: skip
    lines = (*plot.lines, *plot.residuals)
    said = [f"{check.name}: {check.message}" for check in plot.checks] + list(plot.notes)
    return el(
        "figure",
        el("figcaption", el("h3", plot.metric, " ", badge)),
        el("div", class_="live", data_plot=place, hidden=True),
        static_plot(plot, k),
        el(
            "p",
            [el("span", line.name, class_=f"key {line_class(line.name)}") for line in lines],
            class_="legend",
        ),
        [
            el("p", f"{band.around}: {band.text}", class_="muted band" if band.limits else "muted")
            for band in plot.bands
        ],
        el("ul", [el("li", text) for text in said]) if said else None,
        el("details", el("summary", "Values as a table"), _values(plot, k)),
        id=anchor,
        class_="metric failed" if plot.failed else "metric",
    )


def _values(plot: Plot, k: int) -> Markup:
    shown: Sequence[int] = plot.steps
    if len(shown) > _ROWS:
        kept = {*plot.bad, k, k + 1, shown[0], shown[-1]}
        stride = -(-len(shown) // _ROWS)
        shown = [step for i, step in enumerate(shown) if i % stride == 0 or step in kept]
    lines = (*plot.lines, *plot.residuals)
    marks = dict.fromkeys(plot.bad, "first bad step") | {k: "checkpoint"}
    rows = [
        el(
            "tr",
            el(
                "th",
                step,
                el("span", f" {marks[step]}", class_="mark") if step in marks else None,
                scope="row",
            ),
            [el("td", "" if (v := line.values.get(step)) is None else repr(v)) for line in lines],
            class_="bad" if step in plot.bad else None,
        )
        for step in shown
    ]
    some = "" if len(shown) == len(plot.steps) else f", {len(shown)} of {len(plot.steps)} steps"
    return table(f"{plot.metric} by step{some}", ("step", *(line.name for line in lines)), rows)


#: Where something in a saved state may have ended.
_PLACES = ("compared", "excluded", "uncompared")


# -- state -----------------------------------------------------------------------------------------


def state(beside: Beside) -> Markup | None:
    """The saved states, one against the other, by component."""
    found = beside.state
    if not found:
        return None
    entries = objects(found.get("entries"))
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        groups.setdefault(str(entry.get("component", "unknown")), []).append(entry)
    compared = found.get("compared", 0)
    lead = (
        f"{len(entries)} of {compared} names differ." if entries
        else f"All {compared} names that both states hold are equal, bit for bit."
    )  # fmt: skip
    gaps = [gap.get("sentence", "") for key in ("gaps_a", "gaps_b") for gap in objects(found.get(key))]
    hidden = items(found.get("not_comparable"))
    return el(
        "section",
        el("h2", "Saved state", id="state"),
        el("p", lead),
        _coverage(found.get("coverage")),
        el("p", [(f"{side}: ", el("code", found.get(side, "")), " ") for side in "ab"], class_="muted"),
        [el("p", f"Missing: {gap}", class_="note") for gap in dict.fromkeys(gaps)],
        # In the order of cause, as they stand in the file.
        [_component(name, group, open_=i == 0) for i, (name, group) in enumerate(groups.items())],
        el("p", f"{count(len(hidden), 'name')} of single ranks have no counterpart in the other layout.",
           class_="muted") if hidden else None,
    )  # fmt: skip


def _component(name: str, entries: Sequence[Mapping[str, Any]], *, open_: bool) -> Markup:
    head = ("name", "what differs", "elements", "largest", "relative", "first at", "a", "b")
    rows = [
        el(
            "tr",
            el("th", el("code", entry.get("name", "")), scope="row"),
            el("td", entry.get("reason", ""), f" ({entry['detail']})" if entry.get("detail") else None),
            el("td", f"{entry.get('differing', '?')} of {entry.get('elements', '?')}", class_="number"),
            [el("td", number(entry.get(key)), class_="number") for key in ("max_abs", "max_rel")],
            el("td", "" if not entry.get("index") else str(entry["index"]), class_="number"),
            [
                el("td", "" if entry.get(key) is None else printable(entry[key]), class_="number")
                for key in "ab"
            ],
        )
        for entry in entries[:_TENSORS]
    ]
    left = len(entries) - len(rows)
    return el(
        "details",
        el("summary", el("strong", name), f" – {COMPONENTS.get(name, 'other state')}: ",
           f"{count(len(entries), 'name')} {'differs' if len(entries) == 1 else 'differ'}"),
        table(f"{name}: what differs", head, rows),
        el("p", f"and {left} more in state_diff.json", class_="muted") if left else None,
        class_="component", open=open_,
    )  # fmt: skip


def _coverage(found: Any) -> Markup | None:  # noqa: ANN401 - from a file
    """The ledger: how many files, entries and copies ended where, and the rules that left something out."""
    ledger = found if isinstance(found, Mapping) else {}
    kinds = [(kind, ledger.get(kind)) for kind in ("files", "entries", "copies")]
    rows = [
        el("tr", el("th", kind, scope="row"),
           [el("td", str(counts.get(place, "")), class_="number") for place in _PLACES])
        for kind, counts in kinds
        if isinstance(counts, Mapping)
    ]  # fmt: skip
    if not rows:
        return None
    rules = [
        el("li", el("code", rule.get("entry", "")), f" in {rule['file']}" if rule.get("file") else "",
           f": {rule.get('matched', 0)} left out ({rule.get('where', '')}): {rule.get('reason', '')}")
        for rule in objects(ledger.get("rules"))[:_TENSORS]
    ]  # fmt: skip
    return el(
        "div",
        table("What was compared", ("", *_PLACES), rows),
        el("details", el("summary", count(len(rules), "rule")), el("ul", rules)) if rules else None,
    )


def contents(parts: Iterable[tuple[str, str]]) -> Markup:
    """Links to the sections."""
    return el("nav", join(*(el("a", text, href=f"#{name}") for name, text in parts)), aria_label="Sections")
