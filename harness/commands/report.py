"""``harness report`` and ``harness status``: many cells at once, as pages and in the terminal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.output import flag_since, line
from harness.errors import EXIT_FAILED, EXIT_NOTHING, EXIT_PASSED

if TYPE_CHECKING:
    from harness.matrix import Cell


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """The options."""
    text = "the matrix page of one night's results, with the history when several are given"
    report = commands.add_parser("report", help=text, description=text)
    report.set_defaults(do=_report)
    report.add_argument(
        "results", metavar="RESULTS", type=Path, nargs="+",
        help="folders of results, one per night, the oldest first",
    )  # fmt: skip
    report.add_argument(
        "--out", metavar="PATH", type=Path,
        help="the page, or the folder that gets its index.html; default: the last folder of results",
    )  # fmt: skip
    report.add_argument("--quarantine", metavar="FILE", type=Path, help="default: quarantine.yaml, if there")
    _expect(report)
    flag_since(report)
    text = "a table of cells; of each red one what broke, since when, what was lost; then exit status 1"
    status = commands.add_parser("status", help=text, description=text)
    status.set_defaults(do=_status)
    status.add_argument(
        "results", metavar="RESULTS", type=Path, nargs="?", default=Path("results"),
        help="folder of results, default: %(default)s",
    )  # fmt: skip
    status.add_argument(
        "--follow", action="store_true",
        help="show a sweep while it runs, until all expected cells have a verdict, or until Ctrl-C",
    )  # fmt: skip
    _expect(status)
    flag_since(status)


def _expect(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--expect", metavar="LISTING", type=Path,
        help="what nox -l --json prints, or the folder of cases: its cells are red when they left nothing",
    )  # fmt: skip
    command.add_argument("--hardware", metavar="NAME", action="append", default=[], help="expect only this")
    command.add_argument("--track", metavar="NAME", action="append", default=[], help="expect only this")


def _expected(arguments: argparse.Namespace) -> list[Cell]:
    from harness.report.github.matrix import expected_cells

    return list(expected_cells(arguments.expect, hardware=arguments.hardware, tracks=arguments.track))


def _report(arguments: argparse.Namespace) -> int:
    from datetime import datetime, timezone

    from harness.night.night import read_nights
    from harness.night.quarantine import read_quarantine
    from harness.night.when import since
    from harness.report.matrix_page import INDEX, write_matrix_page

    nights = read_nights(arguments.results, _expected(arguments), since(arguments.since))
    out: Path = arguments.out or nights[-1].folder
    path = out if out.suffix == ".html" else out / INDEX
    quarantine, today = read_quarantine(arguments.quarantine), datetime.now(timezone.utc).date()
    held = {}
    for name, result in nights[-1].cells.items():
        if entry := quarantine.holds(result.cell, today):
            held[name] = f"in quarantine until {entry.expires} ({entry.owner}): {entry.reason}"
    print(write_matrix_page(nights, path, held))
    return EXIT_PASSED


def _status(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.night.night import read_nights
    from harness.night.when import since
    from harness.report.board import Board
    from harness.report.summary import Line, show

    console = Console(file=sys.stdout, highlight=False, markup=False)
    expected, begun = _expected(arguments), since(arguments.since)
    if arguments.follow:
        cells = Board(arguments.results, console, expected, begun).follow()
    else:
        cells = list(read_nights([arguments.results], expected, begun)[-1].cells.values())
        show([Line.of(cell) for cell in cells], console)
        for cell in cells:
            if cell.remark:
                line(f"{cell.cell.id}: {cell.remark}")
    if any(cell.red for cell in cells):
        return EXIT_FAILED
    return EXIT_NOTHING if all(cell.state == "skipped" for cell in cells) else EXIT_PASSED
