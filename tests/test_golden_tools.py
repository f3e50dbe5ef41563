"""``harness goldens``: a store looked at, accounted for, filled; ours and Megatron-LM's."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import goldens
from harness.commands.cli import main
from harness.errors import GoldenError
from harness.goldens import names, reading
from harness.goldens.compare import compare
from harness.goldens.importing import plan
from harness.goldens.listing import Row
from harness.goldens.sources import Source
from harness.goldens.store import Planned, put
from harness.matrix import HARDWARE, TRACKS
from harness.metrics import Series
from tests.checkouts import CASE, GOLDENS, SCHEMES, Checkout, curve, golden, make, second

CASE_TEXT = CASE.format(test_type="ckpt-resume", more="", n=20, half=10)
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return make(tmp_path_factory.mktemp("goldens") / "Megatron-LM")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A Megatron-LM folder of one case, ``gpt/a_case``, that trains 20 iterations."""
    folder = tmp_path / "tree" / "gpt" / "a_case"
    folder.mkdir(parents=True)
    (folder / "model_config.yaml").write_text(CASE_TEXT)
    return folder


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def lint(path: Path, capsys: Capture, *more: str) -> dict[tuple[str, str | None], dict[str, str]]:
    """Findings by (kind, key)."""
    status = main(["goldens", "lint", str(path), "--json", *more])
    found = json.loads(capsys.readouterr().out)["findings"]
    assert status == (1 if found else 0)
    return {(finding["kind"], finding["key"]): finding for finding in found}


def series(name: str, values: Mapping[int, float]) -> Series:
    return Series(name, np.array(list(values), np.int64), np.array(list(values.values()), np.float64))


def ours(store: Path, values: Mapping[int, float], *, how: str = "recorded", **more: Any) -> Path:
    path = store / "a_case" / "golden_values_dev_cpu.json"
    about = goldens.provenance_of({"device": "a CPU", "torch": "2.13.0"}, {"weights": "00"}, how=how)
    goldens.write(path, {"lm loss": series("lm loss", values)}, about | more)
    return path


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "track", "platform", "version", "words"),
    [
        ("golden_values_dev_dgx_h100.json", "dev", "dgx_h100", None, ()),
        ("golden_values_lts.json", "lts", None, None, ()),
        ("golden_values.json", None, None, None, ()),
        ("golden_values_dev_cpu.json", "dev", "cpu", None, ()),
        ("golden_values_lts_dgxa100_dracooci-ord.json", "lts", "dgx_a100", None, ("dracooci-ord",)),
        ("golden_values_dev_dgx_h100_2nd.json", "dev", "dgx_h100", None, ()),
        ("golden_values_0.8.0.json", None, None, "0.8.0", ()),
        ("golden_values_0.9.0_dgx_a100_lts.json", "lts", "dgx_a100", "0.9.0", ()),
        ("golden_values_0.13.0_TE2.5_dgx_h100_dev.json", "dev", "dgx_h100", "0.13.0_TE2.5", ()),
        ("golden_values_0.11.0_PyT24.10_dgx_a100_lts.json", "lts", "dgx_a100", "0.11.0_PyT24.10", ()),
    ],
)
def test_name_is_taken_apart(
    given: str, track: str | None, platform: str | None, version: str | None, words: tuple[str, ...]
) -> None:
    name = names.parse(given)
    assert name is not None
    assert (name.track, name.platform, name.version, name.words) == (track, platform, version, words)
    assert name.second_run == given.endswith("_2nd.json")


@pytest.mark.parametrize("given", ["prompts.json", "golden_valuesx.json", "golden_values_dev.yaml", ".json"])
def test_other_names_are_no_goldens(given: str) -> None:
    assert names.parse(given) is None


# -- lint --------------------------------------------------------------------------------------


def test_every_golden_of_a_checkout_is_read_or_reported(checkout: Checkout, capsys: Capture) -> None:
    assert main(["goldens", "lint", str(checkout.root), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == checkout.files
    assert sum(found["files"].values()) == GOLDENS
    assert found["cases"] == checkout.states
    empty = [f["file"] for f in found["findings"] if f["kind"] == "empty"]
    assert empty == sorted(path.relative_to(checkout.cases).as_posix() for path in checkout.zero)
    assert {f["kind"] for f in found["findings"]} == {"empty", "unused", "no-golden"}


def test_lint_says_each_finding_in_a_line_with_its_file(checkout: Checkout, capsys: Capture) -> None:
    assert main(["goldens", "lint", str(checkout.cases / "bert")]) == 1
    *lines, summary = capsys.readouterr().out.splitlines()
    assert all(line.count(": ") >= 1 for line in lines)
    assert summary.endswith(f"{len(lines)} findings")


@pytest.mark.parametrize(
    ("content", "kind", "key"),
    [
        ("", "empty", None),
        ("  \n", "empty", None),
        ("{", "not-json", None),
        ("[" * 100_000, "not-json", None),
        ("[]", "not-a-golden", None),
        ("{}", "not-a-golden", None),
        ('{"a": 1}', "not-a-golden", None),
        ({"lm loss": {**curve(0), "values": [1.0, 2.0]}}, "list-of-values", "lm loss"),
        ({"lm loss": {**curve(0), "values": {}}}, "no-values", "lm loss"),
        ({"lm loss": {**curve(0), "start_step": "1"}}, "not-a-series", "lm loss"),
        ({"lm loss": curve(0), "x": 3}, "not-a-series", "x"),
        ({"lm loss": {**curve(0), "start_step": 2}}, "wrong-start", "lm loss"),
        ({"lm loss": {**curve(0), "end_step": 50}}, "wrong-end", "lm loss"),
        ({"lm loss": curve(0, n=12)}, "cut-short", "lm loss"),
        ({"lm loss": curve(0), "num-zeros": curve(0, n=12)}, "cut-short", "num-zeros"),
        ('{"lm loss": 1, "lm loss": {"start_step": 1}}', "repeated-key", "lm loss"),
    ],
)
def test_broken_golden_is_one_finding_with_its_key(
    tree: Path, capsys: Capture, content: object, kind: str, key: str | None
) -> None:
    write(tree / "golden_values_dev_dgx_h100.json", content)
    found = lint(tree.parent.parent, capsys)
    assert (kind, key) in found
    assert found[kind, key]["file"] == "gpt/a_case/golden_values_dev_dgx_h100.json"


@pytest.mark.parametrize("odd", ["nan", "inf", None, True, [1], float("nan"), float("-inf"), 10**400])
def test_value_that_is_no_number_is_found_with_its_step(tree: Path, capsys: Capture, odd: object) -> None:
    content = curve(0)
    values = content["values"]
    assert isinstance(values, dict)
    values["7"] = odd
    write(tree / "golden_values_dev_dgx_h100.json", {"lm loss": content})
    assert list(lint(tree.parent.parent, capsys)) == [("not-finite", "lm loss/7")]


def test_gap_and_step_off_the_grid_are_found(tree: Path, capsys: Capture) -> None:
    gap, off = curve(0), curve(0)
    assert isinstance(gap["values"], dict)
    assert isinstance(off["values"], dict)
    for step in (4, 5, 9):
        del gap["values"][str(step)]
    off["values"] = {
        step: value for step, value in off["values"].items() if step in ("1", "5", "7", "10", "15", "20")
    }
    off["step_interval"] = 5
    write(tree / "golden_values_dev_dgx_h100.json", {"lm loss": gap, "num-zeros": off})
    found = lint(tree.parent.parent, capsys)
    assert found["gap", "lm loss"]["message"] == "steps 4 to 5, 9 are missing"
    assert found["off-grid", "num-zeros"]["message"] == "step_interval is 5, and there are steps 7 between"


def test_every_fifth_step_from_the_first_is_no_gap(tree: Path, capsys: Capture) -> None:
    values = {str(step): 1.0 for step in (1, 5, 10, 15, 20)}
    sparse = {"start_step": 1, "end_step": 20, "step_interval": 5, "values": values}
    write(tree / "golden_values_dev_dgx_h100.json", {"lm loss": sparse})
    assert lint(tree.parent.parent, capsys) == {}


def test_resumed_run_that_is_not_its_first_run_is_a_stale_pair(tree: Path, capsys: Capture) -> None:
    first = golden(1)
    write(tree / "golden_values_dev_dgx_h100.json", first)
    write(tree / "golden_values_dev_dgx_h100_2nd.json", second(first))
    assert {kind for kind, _ in lint(tree.parent.parent, capsys)} == {"unused"}
    stale = second(golden(1))
    assert isinstance(stale["lm loss"], dict)
    stale["lm loss"]["values"]["13"] += 1e-5
    write(tree / "golden_values_dev_dgx_h100_2nd.json", stale)
    found = lint(tree.parent.parent, capsys)
    assert "1 steps differ" in found["stale-pair", "lm loss/13"]["message"]


def test_nan_in_the_second_half_of_a_resumed_run_is_found(tree: Path, capsys: Capture) -> None:
    odd = second(golden(1))
    assert isinstance(odd["lm loss"], dict)
    odd["lm loss"]["values"]["15"] = "nan"
    write(tree / "golden_values_dev_dgx_h100_2nd.json", odd)
    assert ("not-finite", "lm loss/1") in lint(tree.parent.parent, capsys)


def test_files_that_nothing_opens_are_found(tree: Path, capsys: Capture) -> None:
    for name in (
        "golden_values.json",
        "golden_values_dev_dgxh100_eos.json",
        "golden_values_dev_dgx_h100.json",
    ):
        write(tree / name, golden(1))
    write(tree / "baseline.json", {"a": 1})
    write(tree.parent / "no_case" / "golden_values_dev_dgx_h100.json", golden(1))
    status = main(["goldens", "lint", str(tree.parent.parent), "--json"])
    found = {f["file"]: f["message"] for f in json.loads(capsys.readouterr().out)["findings"]}
    assert status == 1
    assert found == {
        "gpt/a_case/baseline.json": "is no golden by its name, and no case beside it names it",
        "gpt/a_case/golden_values.json": "no run opens a golden whose name has no track",
        "gpt/a_case/golden_values_dev_dgxh100_eos.json": (
            "no run opens a golden of that name, expected golden_values_dev_dgx_h100.json"
        ),
        "gpt/no_case/golden_values_dev_dgx_h100.json": "there is no case no_case",
    }


def test_recipes_say_which_goldens_are_used_and_which_are_missing(
    tree: Path, capsys: Capture, tmp_path: Path
) -> None:
    recipe = (
        "spec: {nodes: 1, gpus: 8}\nproducts:\n  - test_case: [a_case]\n    products:\n"
        "      - {environment: [dev], platforms: [dgx_h100, dgx_a100]}\n"
    )
    write(tmp_path / "tree" / "tests" / "test_utils" / "recipes" / "gpt.yaml", recipe)
    write(tmp_path / "tree" / "tests" / "test_utils" / "recipes" / "broken.yaml", "a: [")
    for name in ("golden_values_dev_dgx_h100.json", "golden_values_lts_dgx_h100.json"):
        write(tree / name, golden(1))
    found = lint(tmp_path / "tree", capsys)
    assert set(found) == {("recipe", None), ("unused", None), ("no-golden", "dev/dgx_a100")}
    assert "no recipe runs a_case for lts on dgx_h100" in found["unused", None]["message"]


def test_links_and_folders_in_place_of_files_are_found_and_end_nothing(tree: Path, capsys: Capture) -> None:
    write(tree / "golden_values_dev_dgx_h100.json", golden(1))
    (tree / "loop").symlink_to(tree.parent)
    (tree / "golden_values_lts.json").symlink_to("golden_values_lts.json")
    (tree / "golden_values_dev.json").mkdir()
    status = main(["goldens", "lint", str(tree.parent.parent), "--json"])
    found = {f["file"]: f["kind"] for f in json.loads(capsys.readouterr().out)["findings"]}
    assert status == 1
    assert found == {
        "gpt/a_case/loop": "link",
        "gpt/a_case/golden_values_lts.json": "link",
        "gpt/a_case/golden_values_dev.json": "not-a-file",
    }


def test_store_of_ours_is_linted_with_its_provenance(tmp_path: Path, tree: Path, capsys: Capture) -> None:
    store, cases = tmp_path / "goldens", str(tree.parent.parent)
    path = ours(store, dict.fromkeys(range(1, 21), 1.0))
    assert lint(store, capsys, "--cases", cases) == {}
    side = goldens.side_file(path)
    side.write_text("{}")
    assert list(lint(store, capsys, "--cases", cases)) == [("not-a-provenance", "fingerprint")]
    side.write_text("{")
    assert list(lint(store, capsys, "--cases", cases)) == [("not-json", None)]
    path.unlink()
    assert ("unused", None) in lint(store, capsys, "--cases", cases)


def test_case_that_is_run_and_has_no_golden_is_found(tmp_path: Path, tree: Path, capsys: Capture) -> None:
    (tmp_path / "goldens").mkdir()
    found = lint(tmp_path / "goldens", capsys, "--cases", str(tree.parent.parent))
    assert list(found) == [("no-golden", None)]


def test_damaged_head_does_not_fill_the_memory() -> None:
    assert len(reading.grid(1, 10**15, 1, {1: 0, 10**15: 0})) < 10


# -- diff and show -----------------------------------------------------------------------------


def test_diff_says_first_largest_relative_and_direction() -> None:
    a = Source("a", {"lm loss": {1: 10.0, 2: 9.0, 3: 8.0, 4: 0.0}, "gone": {1: 1.0}})
    b = Source("b", {"lm loss": {1: 10.0, 2: 9.5, 3: 9.0, 4: 0.25}, "new": {1: 1.0}})
    loss, gone, new = compare(a, b)
    assert (loss.steps, loss.differing, loss.first) == (4, 3, (2, 9.0, 9.5))
    assert (loss.largest, loss.relative) == ((3, 1.0), (3, 0.125))
    assert "B is higher at all 3 of them" in loss.sentence()
    assert (gone.only_a, new.only_b) == ((1,), (1,))
    assert not gone.same


def test_one_bit_is_a_difference_and_so_is_the_sign_of_zero() -> None:
    a = Source("a", {"x": {1: 1.0, 2: 0.0}})
    b = Source("b", {"x": {1: np.nextafter(1.0, 2.0).item(), 2: -0.0}})
    assert compare(a, b)[0].differing == 2


def test_diff_exits_0_for_the_same_and_1_for_others(tmp_path: Path, capsys: Capture) -> None:
    a = write(tmp_path / "a.json", golden(1))
    b = write(tmp_path / "b.json", golden(2))
    assert main(["goldens", "diff", str(a), str(a)]) == 0
    assert "lm loss: the same at all 20 steps" in capsys.readouterr().out
    assert main(["goldens", "diff", str(a), str(b), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["same"] is False
    assert {m["metric"]: m["same"] for m in found["metrics"]}["mem-allocated-bytes"] is True


def test_cell_is_shown_with_the_golden_that_a_run_would_choose(tmp_path: Path, capsys: Capture) -> None:
    store = tmp_path / "goldens"
    write(store / "a_case" / "golden_values_dev.json", golden(1))
    assert main(["goldens", "show", "h100/dev/a_case", "--goldens", str(store)]) == 0
    assert "golden_values_dev.json (fallback)" in capsys.readouterr().out
    write(store / "a_case" / "golden_values_dev_dgx_h100.json", golden(1))
    assert main(["goldens", "show", "h100/dev/a_case", "--goldens", str(store)]) == 0
    assert "golden_values_dev_dgx_h100.json\n" in capsys.readouterr().out
    assert main(["goldens", "show", "h100/lts/a_case", "--goldens", str(store)]) == 2
    assert "there is no golden for it" in capsys.readouterr().err


def test_show_says_what_it_was_recorded_with(tmp_path: Path, capsys: Capture) -> None:
    path = ours(tmp_path, {1: 2.5, 2: 2.25})
    assert main(["goldens", "show", str(path)]) == 0
    out = capsys.readouterr().out
    assert "fingerprint: device: a CPU" in out
    assert "2.5 at 1" in out
    assert main(["goldens", "show", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["values"] == {"lm loss": {"1": 2.5, "2": 2.25}}


# -- list --------------------------------------------------------------------------------------


def test_list_shows_exact_tolerance_fallback_and_none(tmp_path: Path, capsys: Capture, tree: Path) -> None:
    store, cases = tmp_path / "goldens", tree.parent.parent
    ours(store, {1: 1.0, 2: 2.0})
    write(store / "a_case" / "golden_values_lts.json", golden(1))
    write(store / "a_case" / "golden_values_dev_dgx_h100.json", golden(1))
    arguments = ["goldens", "list", "--goldens", str(store), "--cases", str(cases)]
    assert main([*arguments, "--json"]) == 0
    found = {row["cell"]: row for row in json.loads(capsys.readouterr().out)}
    assert {cell: row["compared"] for cell, row in found.items()} == {
        **{f"{hardware}/{track}/a_case": "none" for hardware in HARDWARE for track in TRACKS},
        **{f"{hardware}/lts/a_case": "fallback" for hardware in HARDWARE},
        "cpu/dev/a_case": "exact",
        "h100/dev/a_case": "tolerance",
    }
    assert found["cpu/dev/a_case"]["how"] == "recorded"
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert f"{len(found) - len(HARDWARE) - 2} of {len(found)} cells have no golden" in out
    assert "a CPU, torch 2.13.0" in out
    write(store / "a_case" / "golden_values_dev_dgx_a100.json", "")
    assert main(arguments) == 2
    assert "is empty (0 bytes)" in capsys.readouterr().out


def test_age_is_said_in_the_largest_unit() -> None:
    now = datetime(2026, 1, 10, tzinfo=timezone.utc)
    ages = {
        timedelta(days=3, hours=5): "3 days", timedelta(days=1): "1 day", timedelta(hours=2): "2 hours",
        timedelta(minutes=1): "1 minute", timedelta(seconds=9): "now",
    }  # fmt: skip
    for since, said in ages.items():
        assert Row("c", "exact", "f", recorded=(now - since).isoformat()).age(now) == said
    assert Row("c", "exact", "f", recorded="yesterday").age(now) == "unknown"


# -- import ------------------------------------------------------------------------------------


def test_checkout_is_imported_and_every_file_accounted_for(
    checkout: Checkout, tmp_path: Path, capsys: Capture
) -> None:
    store = tmp_path / "goldens"
    arguments = ["goldens", "import", str(checkout.root), "--goldens", str(store), "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["imported"]) + len(found["left"]) == GOLDENS
    assert all(each["reason"] for each in found["left"])
    for each in found["imported"]:
        one = goldens.read(Path(each["golden"]))
        assert (one.provenance["how"], one.fingerprint) == ("imported", {})
        assert json.loads(Path(each["from"]).read_text())["lm loss"]["values"] == {
            str(step): value
            for step, value in zip(
                one.series["lm loss"].steps.tolist(), one.series["lm loss"].values.tolist(), strict=True
            )
        }
    assert main(arguments) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["imported"], len(again["same"])) == ([], len(found["imported"]))


def test_every_scheme_goes_where_its_track_and_platform_say(tree: Path, tmp_path: Path) -> None:
    for index, name in enumerate(SCHEMES):
        write(tree / name, golden(index))
    found = plan(tree.parent.parent, tmp_path / "goldens")
    assert {each.path.name: each.source.name for each in found.planned} == {
        name: name
        for name in (
            "golden_values_dev_dgx_h100.json", "golden_values_lts_dgx_a100.json",
            "golden_values_dev_dgx_a100.json", "golden_values_lts.json", "golden_values_dev.json",
            "golden_values_dev_dgx_gb200.json",
        )
    }  # fmt: skip
    reasons = {each.file.name: each.reason for each in found.left}
    assert len(reasons) == len(SCHEMES) - 6
    assert reasons["golden_values.json"] == reasons["golden_values_0.8.0.json"] == "its name says no track"
    write(tree / "golden_values_dev_dgx_v100.json", golden(0))
    (other,) = [
        each for each in plan(tree.parent.parent, tmp_path / "goldens").left if "v100" in each.file.name
    ]
    assert other.reason == "no hardware known here is a dgx_v100"
    assert reasons["golden_values_dev_dgxh100_eos.json"] == (
        "golden_values_dev_dgx_h100.json is the golden of that track and platform"
    )
    assert "resumed run" in reasons["golden_values_dev_dgx_h100_2nd.json"]


def test_cluster_comes_before_release_and_the_newest_release_first(tree: Path, tmp_path: Path) -> None:
    wanted = [
        "golden_values_dev_dgxh100_coreweave.json",
        "golden_values_0.13.0_TE2.5_dgx_h100_dev.json",
        "golden_values_0.9.0_dgx_h100_dev.json",
    ]
    for index, name in enumerate(wanted):
        write(tree / name, golden(index))
    for name in wanted:
        found = plan(tree, tmp_path / "goldens")
        assert [(p.path.name, p.source.name) for p in found.planned] == [
            ("golden_values_dev_dgx_h100.json", name)
        ]
        write(tree / name, "")


def test_track_and_hardware_choose_what_is_imported(tree: Path, tmp_path: Path) -> None:
    for name in (
        "golden_values_dev_dgx_h100.json",
        "golden_values_lts_dgx_h100.json",
        "golden_values_dev_dgx_a100.json",
    ):
        write(tree / name, golden(1))
    found = plan(tree, tmp_path / "goldens", tracks=["dev"], hardware=["h100"])
    assert [each.path.name for each in found.planned] == ["golden_values_dev_dgx_h100.json"]
    assert {each.reason for each in found.left} == {"its track is lts", "its platform is dgx_a100"}


def test_series_that_no_run_can_be_compared_with_are_left_out_and_named(tree: Path, tmp_path: Path) -> None:
    content = golden(1)
    for name in ("lm loss", "num-zeros", "iteration-time"):
        assert isinstance(content[name], dict)
    content["num-zeros"]["values"]["9"] = "nan"  # type: ignore[index]
    content["iteration-time"]["values"] = {"1": "nan", **content["iteration-time"]["values"]}  # type: ignore[index]
    content["iteration-time"]["start_step"] = 1  # type: ignore[index]
    write(tree / "golden_values_dev_dgx_h100.json", content)
    (one,) = plan(tree, tmp_path / "goldens").planned
    assert set(one.series) == {"lm loss", "mem-allocated-bytes", "iteration-time"}
    assert one.series["iteration-time"].steps[0] == 2
    assert set(one.remarks) == {
        "num-zeros: no number at steps 9", "iteration-time: begins at step 2, no number before",
    }  # fmt: skip


def test_what_was_recorded_here_is_not_overwritten_unasked(tree: Path, tmp_path: Path) -> None:
    store = tmp_path / "goldens"
    write(tree / "golden_values_dev_dgx_h100.json", golden(1))
    target = store / "a_case" / "golden_values_dev_dgx_h100.json"
    goldens.write(target, {"lm loss": series("lm loss", {1: 1.0})}, goldens.provenance_of({"a": 1}, {}))
    found = plan(tree, store)
    assert (found.planned, len(found.left)) == ((), 1)
    assert "was recorded here" in found.left[0].reason
    assert len(plan(tree, store, replace=True).planned) == 1
    goldens.write(
        target, {"lm loss": series("lm loss", {1: 1.0})}, goldens.provenance_of({}, {}, how="imported")
    )
    assert len(plan(tree, store).planned) == 1


def test_goldens_of_cases_that_are_not_run_or_named_twice_are_left(tree: Path, tmp_path: Path) -> None:
    for family, text in (("moe", CASE_TEXT), ("t5", CASE_TEXT.replace("ckpt-resume", "release"))):
        folder = tree.parent.parent / family / ("a_case" if family == "moe" else "big")
        write(folder / "model_config.yaml", text)
        write(folder / "golden_values_dev_dgx_h100.json", golden(1))
    write(tree / "golden_values_dev_dgx_h100.json", golden(2))
    found = plan(tree.parent.parent, tmp_path / "goldens")
    assert found.planned == ()
    assert sorted(each.reason.partition(":")[0] for each in found.left) == [
        "its case is not run", "two cases have that name", "two cases have that name",
    ]  # fmt: skip


def test_dry_run_writes_nothing(tree: Path, tmp_path: Path, capsys: Capture) -> None:
    write(tree / "golden_values_dev_dgx_h100.json", golden(1))
    store = tmp_path / "goldens"
    assert main(["goldens", "import", str(tree), "--goldens", str(store), "--dry-run"]) == 0
    assert "would import" in capsys.readouterr().out
    assert not store.exists()


# -- all or none -------------------------------------------------------------------------------


def planned(path: Path, values: Mapping[int, float]) -> Planned:
    return Planned(path, {"lm loss": series("lm loss", values)}, {"how": "approved"}, path)


def test_one_series_that_no_golden_may_hold_stops_all(tmp_path: Path) -> None:
    store = tmp_path / "goldens"
    good, bad = store / "a" / "golden_values_dev.json", store / "b" / "golden_values_dev.json"
    with pytest.raises(GoldenError, match=r"goldens/b/golden_values_dev.json: `lm loss` is nan at step 1"):
        put(store, [planned(good, {1: 1.0}), planned(bad, {1: float("nan")})])
    assert not store.exists()


def test_disk_that_fails_half_way_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    store = tmp_path / "goldens"
    old, new, blocked = (store / name / "golden_values_dev.json" for name in ("a", "b", "c"))
    put(store, [planned(old, {1: 1.0})])
    before = old.read_bytes(), goldens.side_file(old).read_bytes()
    blocked.mkdir(parents=True)  # a folder in a golden's place cannot be replaced
    with pytest.raises(GoldenError, match="nothing was changed"):
        put(store, [planned(old, {1: 2.0}), planned(new, {1: 2.0}), planned(blocked, {1: 2.0})])
    assert (old.read_bytes(), goldens.side_file(old).read_bytes()) == before
    assert not new.exists()
    assert sorted(path.name for path in store.iterdir()) == ["a", "c"]


def test_changes_are_said_against_the_old_golden(tmp_path: Path) -> None:
    path = tmp_path / "a" / "golden_values_dev.json"
    assert planned(path, {1: 1.0}).changes() == "new"
    put(tmp_path, [planned(path, {1: 1.0, 2: 2.0})])
    changes = planned(path, {1: 1.0, 2: 2.5}).changes()
    assert not isinstance(changes, str)
    assert [change.first for change in changes] == [(2, 2.0, 2.5)]
    path.write_text("{")
    assert str(planned(path, {1: 1.0}).changes()).startswith("the old one was broken")
    put(tmp_path, [planned(path, {1: 1.0})])
    assert goldens.read(path).provenance == {"how": "approved"}
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_an_own_golden_of_either_trainer_of_a_cpu_comes_before_the_tracks(
    tmp_path: Path, capsys: Capture
) -> None:
    loss = {"lm loss": series("lm loss", {1: 1.0, 2: 2.0})}
    for name in ("golden_values_dev.json", "golden_values_dev_cpu-megatron.json"):
        goldens.write(tmp_path / "a_case" / name, loss, goldens.provenance_of({}, {}))
    found = goldens.resolve(tmp_path, "a_case", "dev", "cpu", "cpu-megatron")
    assert found is not None
    assert (found.path.name, found.fallback) == ("golden_values_dev_cpu-megatron.json", False)
    assert main(["goldens", "show", "cpu/dev/a_case", "--goldens", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "golden_values_dev_cpu-megatron.json" in said
    assert "fallback" not in said
    native = goldens.resolve(tmp_path, "a_case", "dev", "cpu")
    assert native is not None
    assert native.fallback
