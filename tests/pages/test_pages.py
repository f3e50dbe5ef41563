"""Pages in headless Chromium: no complaint, no request, exact values under the mouse, whole on a phone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.checks import Check, Worst
from harness.report.html import write_report
from tests.made_results import GPT, MOE, Made, make_cell, write_events
from tests.pages.browser import DESKTOP, PHONE, browser, chromium, opened, scroll_through
from tests.pages.gallery import Gallery, make

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(find_spec("playwright") is None, reason="playwright is not installed here"),
    pytest.mark.skipif(chromium() is None, reason="no chromium on PATH"),
]

_PAGES = ("moe-red", "gpt-red", "moe-green", "gpt-green", "no-golden", "matrix", "history")
_RED = {"moe-red": "experts", "gpt-red": "optimizer"}


@pytest.fixture(scope="module")
def started() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return make(tmp_path_factory.mktemp("gallery"))


@pytest.mark.parametrize("name", _PAGES)
def test_a_page_complains_of_nothing_asks_nobody_and_fits_its_window(
    started: Browser, gallery: Gallery, name: str
) -> None:
    looks = [(DESKTOP, "light"), (PHONE, "dark")] if name in ("moe-red", "history") else [(PHONE, "light")]
    for size, scheme in looks:
        with opened(started, gallery.pages[name], size=size, color_scheme=scheme) as found:
            scroll_through(found.page)
            assert found.complaints == []
            assert found.requests == []
            assert found.page.evaluate("document.documentElement.scrollWidth") <= size[0]
            if name in gallery.cells:
                assert found.page.locator("canvas").count() > 12


#: Cells of tables that reach over the edge of what scrolls, or of the window; and what scrolls sideways.
_CUT = """() => {
  const cut = [];
  for (const box of document.querySelectorAll(".scroll:has(table.checks), .component .scroll")) {
    if (!box.checkVisibility()) continue;
    const name = box.getAttribute("aria-label"), edge = box.getBoundingClientRect().right;
    if (box.scrollWidth > box.clientWidth) cut.push(`${name}: ${box.scrollWidth} in ${box.clientWidth}`);
    for (const cell of box.querySelectorAll("th, td")) {
      const right = cell.getBoundingClientRect().right;
      if (right > Math.min(edge, innerWidth) + 1 || cell.scrollWidth > cell.clientWidth + 1)
        cut.push(`${name}: ${cell.textContent.slice(0, 40)}`);
    }
  }
  return cut;
}"""


_OPEN = "document.querySelectorAll('section > details').forEach((one) => one.open = true)"
_UNWRAP = "document.querySelectorAll('table.checks td').forEach((one) => one.style.whiteSpace = 'nowrap')"


@pytest.mark.parametrize("width", [1440, 1300, 1160, 1000, 800])
def test_no_table_of_checks_is_cut_however_long_its_names_are(
    started: Browser, tmp_path: Path, width: int
) -> None:
    made = make_cell(tmp_path, MOE, lost="optimizer", n=20)
    name = "optimizer.exp_avg_sq." + "decoder_layers_3_mlp_experts_linear_fc1_weight" * 5
    raw = json.loads((made.folder / "state_diff.json").read_text())
    raw["entries"][0] |= {"name": name, "a": "x" * 90, "b": -1.2345678901234567e-300}
    (made.folder / "state_diff.json").write_text(json.dumps(raw))
    worst = Worst(20, -1.2345678901234567e-300, 9.876543210987654e300)
    checks = (
        Check(f"state: {name}", None, "state", "exact", passed=False, first_bad_step=20, worst=worst,
              message=f"{name}: 16384 of 16384 elements differ"),
        Check(f"golden: {name}", name, "golden", "upper-bound", passed=True, message=name),
        *made.verdict.checks,
    )  # fmt: skip
    path = write_report(
        made.folder, replace(made.verdict, checks=checks), golden=made.golden, k=made.k, n=made.n
    )
    with opened(started, path, size=(width, 900)) as found:
        found.page.evaluate(_OPEN)
        assert found.page.get_by_text(name).first.is_visible()
        assert found.page.evaluate("document.documentElement.scrollWidth") <= width
        assert found.page.evaluate(_CUT) == []


def test_a_table_that_is_cut_is_noticed(started: Browser, gallery: Gallery) -> None:
    with opened(started, gallery.pages["gpt-red"], size=(1300, 900)) as found:
        found.page.evaluate(_UNWRAP)
        assert found.page.evaluate(_CUT) != []


def test_the_commit_is_seen_without_scrolling(started: Browser, gallery: Gallery) -> None:
    with opened(started, gallery.pages["gpt-red"], size=(1300, 900)) as found:
        box = found.page.locator("header dd", has_text="0" * 40).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 900
    with opened(started, gallery.pages["matrix"], size=(1300, 900)) as found:
        assert found.page.locator("header .lead code").inner_text() == "0" * 40


def test_a_page_that_complains_or_asks_is_noticed(started: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text("<!doctype html><img src='http://127.0.0.1:9/x.png'><script>nobody.knows()</script>")
    with opened(started, path) as found:
        found.page.wait_for_load_state()
        assert any("nobody is not defined" in text for text in found.complaints)
        assert found.requests == ["http://127.0.0.1:9/x.png"]


def test_what_a_run_says_is_not_run(started: Browser, tmp_path: Path) -> None:
    made = make_cell(tmp_path, GPT, lost="optimizer", n=4, metrics=("lm loss",))
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    write_events(made.folder / "continuous" / "tensorboard", 1, {evil: [1.0, 2.0]})
    raw = json.loads((made.folder / "state_diff.json").read_text())
    raw["entries"][0]["name"] = evil
    (made.folder / "state_diff.json").write_text(json.dumps(raw))
    path = write_report(made.folder, made.verdict, golden=made.golden, k=2, n=4)
    with opened(started, path) as found:
        scroll_through(found.page)
        assert found.complaints == []
        assert found.requests == []
        assert evil in found.page.locator("main").inner_text()


def test_a_script_that_gets_into_a_page_all_the_same_is_not_run(started: Browser, gallery: Gallery) -> None:
    page = gallery.pages["moe-green"]
    bad = page.with_name("bad.html")
    bad.write_text(page.read_text(encoding="utf-8").replace("<main>", "<main><script>alert(1)</script>"))
    with opened(started, bad) as found:
        assert any("Content Security Policy" in text for text in found.complaints)
        assert not [text for text in found.complaints if text.startswith("dialog")]


@pytest.mark.parametrize("name", _RED)
def test_a_red_report_shows_its_component_without_scrolling(
    started: Browser, gallery: Gallery, name: str
) -> None:
    with opened(started, gallery.pages[name]) as found:
        component = _RED[name]
        said = found.page.locator("dd", has_text=f"{component}:")
        box = said.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < DESKTOP[1]
        assert found.page.get_by_text("See it yourself").is_visible()
        marked = found.page.locator("svg.ranks text.what")
        assert marked.count() > 0
        assert set(marked.all_text_contents()) == {f"lost: {component}"}


def test_the_matrix_page_shows_the_component_of_each_red_cell(started: Browser, gallery: Gallery) -> None:
    with opened(started, gallery.pages["matrix"]) as found:
        red = found.page.locator("td.cell.failed").all_inner_texts()
        assert len(red) == 2
        assert any("lost: optimizer" in text for text in red)
        assert any("lost: experts" in text for text in red)
        found.page.get_by_label("only red").check()
        assert found.page.locator("table.matrix tbody tr:visible").count() == 2
        found.page.get_by_label("Find a case").fill("moe tp4")
        assert found.page.locator("table.matrix tbody tr:visible").count() == 1
        assert found.page.locator("#found").inner_text() == "1 of 3 cases"


# -- the plots -------------------------------------------------------------------------------------


def _plot(page: Page, metric: str) -> Locator:
    figure = page.locator("figure.metric").filter(has=page.locator(f"h3:text('{metric} ')")).first
    figure.scroll_into_view_if_needed()
    figure.locator(".u-over").first.wait_for()
    return figure


def _hover(page: Page, figure: Locator, step: int, first: int, last: int) -> dict[str, str]:
    """What all legends of a figure say when the mouse is over ``step``."""
    box = figure.locator(".u-over").first.bounding_box()
    assert box is not None
    x = box["x"] + (step - first) / (last - first) * box["width"]
    page.mouse.move(min(x, box["x"] + box["width"] - 1), box["y"] + box["height"] / 2)
    return _legend(figure)


def _legend(figure: Locator) -> dict[str, str]:
    names = figure.locator(".u-legend .u-label").all_inner_texts()
    values = figure.locator(".u-legend .u-value").all_inner_texts()
    return dict(zip((name.rstrip(":") for name in names), values, strict=True))


@pytest.mark.parametrize("name", _RED)
def test_the_mouse_shows_the_values_of_verdict_json(started: Browser, gallery: Gallery, name: str) -> None:
    made: Made = gallery.cells[name]
    raw = json.loads((made.folder / "verdict.json").read_text())
    with opened(started, gallery.pages[name]) as found:
        for check in raw["checks"]:
            if check["passed"] or check["against"] != "continuous":
                continue
            worst = check["worst"]
            shown = _hover(found.page, _plot(found.page, check["metric"]), worst["step"], 1, 100)
            assert shown["step"] == str(worst["step"])
            assert float(shown["continuous"]) == worst["expected"]
            assert float(shown["resumed"]) == worst["actual"]
            assert abs(float(shown["resumed − continuous"])) == worst["abs"]


@pytest.mark.parametrize("metric", ["lm loss", "mem-max-allocated-bytes", "learning-rate", "iteration-time"])
def test_the_mouse_shows_what_was_logged_at_every_step(
    started: Browser, gallery: Gallery, metric: str
) -> None:
    made = gallery.cells["moe-red"]
    assert made.golden is not None
    sources = {"golden": made.golden.series} | {
        phase: made.series(phase) for phase in ("continuous", "resumed")
    }
    with opened(started, gallery.pages["moe-red"]) as found:
        figure = _plot(found.page, metric)
        for step in (1, 2, 37, 50, 51, 99, 100):
            shown = _hover(found.page, figure, step, 1, 100)
            assert shown["step"] == str(step)
            for source, series in sources.items():
                at = series[metric].values[series[metric].steps == step]
                assert shown[source] == "–" if not at.size else float(shown[source]) == at[0]


def test_all_plots_show_the_same_step(started: Browser, gallery: Gallery) -> None:
    with opened(started, gallery.pages["moe-red"]) as found:
        other = _plot(found.page, "grad-norm")
        _hover(found.page, _plot(found.page, "lm loss"), 64, 1, 100)
        assert _legend(other)["step"] == "64"


def test_dragging_zooms_in_and_a_double_click_shows_everything(started: Browser, gallery: Gallery) -> None:
    with opened(started, gallery.pages["moe-red"]) as found:
        page, figure = found.page, _plot(found.page, "lm loss")
        box = figure.locator(".u-over").first.bounding_box()
        assert box is not None
        y = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] * 0.5, y)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.75, y, steps=5)
        page.mouse.up()
        page.mouse.move(box["x"] + 2, y)
        assert 49 <= int(_legend(figure)["step"]) <= 52
        page.mouse.move(box["x"] + box["width"] - 2, y)
        assert 74 <= int(_legend(figure)["step"]) <= 77
        other = _plot(page, "grad-norm")
        at = other.locator(".u-over").first.bounding_box()
        assert at is not None
        page.mouse.move(at["x"] + 2, at["y"] + 20)
        assert 49 <= int(_legend(other)["step"]) <= 52, "the plots do not share their zoom"
        page.mouse.dblclick(at["x"] + 20, at["y"] + 20)
        page.mouse.move(at["x"] + 2, at["y"] + 22)
        assert int(_legend(other)["step"]) <= 2
        assert found.complaints == []


def test_buttons_zoom_for_those_who_cannot_drag(started: Browser, gallery: Gallery) -> None:
    with opened(started, gallery.pages["moe-red"], size=PHONE, has_touch=True) as found:
        figure = _plot(found.page, "lm loss")
        figure.get_by_label("zoom in on lm loss").tap()
        box = figure.locator(".u-over").first.bounding_box()
        assert box is not None
        found.page.touchscreen.tap(box["x"] + 2, box["y"] + 30)
        assert 24 <= int(_legend(figure)["step"]) <= 28
        figure.get_by_label("show all steps of lm loss").tap()
        found.page.touchscreen.tap(box["x"] + 2, box["y"] + 30)
        assert int(_legend(figure)["step"]) <= 2


def test_the_keyboard_reads_the_values_aloud(started: Browser, gallery: Gallery) -> None:
    made = gallery.cells["moe-red"]
    with opened(started, gallery.pages["moe-red"]) as found:
        figure = _plot(found.page, "lm loss")
        figure.locator(".live").focus()
        found.page.keyboard.press("End")
        said = found.page.locator("p.said[aria-live]").inner_text()
        last = made.series("resumed")["lm loss"].values[-1].item()
        assert said.startswith("step 100: ")
        assert f"resumed {last!r}" in said
        found.page.keyboard.press("ArrowLeft")
        assert found.page.locator("p.said[aria-live]").inner_text().startswith("step 99: ")
        assert _legend(figure)["step"] == "99"


def test_the_command_is_copied_or_at_least_selected(started: Browser, gallery: Gallery) -> None:
    with opened(started, gallery.pages["moe-red"]) as found:
        found.page.get_by_role("button", name="Copy").click()
        found.page.locator("button.copy", has_text=re.compile("Copied|Selected")).wait_for()
        assert found.complaints == []


def test_without_scripts_and_in_print_the_curves_are_there(started: Browser, gallery: Gallery) -> None:
    with opened(started, gallery.pages["moe-red"], java_script_enabled=False) as found:
        assert found.page.locator("svg.static:visible").count() == 12
        assert found.page.locator("canvas").count() == 0
    with opened(started, gallery.pages["moe-red"], color_scheme="dark") as found:
        scroll_through(found.page)
        assert found.page.locator("svg.static:visible").count() == 0
        found.page.emulate_media(media="print")
        assert found.page.locator("svg.static:visible").count() == 12
        assert found.page.locator("canvas:visible").count() == 0
        ground = found.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert ground == "rgb(255, 255, 255)"


def test_text_stands_out_from_its_ground_in_light_and_dark(started: Browser, gallery: Gallery) -> None:
    for scheme in ("light", "dark"):
        for name in ("moe-red", "history"):
            with opened(started, gallery.pages[name], color_scheme=scheme) as found:
                weak = found.page.evaluate(_CONTRAST)
                assert weak == [], f"{name}, {scheme}"


#: Texts with less contrast than 4.5 : 1 (WCAG 2, AA).
_CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const node of document.querySelectorAll("main *")) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
    if (!own || node.closest("svg") || !node.checkVisibility()) continue;
    const a = light(parse(getComputedStyle(node).color)), b = light(ground(node));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) weak.push(`${ratio.toFixed(2)} ${node.tagName} ${node.className}`);
  }
  return weak;
}"""
