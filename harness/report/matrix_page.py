"""``index.html``: cases × (track, hardware), and how the cells went from night to night."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from harness.matrix import HARDWARE, TRACKS
from harness.night.history import History, histories
from harness.night.night import Night
from harness.night.outcome import SIGNS, STATES, Outcome, State
from harness.report.drawing import sampled, sparkline
from harness.report.html import write_text
from harness.report.markup import Child, Markup, asset, el, page, table
from harness.text import count, duration, short, size

INDEX = "index.html"
LOSS, TIME, MEMORY = "lm loss", "iteration-time", "mem-max-allocated-bytes"
_TREND = 60  # nights of a trend that are drawn


def write_matrix_page(nights: Sequence[Night], path: Path, held: Mapping[str, str] | None = None) -> Path:
    """Write the page of the last night, with the history of all of them when there are several.

    Args:
        nights: oldest first.
        path: the file; links to reports are relative to its folder.
        held: by cell id, why a cell is in quarantine.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render(nights, path.parent, held or {}))
    return path


def render(nights: Sequence[Night], base: Path, held: Mapping[str, str]) -> str:
    """The page's text; links are relative to ``base``."""
    night = nights[-1]
    counts = Counter(result.state for result in night.cells.values())
    red = sum(result.red for result in night.cells.values())
    body: list[Child] = [
        el(
            "header",
            el("p", _badge(red, counts)),
            el("h1", f"Resume gate: {night.name}"),
            _summary(night, counts),
        ),
        _filter(),
        _matrix(night, base, held),
    ]
    if len(nights) > 1:
        body.append(_history(nights, base))
    return page(
        f"{'✗' if red else '✓' if counts['passed'] else '–'} Resume gate: {night.name}",
        el("main", body),
        styles=(asset("assets", "page.css"), asset("assets", "index.css")),
        scripts=(asset("assets", "index.js"),),
    )


def _badge(red: int, counts: Counter[State]) -> Markup:
    if red:
        return el("span", f"✗ {count(red, 'cell')} red", class_="badge failed")
    if counts["unfinished"]:
        return el("span", f"… {count(counts['unfinished'], 'cell')} not finished", class_="badge error")
    if not counts["passed"]:
        return el("span", "– no cell was run", class_="badge error")
    if counts["skipped"]:
        said = f"✓ {count(counts['passed'], 'cell')} passed, {counts['skipped']} skipped"
        return el("span", said, class_="badge passed")
    return el("span", "✓ all cells passed", class_="badge passed")


def _summary(night: Night, counts: Counter[State]) -> Markup:
    checks = [check for result in night.cells.values() if result.verdict for check in result.verdict.checks]
    seconds = sum(result.seconds or 0.0 for result in night.cells.values())
    said = [f"{counts[state]} {word}" for state, word in STATES.items() if counts[state]]
    held = sum(check.passed for check in checks)
    cells = f"{count(len(night.cells), 'cell')}: {', '.join(said)}."
    text = f"{cells} {held} of {count(len(checks), 'check')} held, {duration(seconds)} in all."
    commit = [" Commit ", el("code", night.commit), "."] if night.commit else []
    return el("p", text, *commit, class_="lead")


def _filter() -> Markup:
    return el(
        "form",
        el("label", "Find a case ", el("input", type="search", id="find", autocomplete="off")),
        el("label", el("input", type="checkbox", id="red"), " only red"),
        el("span", id="found", class_="muted", role="status"),
        class_="filter only-script", role="search",
    )  # fmt: skip


# -- the matrix ------------------------------------------------------------------------------------


def _matrix(night: Night, base: Path, held: Mapping[str, str]) -> Markup:
    there = {(result.cell.track, result.cell.hardware) for result in night.cells.values()}
    columns = [(track, hardware) for hardware in HARDWARE for track in TRACKS if (track, hardware) in there]
    cases: dict[str, dict[tuple[str, str], Outcome]] = {}
    for result in night.cells.values():
        cases.setdefault(result.cell.case, {})[result.cell.track, result.cell.hardware] = result
    head = ("case", *(f"{hardware} · {track}" for track, hardware in columns))
    rows = [
        el(
            "tr",
            el("th", case, scope="row"),
            [_cell(by_column.get(column), base, head[i + 1], held) for i, column in enumerate(columns)],
            data_case=case.lower(),
            data_red=any(result.red for result in by_column.values()),
        )
        for case, by_column in sorted(cases.items())
    ]
    legend = " · ".join(f"{sign} {STATES[state]}" for state, sign in SIGNS.items())
    return el(
        "section",
        el("h2", "Cells", id="cells"),
        el(
            "p",
            f"{legend} · – not run. The small curve is the loss of the uninterrupted run.",
            class_="muted",
        ),
        table(f"Cases by hardware and track, {night.name}", head, rows, class_="matrix"),
    )


def _cell(result: Outcome | None, base: Path, column: str, held: Mapping[str, str]) -> Markup:
    if result is None:
        return el("td", el("span", "–", class_="muted"), el("span", " not run", class_="said"), class_="none")
    verdict = result.verdict
    state = el("span", f"{SIGNS[result.state]} {STATES[result.state]}", class_="state")
    if result.report:
        state = el("a", state, href=_link(result.report, base))
    parts: list[Child] = [state]
    if verdict is not None:
        passed = sum(check.passed for check in verdict.checks)
        parts.append(
            el("span", f"{passed}/{len(verdict.checks)} · {duration(result.seconds or 0.0)}", class_="facts")
        )
        parts.append(_loss(result))
        if not verdict.passed:
            said = result.headline
            lost = f"lost: {verdict.diagnosis.component}" if verdict.diagnosis else said.what
            parts.append(el("span", lost, class_="lost"))
            if said.since.startswith("step"):
                parts.append(el("span", said.since, class_="facts"))
    elif result.problem:
        parts.append(el("span", result.problem, class_="facts"))
    if result.remark:
        parts.append(el("span", result.remark, class_="facts"))
    if result.cell.id in held:
        parts.append(el("span", held[result.cell.id], class_="facts held"))
    return el(
        "td", parts, class_=f"cell {result.state}" + (" failed" if result.red else ""), data_label=column
    )


def _loss(result: Outcome) -> Markup | None:
    line = result.series.get(LOSS)
    if line is None or not len(line):
        return None
    values = [float(value) for value in line.values]
    return sparkline(
        sampled(values),
        f"{LOSS}: {short(values[0])} to {short(values[-1])} over {count(len(values), 'step')}",
    )


def _link(path: Path, base: Path) -> str:
    return quote(Path(os.path.relpath(path, base)).as_posix())


# -- history ---------------------------------------------------------------------------------------


def _history(nights: Sequence[Night], base: Path) -> Markup:
    found = histories(nights)
    head = ("cell", "nights", "red since", "time per iteration", "memory at most", "final loss", "whole cell")
    return el(
        "section",
        el("h2", "History", id="history"),
        el("p", f"{count(len(nights), 'night')}, from {nights[0].name} to {nights[-1].name}. "
                "A trend is over the nights in which the cell logged the metric.", class_="muted"),
        table("Every cell from night to night", head, [_row(one, base) for one in found], class_="history"),
    )  # fmt: skip


def _row(one: History, base: Path) -> Markup:
    hardware, track, case = one.cell.split("/", 2)
    since = one.red_since
    if since is None:
        said: Child = el("span", "–", class_="muted")
    else:
        first = since == one.results[0][0] and not one.ever_green
        said = el("strong", since.name, " (never green in these nights)" if first else None, class_="failed")
    strip = [_night(night, result, base) for night, result in one.results]
    return el(
        "tr",
        el("th", case, el("span", f" {hardware} · {track}", class_="muted"), scope="row"),
        el("td", el("ol", strip, class_="nights"), data_label="nights"),
        el("td", said, data_label="red since"),
        _trend(one, "time per iteration", lambda result: _typical(result, TIME), _milliseconds),
        _trend(one, "memory at most", lambda result: _highest(result, MEMORY), size),
        _trend(one, "final loss", lambda result: _final(result, LOSS), short),
        _trend(one, "whole cell", lambda result: result.seconds, duration),
        data_case=one.cell.lower(),
        data_red=since is not None,
    )  # fmt: skip


def _final(result: Outcome, metric: str) -> float | None:
    """The last value of a metric."""
    line = result.series.get(metric)
    return float(line.values[-1]) if line is not None and len(line) else None


def _highest(result: Outcome, metric: str) -> float | None:
    """The highest value of a metric."""
    line = result.series.get(metric)
    return float(line.values.max()) if line is not None and len(line) else None


def _typical(result: Outcome, metric: str) -> float | None:
    """The median of a metric, without its first step, which warms up."""
    import numpy as np

    line = result.series.get(metric)
    if line is None or not len(line):
        return None
    return float(np.median(line.values[1:] if len(line) > 1 else line.values))


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.4g} ms"


def _night(night: Night, result: Outcome | None, base: Path) -> Markup:
    state = result.state if result else "none"
    words = f"{night.name}: {STATES[result.state] if result else 'not run'}"
    sign = SIGNS[result.state] if result else "–"
    inner: Child = [el("span", sign, aria_hidden="true"), el("span", words, class_="said")]
    if result and result.report:
        inner = el("a", inner, href=_link(result.report, base))
    return el("li", inner, class_=f"night {state}", title=words)


def _trend(
    one: History, label: str, value: Callable[[Outcome], float | None], words: Callable[[float], str]
) -> Markup:
    values = [
        found
        for _, result in one.results[-_TREND:]
        if result
        for found in (value(result),)
        if found is not None
    ]
    values = [found for found in values if math.isfinite(found)]
    if not values:
        return el("td", el("span", "–", class_="muted"), data_label=label)
    first, last = values[0], values[-1]
    change = (
        f" ({(last / first - 1) * 100:+.1f} %)" if len(values) > 1 and first > 0 and last != first else ""
    )
    said = f"{label}: {words(first)} to {words(last)} over {count(len(values), 'night')}"
    return el(
        "td", sparkline(values, said), el("span", f"{words(last)}{change}", class_="facts"), data_label=label
    )
