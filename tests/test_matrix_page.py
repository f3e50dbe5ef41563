"""The matrix page: cells of one night, and their history over several."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from harness.commands.cli import main
from harness.errors import EXIT_NOTHING, EXIT_PASSED, NothingToDo, UsageError
from harness.night.history import histories
from harness.night.night import Night, read_nights
from harness.report.html import write_report
from harness.report.matrix_page import render
from tests.made_results import GPT, MOE, make_cell
from tests.markup_of import Page
from tests.nights import green, not_run, ran, red, write

_METRICS = ("lm loss", "iteration-time", "mem-max-allocated-bytes")


def night(root: Path, name: str, *cells: tuple[str, str | None], slower: float = 1.0) -> Path:
    """A folder of results with ``(case, what was lost)`` on cpu/dev."""
    for case, lost in cells:
        made = make_cell(root / name, case, lost=lost, n=10, metrics=_METRICS, slower=slower)
        write_report(made.folder, made.verdict, golden=made.golden, k=made.k, n=made.n)
    (root / name / "results").mkdir(parents=True, exist_ok=True)
    return root / name / "results"


def page_of(*folders: Path, base: Path | None = None) -> Page:
    nights = read_nights(folders)
    return Page(render(nights, base or folders[-1], {}))


def rows(page: Page, table: str) -> list[str]:
    """The text of each row of a table."""
    part = page.text.partition(f'<table class="{table}"')[2].partition("</table>")[0]
    return [Page(f"<tr{row}").said() for row in part.split("<tr")[2:]]


# -- one night -------------------------------------------------------------------------------------


def test_a_red_cell_shows_its_component_and_since_when_and_a_green_one_does_not(tmp_path: Path) -> None:
    page = page_of(night(tmp_path, "n", (GPT, None), (MOE, "experts")))
    green, red = rows(page, "matrix")
    assert "✓ passed" in green
    assert "lost" not in green
    assert "✗ failed" in red
    assert "lost: experts" in red
    assert "step 6, 1 step after the checkpoint of 5" in red
    assert "1 cell red" in page.said()
    assert "2 cells: 1 passed, 1 failed" in page.said()


def test_counts_and_durations_are_those_of_the_verdicts(tmp_path: Path) -> None:
    folder = night(tmp_path, "n", (GPT, None), (MOE, "experts"))
    cells = read_nights([folder])[0].cells.values()
    checks = [check for cell in cells if cell.verdict for check in cell.verdict.checks]
    said = page_of(folder).said()
    assert f"{sum(check.passed for check in checks)} of {len(checks)} checks held" in said
    assert "24.9 s" in said


def test_every_cell_links_to_its_report_from_where_the_page_lies(tmp_path: Path) -> None:
    folder = night(tmp_path, "n", (GPT, None), (MOE, "experts"))
    elsewhere = tmp_path / "pages" / "deep"
    elsewhere.mkdir(parents=True)
    for base in (folder, elsewhere):
        links = [str(a["href"]) for a in page_of(folder, base=base).all("a")]
        assert len(links) == 2
        for link in links:
            assert (base / unquote(link)).resolve().name == "report.html"
            assert (base / unquote(link)).is_file()


def test_the_curve_of_a_cell_is_drawn_and_said_in_words(tmp_path: Path) -> None:
    page = page_of(night(tmp_path, "n", (GPT, None)))
    titles = [text for tag, text in page.texts if tag == "title"]
    assert any(title.startswith("lm loss: ") and title.endswith("over 10 steps") for title in titles)
    assert len(page.all("polyline")) == 1


def test_hardware_and_tracks_are_columns_and_cases_are_rows(tmp_path: Path) -> None:
    for hardware, track in (("cpu", "dev"), ("cpu", "lts"), ("h100", "dev")):
        make_cell(tmp_path, GPT, hardware=hardware, track=track, n=4, metrics=_METRICS)
    make_cell(tmp_path, MOE, n=4, metrics=_METRICS)
    page = page_of(tmp_path / "results")
    heads = [text for tag, text in page.texts if tag == "th"]
    assert heads == ["case", "h100 · dev", "cpu · lts", "cpu · dev", GPT, MOE]
    assert "– not run – not run ✓ passed" in rows(page, "matrix")[1]


def test_results_that_are_unreadable_or_of_another_cell_are_red_and_unfinished_ones_are_not(
    tmp_path: Path,
) -> None:
    folder = night(tmp_path, "n", (GPT, None), (MOE, None))
    (folder / "cpu" / "dev" / GPT / "verdict.json").write_text("{")
    shutil.copytree(folder / "cpu" / "dev" / MOE, folder / "cpu" / "lts" / MOE)
    (folder / "cpu" / "lts" / GPT).mkdir(parents=True)
    (folder / "cpu" / "lts" / GPT / ".harness-cell").touch()
    (found,) = read_nights([folder])
    assert {name: (cell.state, cell.red) for name, cell in found.cells.items()} == {
        f"cpu/lts/{GPT}": ("unfinished", False),
        f"cpu/dev/{GPT}": ("unreadable", True),
        f"cpu/lts/{MOE}": ("unreadable", True),
        f"cpu/dev/{MOE}": ("passed", False),
    }
    said = page_of(folder).said()
    assert f"its verdict.json is that of cpu/dev/{MOE}" in said
    assert "… not finished" in said


def test_a_page_without_a_cell_that_passed_does_not_say_that_all_did(tmp_path: Path) -> None:
    write(tmp_path, not_run("h100/dev/a", "skipped"))
    said = page_of(tmp_path).said()
    assert "– no cell was run" in said
    assert "passed" not in said.partition("Cells")[0]
    write(tmp_path, green("cpu/dev/a"))
    assert "✓ 1 cell passed, 1 skipped" in page_of(tmp_path).said()
    write(tmp_path, not_run("cpu/lts/a", "refused"))
    assert "✗ 1 cell red" in page_of(tmp_path).said()


def test_the_page_takes_an_old_verdict_of_the_last_night_for_none(tmp_path: Path) -> None:
    for name in ("1", "2"):
        write(tmp_path / name, replace(green("cpu/dev/a"), run=ran(timedelta(days=2))))
    folders = [str(tmp_path / name) for name in ("1", "2")]
    begin = ran(timedelta(hours=1)).started
    assert main(["report", *folders, "--since", begin]) == EXIT_PASSED
    said = Page((tmp_path / "2" / "index.html").read_text(encoding="utf-8")).said()
    assert "✗ 1 cell red" in said
    assert "its verdict is old: it ran at" in said
    assert "1: passed" in said
    assert "2: old" in said


def test_a_night_that_skipped_a_cell_ends_no_streak(tmp_path: Path) -> None:
    for name, verdict in (
        ("1", red("cpu/dev/a")),
        ("2", not_run("cpu/dev/a", "skipped")),
        ("3", red("cpu/dev/a")),
    ):
        write(tmp_path / name, verdict)
    (one,) = histories(read_nights([tmp_path / name for name in "123"]))
    assert one.red_since is not None
    assert one.red_since.name == "1"


def test_artifacts_that_lie_in_folders_of_their_own_are_one_night(tmp_path: Path) -> None:
    for job, case in (("results-cpu-dev", GPT), ("results-cpu-dev-2", MOE)):
        night(tmp_path / "made", job, (case, None))
        shutil.copytree(tmp_path / "made" / job / "results", tmp_path / "night" / job)
    (found,) = read_nights([tmp_path / "night"])
    assert {cell.case for cell in (one.cell for one in found.cells.values())} == {GPT, MOE}


def test_what_a_run_says_stays_text(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    made = make_cell(tmp_path, GPT, lost="optimizer", n=4, metrics=_METRICS)
    raw = json.loads((made.folder / "verdict.json").read_text())
    raw["checks"] = [{**check, "name": evil, "message": evil} for check in raw["checks"]]
    (made.folder / "verdict.json").write_text(json.dumps(raw))
    page = page_of(tmp_path / "results")
    assert not page.all("img")
    assert not page.wrong
    assert "onerror" in page.said()


@pytest.mark.parametrize("name", ["cpu/dev/<img src=x onerror=alert(1)>", "cpu/no-such/x", "no-such/dev/x"])
def test_a_folder_that_is_no_cells_is_refused_and_not_passed_over(tmp_path: Path, name: str) -> None:
    made = make_cell(tmp_path, GPT, lost="optimizer", n=4, metrics=_METRICS)
    shutil.copytree(made.folder, tmp_path / "results" / name)
    with pytest.raises(UsageError, match="only results of cells belong there"):
        read_nights([tmp_path / "results"])


def test_a_folder_without_results_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match=str(tmp_path)):
        read_nights([tmp_path])


# -- several nights --------------------------------------------------------------------------------


def history(root: Path, *fates: tuple[str | None, ...]) -> list[Night]:
    """Nights in which GPT, MOE, ... were green (None) or lost something; ``-`` is a night without it."""
    folders = []
    for i, fate in enumerate(fates):
        cells = [(case, lost) for case, lost in zip((GPT, MOE), fate, strict=False) if lost != "-"]
        folders.append(night(root, f"2026-11-{20 + i}", *cells, slower=1 + 0.1 * i))
    return read_nights(folders)


def test_a_night_is_called_what_tells_it_from_the_others(tmp_path: Path) -> None:
    assert [one.name for one in history(tmp_path, (None,), (None,))] == ["2026-11-20", "2026-11-21"]


def test_red_since_is_the_first_night_of_the_present_streak(tmp_path: Path) -> None:
    nights = history(
        tmp_path, ("optimizer", "experts"), (None, "experts"), ("optimizer", "-"), ("optimizer", "experts")
    )
    found = {one.cell: one for one in histories(nights)}
    gpt, moe = found[f"cpu/dev/{GPT}"], found[f"cpu/dev/{MOE}"]
    assert gpt.red_since is not None
    assert moe.red_since is not None
    assert gpt.red_since.name == "2026-11-22"
    assert gpt.ever_green
    assert moe.red_since.name == "2026-11-20"  # the night without it ends no streak
    assert not moe.ever_green


def test_a_cell_that_is_green_again_is_red_since_no_night(tmp_path: Path) -> None:
    (one,) = histories(history(tmp_path, (None,), ("optimizer",), (None,)))
    assert one.red_since is None


def test_the_page_says_since_which_night_and_lists_the_newest_red_first(tmp_path: Path) -> None:
    nights = history(tmp_path, (None, "experts"), (None, "experts"), ("optimizer", "experts"))
    page = Page(render(nights, tmp_path, {}))
    first, second = rows(page, "history")
    assert first.startswith(GPT)
    assert "2026-11-22" in first.partition("✗")[2]
    assert "never green in these nights" not in first
    assert second.startswith(MOE)
    assert "2026-11-20 (never green in these nights)" in second


def test_trends_are_of_time_memory_and_final_loss(tmp_path: Path) -> None:
    nights = history(tmp_path, (None,), (None,), (None,))
    page = Page(render(nights, tmp_path, {}))
    titles = [text for tag, text in page.texts if tag == "title"]
    for metric in ("time per iteration", "memory at most", "final loss", "whole cell"):
        assert any(title.startswith(f"{metric}: ") and "over 3 nights" in title for title in titles), metric
    series = nights[-1].cells[f"cpu/dev/{GPT}"].series
    typical = float(np.median(series["iteration-time"].values[1:]))
    assert f"{typical * 1000:.4g} ms (+20.0 %)" in page.said()
    assert f"{series['lm loss'].values[-1]:.5g}" in page.said()


def test_every_night_of_a_cell_links_to_its_own_report(tmp_path: Path) -> None:
    nights = history(tmp_path, (None,), ("optimizer",))
    page = Page(render(nights, tmp_path, {}))
    links = {unquote(str(a["href"])) for a in page.all("a")}
    assert links == {f"2026-11-2{i}/results/cpu/dev/{GPT}/report.html" for i in (0, 1)}


def test_one_night_has_no_history(tmp_path: Path) -> None:
    assert "History" not in Page(render(history(tmp_path, (None,)), tmp_path, {})).said()


# -- the command -----------------------------------------------------------------------------------


def test_report_writes_the_page_beside_the_results_or_where_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = night(tmp_path, "n", (GPT, None))
    for out, path in (
        ([], folder / "index.html"),
        (["--out", str(tmp_path / "site")], tmp_path / "site" / "index.html"),
        (["--out", str(tmp_path / "a" / "page.html")], tmp_path / "a" / "page.html"),
    ):
        assert main(["report", str(folder), *out]) == EXIT_PASSED
        assert capsys.readouterr().out.strip() == str(path)
        assert "<!doctype html>" in path.read_text(encoding="utf-8")


def test_report_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == EXIT_NOTHING
    assert "holds no results" in capsys.readouterr().err


def test_a_cell_in_quarantine_is_shown_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = night(tmp_path, "n", (GPT, "optimizer"))
    monkeypatch.chdir(tmp_path)
    entry = f'- {{cell: "cpu/dev/{GPT}", reason: known, owner: me, expires: 2099-01-01, green_nights: 3}}\n'
    Path("quarantine.yaml").write_text(entry)
    assert main(["report", str(folder)]) == EXIT_PASSED
    said = Page((folder / "index.html").read_text(encoding="utf-8")).said()
    assert "in quarantine until 2099-01-01 (me): known" in said


def test_hundreds_of_cells_make_one_page(tmp_path: Path) -> None:
    made = make_cell(tmp_path, GPT, n=4, metrics=("lm loss",))
    for i in range(332):
        name = f"case_{i:03}"
        folder = made.folder.with_name(name)
        folder.mkdir()
        verdict = (made.folder / "verdict.json").read_text().replace(f"cpu/dev/{GPT}", f"cpu/dev/{name}")
        (folder / "verdict.json").write_text(verdict)
        os.symlink(made.folder / "continuous", folder / "continuous")
    page = page_of(tmp_path / "results")
    assert len(rows(page, "matrix")) == 333
    assert len(page.text) < 2 << 20
