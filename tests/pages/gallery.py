"""The pages that are looked at: both heart cases red and green, one night, and several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.night.night import read_nights
from harness.report.html import write_report
from harness.report.matrix_page import write_matrix_page
from tests.made_results import GPT, MOE, Made, make_cell

_SMALL = "gpt3_tp1_pp1_resume_torch_dist"


@dataclass(frozen=True)
class Gallery:
    """Files by what they show, and the cells that the reports are of."""

    pages: Mapping[str, Path]
    cells: Mapping[str, Made]


def make(root: Path) -> Gallery:
    """Make them all below ``root``."""
    cells = {
        "moe-red": make_cell(root / "red", MOE, lost="experts"),
        "gpt-red": make_cell(root / "red", GPT, lost="optimizer", golden="tolerance"),
        "moe-green": make_cell(root / "green", MOE),
        "gpt-green": make_cell(root / "green", GPT),
        "no-golden": make_cell(root / "no-golden", GPT, golden=None),
    }
    pages = {name: _report(made) for name, made in cells.items()}
    nights = []
    for i in range(4):
        night = root / "nights" / f"2026-11-2{i}"
        for case in (GPT, MOE, _SMALL):
            for track in ("lts", "dev"):
                red = {(GPT, "dev"): i >= 2, (MOE, "lts"): i != 1}.get((case, track), False)
                lost = ("optimizer" if case == GPT else "experts") if red else None
                slower = 1 + 0.05 * i if case == GPT else 1.0
                metrics = ("lm loss", "iteration-time", "mem-max-allocated-bytes")
                _report(make_cell(night, case, track=track, lost=lost, n=20, slower=slower, metrics=metrics))
        nights.append(night / "results")
    pages["matrix"] = write_matrix_page(read_nights(nights[-1:]), nights[-1] / "index.html")
    pages["history"] = write_matrix_page(read_nights(nights), root / "nights" / "index.html")
    return Gallery(pages, cells)


def _report(made: Made) -> Path:
    return write_report(
        made.folder, made.verdict, golden=made.golden, k=made.k, n=made.n, arguments=made.arguments
    )
