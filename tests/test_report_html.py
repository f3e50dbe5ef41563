"""``report.html``: what it says, that it is one file that asks nobody, that no run can write into it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.checks import Check, Worst
from harness.diagnosis import Diagnosis
from harness.goldens import Golden
from harness.metrics import Series
from harness.report import curves
from harness.report.bands import half_widths
from harness.report.html import render, write_report
from harness.report.markup import asset, data_block, el, escape
from harness.report.picture import Layout, Lost, draw
from harness.verdict import Verdict
from harness.verdict.sweep import REPORT
from tests.made_results import GPT, METRICS, MOE, Made, make_cell, write_events
from tests.markup_of import Page


def page_of(made: Made) -> Page:
    return Page(
        render(made.folder, made.verdict, golden=made.golden, k=made.k, n=made.n, arguments=made.arguments)
    )


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The MoE case, whose resumed run lost experts 4 to 7."""
    return make_cell(tmp_path_factory.mktemp("red"), MOE, lost="experts")


@pytest.fixture(scope="module")
def page(red: Made) -> Page:
    return page_of(red)


# -- what it says ----------------------------------------------------------------------------------


def test_a_red_report_says_what_broke_since_when_what_was_lost_and_how_to_see_it(
    page: Page, red: Made
) -> None:
    said = page.said()
    assert "✗ Failed" in said
    assert "Resuming does not continue the same training." in said
    assert "step 51, 1 step after the checkpoint of 50" in said
    assert "experts: experts, or their router" in said
    assert "Entry model.decoder.layers.2.mlp.experts.linear_fc1.weight" in said
    assert red.verdict.reproduce in said
    assert all(line in said for line in red.verdict.diagnosis.evidence) if red.verdict.diagnosis else False


@pytest.mark.parametrize(
    ("provenance", "said"),
    [
        ({"commit": "a" * 40, "harness": "1.2", "harness_commit": "a" * 40}, "a" * 40 + " ; harness 1.2 "),
        ({"commit": "a" * 40, "harness": "1.2", "harness_commit": "b" * 40},
         f"{'a' * 40} ; harness 1.2 of {'b' * 40}"),
        ({"commit": "a" * 40 + "+"}, "a" * 40 + "+ (files were changed since)"),
        ({"commit": "", "harness": "1.2"}, "not known: the code under test is in no checkout; harness 1.2"),
    ],
)  # fmt: skip
def test_the_head_of_a_report_has_the_commit(red: Made, provenance: dict[str, str], said: str) -> None:
    verdict = replace(red.verdict, provenance=provenance)
    text = render(red.folder, verdict, golden=None, k=red.k, n=red.n)
    head = Page(text[: text.index("</header>")] + "</header></main></body></html>").said()
    assert f"Commit {said}" in head


def test_a_green_report_says_so_first(tmp_path: Path) -> None:
    said = page_of(make_cell(tmp_path, GPT, n=10, metrics=("lm loss",))).said()
    assert said.index("✓ Passed") < said.index("everything that was compared held")
    assert "✗" not in said


def test_every_check_is_in_the_table_with_its_exact_values(page: Page, red: Made) -> None:
    said = page.said()
    for check in red.verdict.checks:
        assert check.name in said
        assert check.message in said
        if check.worst:
            assert repr(check.worst.expected) in said
            assert repr(check.worst.actual) in said


def test_every_metric_has_its_curves_at_full_precision(page: Page, red: Made) -> None:
    plots = {plot["metric"]: plot for plot in page.data()["plots"]}
    assert set(plots) == set(METRICS)
    for metric, plot in plots.items():
        lines = {line["name"]: line["values"] for line in plot["lines"]}
        assert list(lines) == ["golden", "continuous", "resumed"]
        assert red.golden is not None
        sources = {
            "golden": red.golden.series,
            "continuous": red.series("continuous"),
            "resumed": red.series("resumed"),
        }
        for name, series in sources.items():
            drawn = {s: v for s, v in zip(plot["steps"], lines[name], strict=True) if v is not None}
            assert drawn == dict(
                zip(series[metric].steps.tolist(), series[metric].values.tolist(), strict=True)
            )


def test_the_first_bad_step_and_k_are_marked(page: Page) -> None:
    data = page.data()
    assert data["k"] == 50
    bad = {plot["metric"]: [mark["step"] for mark in plot["bad"]] for plot in data["plots"]}
    assert bad["lm loss"] == [51]
    assert bad["num-zeros"] == []
    assert "first bad step 51" in page.said()


def test_a_failed_metric_comes_before_those_that_held(page: Page) -> None:
    plots = [plot["metric"] for plot in page.data()["plots"]]
    assert set(plots[:3]) == {"lm loss", "grad-norm", "params-norm"}
    assert plots[0] == "lm loss"


def test_residuals_are_the_differences_of_what_both_have(page: Page) -> None:
    plot = page.data()["plots"][0]
    lines = {line["name"]: line["values"] for line in (*plot["lines"], *plot["residuals"])}
    for at, step in enumerate(plot["steps"]):
        off = lines["resumed − continuous"][at]
        if step <= 50:
            assert off is None
        else:
            assert off == lines["resumed"][at] - lines["continuous"][at]
        assert lines["continuous − golden"][at] == 0


def test_without_an_uninterrupted_run_the_joined_curve_is_compared_with_the_golden(tmp_path: Path) -> None:
    made = make_cell(tmp_path, GPT, n=10, metrics=("lm loss",))
    before = made.series("continuous")["lm loss"].at(1, 5).values.tolist()
    shutil.rmtree(made.folder / "continuous")
    write_events(made.folder / "interrupted" / "tensorboard", 1, {"lm loss": before})
    (plot,) = page_of(made).data()["plots"]
    assert [line["name"] for line in plot["lines"]] == ["golden", "interrupted", "resumed"]
    assert plot["residuals"] == [{"name": "joined − golden", "values": [0.0] * 10}]


def test_the_state_diff_is_shown_by_component_with_every_name(page: Page) -> None:
    said = page.said()
    assert "2 of 143 names differ" in said
    assert "model.decoder.layers.2.mlp.experts.linear_fc1.weight" in said
    assert "32768 of 65536" in said


def test_provenance_that_differs_from_the_goldens_is_marked(tmp_path: Path) -> None:
    said = page_of(make_cell(tmp_path, GPT, golden="tolerance", n=20, metrics=("lm loss",))).said()
    assert "Example CPU @ 2.00GHz Another CPU @ 3.10GHz ≠ differs" in said
    assert "2.13.0 2.13.0 = same" in said


def test_without_a_golden_the_report_says_so_and_draws_the_rest(tmp_path: Path) -> None:
    page = page_of(make_cell(tmp_path, GPT, golden=None, n=20, metrics=("lm loss",)))
    assert "there is no golden for this cell" in page.said()
    (plot,) = page.data()["plots"]
    assert [line["name"] for line in plot["lines"]] == ["continuous", "resumed"]


def test_a_cell_that_left_nothing_has_a_report(tmp_path: Path) -> None:
    verdict = Verdict(
        "cpu/dev/x",
        "error",
        (),
        Diagnosis("crash", ("rank 3 was killed by SIGKILL",)),
        {},
        {},
        "harness run x",
    )
    said = Page(render(tmp_path, verdict, golden=None, k=5, n=10)).said()
    assert "! Error" in said
    assert "Could not be run to its end: rank 3 was killed by SIGKILL" in said
    assert "No series could be read." in said


def test_a_phase_that_cannot_be_read_is_named_and_the_others_are_drawn(tmp_path: Path) -> None:
    made = make_cell(tmp_path, GPT, n=20, metrics=("lm loss",))
    (events,) = (made.folder / "resumed").rglob("*tfevents*")
    events.write_bytes(events.read_bytes()[:-7])
    page = page_of(made)
    assert "resumed: " in page.said()
    assert [line["name"] for line in page.data()["plots"][0]["lines"]] == ["golden", "continuous"]


def test_values_that_are_no_numbers_are_named_where_they_are(tmp_path: Path) -> None:
    made = make_cell(tmp_path, GPT, n=4, metrics=("lm loss",))
    for path in (made.folder / "resumed" / "tensorboard").iterdir():
        path.unlink()
    write_events(made.folder / "resumed" / "tensorboard", 3, {"lm loss": [float("nan"), float("inf")]})
    page = page_of(made)
    resumed = page.data()["plots"][0]["lines"][-1]
    assert resumed["values"] == [None, None, None, None]
    assert resumed["odd"] == {"2": "nan", "3": "inf"}
    assert "nan" in page.said()


def test_steps_that_were_logged_twice_are_named(tmp_path: Path) -> None:
    made = make_cell(tmp_path, GPT, n=4, metrics=("lm loss",))
    write_events(made.folder / "continuous" / "tensorboard", 2, {"lm loss": [7.0, 8.0]})
    assert "continuous logged 2 steps more than once" in page_of(made).said()


# -- one file that asks nobody ---------------------------------------------------------------------


def test_a_report_of_100_iterations_and_12_metrics_is_smaller_than_2_mb(red: Made) -> None:
    path = write_report(red.folder, red.verdict, golden=red.golden, k=red.k, n=red.n, arguments=red.arguments)
    assert path == red.folder / REPORT
    assert len(red.series("continuous")) == 12
    assert path.stat().st_size < 2 << 20


def test_nothing_in_it_refers_to_anything_outside(page: Page) -> None:
    links = [a.get("href") for a in page.all("a")]
    assert links
    for link in links:
        assert link is not None
        assert link.startswith(("#", "continuous/logs/", "resumed/logs/"))
    assert [a["href"] for a in page.all("link")] == ["data:,"]
    outside = [
        (tag, a) for tag, a in page.elements if {"src", "srcset", "action", "data", "style"} & a.keys()
    ]
    assert not outside
    assert not re.search(r"@import|url\((?!#)", "".join(text for tag, text in page.texts if tag == "style"))


def test_its_policy_allows_its_own_scripts_and_no_request(page: Page) -> None:
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy


def test_the_vendored_library_is_the_published_one() -> None:
    lines = [line.split() for line in asset("vendor", "uplot", "SHA256SUMS").splitlines()]
    assert {name for _, name in lines} == {"uPlot.iife.min.js", "uPlot.min.css"}
    for digest, name in lines:
        assert hashlib.sha256(asset("vendor", "uplot", name).encode()).hexdigest() == digest
    assert "MIT License" in asset("vendor", "uplot", "LICENSE")


# -- what a run writes stays text ------------------------------------------------------------------

_EVIL = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"' onmouseover='x' &amp; "
    "\x1b[2J\u202e\ud800"
)


def test_nothing_that_a_run_says_becomes_markup(tmp_path: Path) -> None:
    made = make_cell(tmp_path, GPT, n=4, metrics=("lm loss",))
    write_events(made.folder / "continuous" / "tensorboard", 1, {"</script><b>": [1.0, 2.0]})
    check = Check(_EVIL, "</script><b>", "continuous", "exact", passed=False, first_bad_step=2,
                  worst=Worst(2, _EVIL, _EVIL), message=_EVIL)  # fmt: skip
    verdict = Verdict(
        f"cpu/dev/{_EVIL}", "failed", (check,), Diagnosis("weights", (_EVIL,)), {_EVIL: 1.0},
        {_EVIL: {_EVIL: [_EVIL]}, "golden": _EVIL, "layout": _EVIL}, _EVIL,
    )  # fmt: skip
    evil = {
        "name": _EVIL,
        "component": _EVIL,
        "reason": [_EVIL],
        "detail": {_EVIL: 1},
        "a": _EVIL,
        "rows": _EVIL,
    }
    (made.folder / "state_diff.json").write_text(
        json.dumps(
            {"entries": [evil, "x", None], "a": _EVIL, "gaps_a": [{"sentence": _EVIL}, 3], "notes": [_EVIL]}
        )
    )
    (made.folder / "continuous" / "provenance.json").write_text(json.dumps({"layout": f"TP2 {_EVIL}"}))
    (made.folder / "continuous" / "logs" / "<b onclick=alert(1)>.log").touch()
    page = Page(render(made.folder, verdict, golden=made.golden, k=2, n=4))
    text = page.text
    text.encode("utf-8")
    assert not page.wrong
    assert not page.open
    assert not page.all("img")
    assert not page.all("b")
    assert len(page.all("script")) == 3
    assert not [a for _, a in page.elements if any(key.startswith("on") for key in a)]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800]", text)
    assert "alert(1)" in page.said()


@pytest.mark.parametrize("value", ["</script>", "<!--<script>", "\u2028", "a&b"])
def test_json_in_a_page_reads_back_and_cannot_end_its_element(value: str) -> None:
    block = data_block("data", {value: value})
    inner = block.partition(">")[2].rpartition("</script>")[0]
    assert not re.search(r"[<>&\u2028\u2029]", inner)
    assert json.loads(inner) == {value: value}


def test_an_attribute_cannot_be_left() -> None:
    assert el("a", "x", title='"><b>') == '<a title="&quot;&gt;&lt;b&gt;">x</a>'
    assert el("p", escape("<"), "<", None, 3) == "<p>&lt;&lt;3</p>"


# -- for everybody ---------------------------------------------------------------------------------


def test_it_is_well_formed_and_no_id_is_there_twice(page: Page) -> None:
    assert not page.wrong
    assert not page.open
    ids = Counter(a["id"] for _, a in page.elements if "id" in a)
    assert max(ids.values()) == 1
    missing = [
        a["href"] for a in page.all("a") if str(a["href"]).startswith("#") and str(a["href"])[1:] not in ids
    ]
    assert not missing


def test_tables_have_captions_and_pictures_have_words(page: Page) -> None:
    assert len(page.all("caption")) == len(page.all("table")) > 12
    assert all(a.get("scope") for a in page.all("th"))
    svgs = page.all("svg")
    assert all(a.get("aria-label") for a in svgs if a.get("role") == "img")
    assert [a for a in svgs if a.get("class") == "static"]
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1


def test_every_drawn_value_is_in_a_table_too(page: Page, red: Made) -> None:
    cells = {text for tag, text in page.texts if tag == "td"}
    for value in red.series("resumed")["lm loss"].values.tolist():
        assert repr(value) in cells


def test_state_is_never_told_by_colour_alone(page: Page) -> None:
    badges = [text for tag, text in page.texts if tag == "span" and text.strip() in ("✗ failed", "✓ passed")]
    assert len(badges) >= 3


# -- bands, thinning -------------------------------------------------------------------------------


def test_the_band_of_a_tolerance_is_where_its_check_turns_red() -> None:
    from harness.checks import compare_curves

    steps = np.arange(1, 41)
    golden = 10.0 + np.exp(-steps / 9.0)
    off = 1e-7 * np.ones(40)

    def judge(at: int, size: float) -> bool:
        run = golden.copy() + off
        run[at] = golden[at] + size
        (check,) = compare_curves(
            {"load_balancing_loss": Series("load_balancing_loss", steps, golden)},
            {"load_balancing_loss": Series("load_balancing_loss", steps, run)},
            against="golden", lane="tolerance", first=1, last=40,
        )  # fmt: skip
        return check.passed or (
            "are off by more" not in check.message and "is off by more" not in check.message
        )

    check = Check("golden: load_balancing_loss", "load_balancing_loss", "golden", "tolerance", passed=True)
    expected = dict(zip(steps.tolist(), golden.tolist(), strict=True))
    limits = half_widths(check, expected, {s: v + 1e-7 for s, v in expected.items()}, None)
    assert set(limits) == set(steps.tolist())
    for at in (0, 20, 39):
        assert judge(at, limits[at + 1] * 0.999)
        assert not judge(at, limits[at + 1] * 1.001)


def test_an_exact_comparison_has_no_band_but_says_that_nothing_may_differ(page: Page) -> None:
    bands = page.data()["plots"][0]["bands"]
    assert [band["limits"] for band in bands] == [None, None]
    assert all("must be 0" in band["text"] for band in bands)


def test_a_long_run_is_thinned_but_not_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "POINTS", 1000)
    steps = np.arange(1, 5001)
    line = np.sin(steps / 50.0)
    line[3210] = 40.0
    check = Check("continuous: x", "x", "continuous", "exact", passed=False, first_bad_step=2777)
    verdict = Verdict("cpu/dev/x", "failed", (check,), None, {}, {}, "")
    series = {"x": Series("x", steps, line)}
    golden = SimpleNamespace(series=series, statistics={})
    (plot,) = curves.plots(
        {"continuous": series}, golden, verdict, k=2500,  # type: ignore[arg-type]  # all that is asked of it
    )  # fmt: skip
    assert len(plot.steps) < 1000
    assert {1, 5000, 2500, 2501, 2777, 3211} <= set(plot.steps)
    assert "of 5000 steps are drawn" in plot.notes[-1]


# -- which rank holds what -------------------------------------------------------------------------


def test_a_layout_is_read_and_says_which_rank_holds_what() -> None:
    layout = Layout.parse("TP4 PP2 VP1 DP1 EP2 ETP2", {"--num-layers": "4", "--num-experts": "8"})
    assert layout is not None
    assert layout.world == 8
    assert [layout.rank(t, p, 0) for p in range(2) for t in range(4)] == list(range(8))
    assert [layout.expert_rank(t, 0) for t in range(4)] == [0, 0, 1, 1]
    assert layout.layers_of(1) == [range(2, 4)]
    assert layout.experts_of(1) == range(4, 8)


def test_virtual_stages_deal_layers_round_robin() -> None:
    layout = Layout.parse("TP1 PP4 VP2 DP1", {"--num-layers": "8"})
    assert layout is not None
    assert layout.layers_of(0) == [range(1), range(4, 5)]
    assert layout.layers_of(3) == [range(3, 4), range(7, 8)]


@pytest.mark.parametrize("text", ["", "one rank", "TP0 PP2", "TPx"])
def test_what_is_no_layout_is_none(text: str) -> None:
    assert Layout.parse(text) is None


_MOE = Layout(tp=4, pp=2, ep=2, etp=2, layers=4, experts=8)


@pytest.mark.parametrize(
    ("lost", "ranks"),
    [
        (Lost("experts", ("model.decoder.layers.2.mlp.experts.linear_fc1.weight",),
              {"model.decoder.layers.2.mlp.experts.linear_fc1.weight": (4, 7)}), {6, 7}),
        (Lost("experts", ("model.decoder.layers.0.mlp.experts.linear_fc1.weight",)), {0, 1, 2, 3}),
        (Lost("weights", ("model.decoder.layers.3.mlp.linear_fc1.weight",)), {4, 5, 6, 7}),
        (Lost("rng", ("rng.cpu.2_1_0",)), {6}),
        (Lost("embedding"), set(range(8))),
        (Lost("embedding", ("model.embedding.position_embeddings.weight",)), {0, 1, 2, 3}),
        (Lost("lr-schedule", ("scheduler.position",)), set(range(8))),
    ],
)  # fmt: skip
def test_the_ranks_that_hold_what_was_lost_are_marked(lost: Lost, ranks: set[int]) -> None:
    assert {_MOE.rank(*at) for at in lost.holders(_MOE)} == ranks
    picture = Page(draw("Resumed", _MOE, lost))
    assert len([text for _, text in picture.texts if text == f"lost: {lost.component}"]) == len(ranks)
    assert len([1 for tag, text in picture.texts if tag == "td" and text == "lost"]) == len(ranks)


def test_thousands_of_ranks_are_drawn_as_some_of_them() -> None:
    layout = Layout(tp=8, pp=4, dp=64)
    picture = draw("Resumed", layout, Lost("optimizer"))
    assert picture.count('class="rank lost"') <= 256
    assert "more ranks, alike" in picture
    assert len(picture) < 400_000


def test_the_report_of_a_reshaped_resume_shows_both_layouts(tmp_path: Path) -> None:
    made = make_cell(tmp_path, MOE, n=4, metrics=("lm loss",))
    (made.folder / "resumed" / "provenance.json").write_text('{"layout": "TP2 PP2 VP1 DP2 EP2 ETP2"}')
    said = page_of(made).said()
    assert "Saved by the run before TP4 PP2 VP1 DP1 EP2 ETP2" in said
    assert "Resumed by TP2 PP2 VP1 DP2 EP2 ETP2" in said


def test_a_golden_that_is_a_fallback_says_so(red: Made) -> None:
    assert red.golden is not None
    fallback: Golden = replace(red.golden, fallback=True)
    made = replace(red, golden=fallback)
    assert "never compared exactly" in page_of(made).said()
