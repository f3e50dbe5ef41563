"""``report.html`` of a cell: one file that opens offline and asks the network for nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.night.outcome import SIGNS
from harness.report import curves, run_sections, sections
from harness.report.cell_files import look
from harness.report.markup import Child, asset, data_block, el, page
from harness.text import one_line
from harness.verdict.sweep import REPORT

if TYPE_CHECKING:
    from harness.goldens import Golden
    from harness.protocol.plan import Plan
    from harness.verdict import Verdict


def write_report_of(plan: Plan, folder: Path, verdict: Verdict) -> Path:
    """A finished cell's report; what :func:`harness.protocol.run.run_cell` takes as ``report``."""
    arguments = plan.case.arguments(plan.cell.hardware)
    return write_report(folder, verdict, golden=plan.golden, k=plan.k, n=plan.n, arguments=arguments)


def write_report(
    folder: Path,
    verdict: Verdict,
    *,
    golden: Golden | None,
    k: int,
    n: int,
    arguments: Mapping[str, Any] | None = None,
) -> Path:
    """Write a cell's report beside its verdict, at once or not at all.

    Args:
        folder: the cell's results; series, logs and ``state_diff.json`` are read from there.
        golden: what the cell was compared with.
        k, n: the iteration it was resumed after, and all of them.
        arguments: the case's, from which the picture takes layers and experts.

    Returns:
        The path of the report. What could not be read is said in it.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / REPORT
    write_text(path, render(folder, verdict, golden=golden, k=k, n=n, arguments=arguments))
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file at once or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def render(
    folder: Path,
    verdict: Verdict,
    *,
    golden: Golden | None,
    k: int,
    n: int,
    arguments: Mapping[str, Any] | None = None,
) -> str:
    """The report's text; see :func:`write_report`."""
    phases, notes = curves.read_phases(folder)
    plots = curves.plots(phases, golden, verdict, k=k)
    beside = look(folder)
    anchors = {plot.metric: f"metric-{i}" for i, plot in enumerate(plots)}
    body: list[Child] = [sections.top(verdict, k, n)]
    parts = {
        "checks": ("Checks", sections.checks(verdict, anchors)),
        "metrics": ("Metrics", sections.metrics(plots, anchors, k, notes)),
        "state": ("Saved state", sections.state(beside)),
        "layouts": ("Ranks", run_sections.layouts(verdict, beside, arguments)),
        "time": ("Time", run_sections.timings(verdict)),
        "provenance": ("Provenance", run_sections.provenance(verdict, golden)),
        "logs": ("Logs", run_sections.logs(beside)),
    }
    body.append(sections.contents((name, text) for name, (text, part) in parts.items() if part is not None))
    body += [part for _, part in parts.values()]
    data = {"k": k, "n": n, "plots": [plot.as_data() for plot in plots]}
    return page(
        f"{SIGNS[verdict.status]} {one_line(verdict.cell)}",
        [el("main", body), data_block("data", data)],
        styles=(asset("vendor", "uplot", "uPlot.min.css"), asset("assets", "page.css")),
        scripts=(asset("vendor", "uplot", "uPlot.iife.min.js"), asset("assets", "report.js")),
    )
