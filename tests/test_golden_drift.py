"""``harness goldens drift``: one commit in two environments, and one approval for all."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness import goldens
from harness.checks import Against, Check
from harness.commands.cli import main
from harness.matrix import TRACKS
from tests.made_results import make_cell, values, write_events

N = 20
STEPS = np.arange(1, N + 1, dtype=np.float64)
METRICS = ("lm loss", "params-norm", "batch-size", "mem-allocated-bytes")
#: Two operations that the environments round otherwise, and one that they do not.
OLD = {"libm": "1", "layer norm, fp32": "2", "softmax": "3"}
NEW = {"libm": "1", "layer norm, fp32": "22", "softmax": "33"}
Line = NDArray[np.float64]
Change = Callable[[Line], Line | None]


def rounding(line: Line) -> Line:
    """From the tenth step on, some units in the last place of float32."""
    return line * (1 + 5e-7 * (STEPS >= 10))


class Place:
    """Two trees of results, the store and the cases."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.goldens = folder, folder / "goldens"
        self.old, self.new = folder / "old" / "results", folder / "new" / "results"

    def run(self, tree: Path, case: str = "a", track: str = "dev", **changes: Change) -> Path:
        """A cell that was run to its end there; its metrics changed (or dropped) as is said."""
        made = make_cell(tree.parent, case, track=track, golden=None, n=N, metrics=METRICS).folder
        if changes:
            lines = {metric: values(metric, STEPS) for metric in METRICS}
            for name, change in changes.items():
                metric = next(metric for metric in METRICS if re.sub("[- ]", "_", metric) == name)
                line = change(lines.pop(metric))
                lines |= {} if line is None else {metric: line}
            shutil.rmtree(made / "continuous" / "tensorboard")
            write_events(made / "continuous" / "tensorboard", 1, lines)
        new = tree == self.new
        environment = {"torch": "2.13.0" if new else "2.8.0", "numerics": NEW if new else OLD}
        self.edit(made, lambda v: v["provenance"]["fingerprint"].update(environment))
        return made

    def pair(self, case: str = "a", **changes: Change) -> tuple[Path, Path]:
        return self.run(self.old, case), self.run(self.new, case, "dev", **changes)

    @staticmethod
    def edit(cell: Path, change: Callable[[dict[str, Any]], object]) -> None:
        path = cell / "verdict.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    def drift(self, *more: str, old: object = None, new: object = None) -> int:
        folders = ["--goldens", str(self.goldens), "--cases", str(self.folder / "test_cases")]
        ends = ["--from", str(old or self.old), "--to", str(new or self.new)]
        return main(["goldens", "drift", *ends, *folders, *more])

    def golden(self, case: str = "a", track: str = "dev") -> Path:
        return self.goldens / case / f"golden_values_{track}_cpu.json"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


Said = pytest.CaptureFixture[str]


def rows(out: str, cell: str = "cpu/dev/a") -> list[str]:
    return [line for line in out.splitlines() if line.startswith(cell)]


# -- what is found -----------------------------------------------------------------------------


def test_equal_cells_are_one_line_and_pass_though_operations_differ(place: Place, capsys: Said) -> None:
    place.pair("a")
    place.pair("b")
    assert place.drift() == 0
    out = capsys.readouterr().out
    assert out.endswith("2 cells: 2 equal bit for bit, 0 drifted\n")
    assert "environment: torch 2.8.0 → 2.13.0\n" in out
    assert "operations with other bits: layer norm, fp32; softmax\n" in out
    assert not rows(out)
    assert "look at" not in out


def test_drift_is_a_row_with_its_first_step_size_and_the_first_operation(place: Place, capsys: Said) -> None:
    place.pair("a", lm_loss=rounding)
    place.pair("b")
    assert place.drift() == 1
    out = capsys.readouterr().out
    (row,) = rows(out)
    said = [part.strip() for part in row.split("  ") if part.strip()]
    assert said[:4] == ["cpu/dev/a", "lm loss", "11 of 20", "10"]
    size, at = said[4].split(" at ")
    assert 4e-7 < float(size) < 7e-7
    assert 10 <= int(at) <= 20
    assert said[5:] == ["11/0", "layer norm, fp32 and 1 more", "rounding"]
    assert out.endswith("2 cells: 1 equal bit for bit, 1 drifted, within rounding\n")


def test_drift_that_no_rounding_makes_is_said_and_has_to_be_looked_at(place: Place, capsys: Said) -> None:
    place.pair("a", lm_loss=lambda line: line + 0.2 * (STEPS > 15), params_norm=rounding)
    assert place.drift() == 1
    out = capsys.readouterr().out
    assert ["MORE THAN ROUNDING" in row for row in rows(out)] == [True, False]
    assert "look at cpu/dev/a: more than rounding: lm loss: 5 of 20 steps are off by more than" in out
    assert out.endswith("1 drifted, 1 by more than rounding (cpu/dev/a)\n")


def test_a_count_that_no_environment_changes_is_no_rounding(place: Place, capsys: Said) -> None:
    place.pair("a", lm_loss=rounding, batch_size=lambda line: line * 2)
    assert place.drift() == 1
    out = capsys.readouterr().out
    assert "look at cpu/dev/a: more than rounding: batch-size: 20 of 20 steps differ" in out


def same_numerics(verdict: dict[str, Any]) -> None:
    verdict["provenance"]["fingerprint"]["numerics"] = OLD


def same_names(verdict: dict[str, Any]) -> None:
    verdict["provenance"]["fingerprint"].pop("numerics")
    verdict["provenance"]["fingerprint"]["torch"] = "2.8.0"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (same_numerics, "all 3 measured operations give the same bits in both environments"),
        (same_names, "no operation was measured, both environments have the same names"),
    ],
)
def test_other_bits_that_no_operation_explains_are_a_finding(
    place: Place, capsys: Said, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    _, new = place.pair("a", lm_loss=rounding)
    place.edit(new, change)
    assert place.drift() == 1
    out = capsys.readouterr().out
    assert f"look at cpu/dev/a: unexplained: {said}" in out
    assert "NONE: unexplained" in rows(out)[0]
    assert out.endswith("1 unexplained (cpu/dev/a)\n")
    assert place.drift("--approve") == 1
    assert not place.goldens.exists()


def test_a_case_that_is_not_deterministic_is_never_unexplained(place: Place, capsys: Said) -> None:
    cells = place.pair("a", lm_loss=rounding)
    for cell in cells:
        place.edit(cell, lambda v: v["provenance"]["fingerprint"].update(numerics=OLD, deterministic=False))
    assert place.drift() == 1
    out = capsys.readouterr().out
    assert "unexplained" not in out
    assert "not deterministic" in rows(out)[0]


def test_operations_that_were_not_measured_are_not_named(place: Place, capsys: Said) -> None:
    _, new = place.pair("a", lm_loss=rounding)
    place.edit(new, lambda v: v["provenance"]["fingerprint"].pop("numerics"))
    assert place.drift() == 1
    out = capsys.readouterr().out
    assert "not measured" in rows(out)[0]
    assert "look at" not in out  # another torch is explanation enough where nothing more is known


def test_a_state_that_differs_below_equal_curves_is_drift(place: Place, capsys: Said) -> None:
    for cell, digest in zip(place.pair("a"), "01", strict=True):
        place.edit(cell, provenance(state={"weights": digest, "rng": "0"}))
    assert place.drift() == 1
    out = capsys.readouterr().out
    (row,) = rows(out)
    assert "at the end: weights " in row
    assert out.endswith("1 cell: 0 equal bit for bit, 1 drifted, 1 by its state alone\n")


def test_a_metric_that_one_environment_does_not_log_is_drift(place: Place, capsys: Said) -> None:
    place.pair("a", params_norm=lambda _: None)
    assert place.drift() == 1
    out = capsys.readouterr().out
    assert "more than rounding: params-norm: only the old environment's run logged it" in out
    assert "20 of 20" in rows(out)[0]


def test_costs_are_said_and_are_no_drift(place: Place, capsys: Said) -> None:
    place.pair("a", mem_allocated_bytes=lambda line: line * 1.5)
    assert place.drift() == 0
    said = "cost, no drift: mem-allocated-bytes ×1.5 (in cpu/dev/a); 1 of 1 cells"
    assert said in capsys.readouterr().out
    assert place.drift(old=place.new, new=place.old) == 0
    assert "mem-allocated-bytes ×0.667" in capsys.readouterr().out


def test_only_what_the_case_compares_can_drift(place: Place, capsys: Said) -> None:
    case = place.folder / "test_cases" / "own" / "a"
    case.mkdir(parents=True)
    text = "METRICS: [params-norm]\nMODEL_ARGS: {--train-iters: 20, --save-interval: 10}\n"
    (case / "model_config.yaml").write_text(text + "HARNESS: {trainer: native}\n")
    place.pair("a", lm_loss=rounding)
    assert place.drift() == 0
    assert "1 equal bit for bit" in capsys.readouterr().out


# -- what an environment is --------------------------------------------------------------------


def test_tracks_are_compared_case_by_case(place: Place, capsys: Said) -> None:
    place.run(place.new, track="lts")
    dev = place.run(place.new, track="dev", lm_loss=rounding)
    same_torch = {"torch": "2.8.0", "numerics": OLD}
    place.edit(place.new / "cpu/lts/a", lambda v: v["provenance"]["fingerprint"].update(same_torch))
    assert place.drift("--results", str(place.new), old="lts", new="dev") == 1
    out = capsys.readouterr().out
    assert out.startswith(f"from: track lts of {place.new}\nto:   track dev of {place.new}\n")
    assert "layer norm, fp32 and 1 more" in rows(out)[0]
    # the same by folders, and by one cell's
    assert place.drift(old=place.new / "cpu" / "lts", new=dev) == 1
    assert len(rows(capsys.readouterr().out)) == 1
    assert place.drift("--results", str(place.new), "--approve", old="lts", new="dev") == 0
    assert place.golden(track="dev").exists()
    assert not place.golden(track="lts").exists()


@pytest.mark.parametrize(
    ("old", "new", "status", "said"),
    [
        ("no-such", "dev", 2, f"no-such: expected a folder of results, or a track: {' or '.join(TRACKS)}"),
        ("dev", "dev", 2, "is compared with itself"),
        ("empty", "dev", 3, "empty: holds no verdict.json"),
        ("stored", "dev", 3, "goldens are older runs"),
        ("lts", "dev", 3, "track lts of"),
    ],
)
def test_what_is_no_environment_is_said_in_one_line(
    place: Place, capsys: Said, monkeypatch: pytest.MonkeyPatch, old: str, new: str, status: int, said: str
) -> None:
    place.run(place.new)
    monkeypatch.chdir(place.folder)
    Path("empty").mkdir()
    Path("stored", "a").mkdir(parents=True)
    Path("stored", "a", "golden_values_dev_cpu.json").write_text("{}")
    assert place.drift("--results", str(place.new), old=old, new=new) == status
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


# -- what is refused ---------------------------------------------------------------------------


def fail(against: Against, name: str = "x") -> Callable[[dict[str, Any]], None]:
    def change(verdict: dict[str, Any]) -> None:
        check = Check(f"{against}: {name}", None, against, "present", passed=False)
        verdict["checks"].append(dataclasses.asdict(check))

    return change


def provenance(**what: Any) -> Callable[[dict[str, Any]], None]:
    return lambda verdict: verdict["provenance"].update(what)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (provenance(commit="1" * 40), f"is not of one commit: {'0' * 12} in the old environment, {'1' * 12}"),
        (provenance(commit=""), "an unknown one in the new one"),
        (lambda v: v["provenance"]["fingerprint"].update(precision="bf16"),
         "another training (recorded: the old environment's, run: the new): precision: recorded with fp32"),
        (lambda v: v["provenance"]["fingerprint"].pop("layout"), "layout: recorded with"),
        (lambda v: v["provenance"]["fingerprint"].update(dataset="other"),
         "another training (recorded: the new environment's, run: the old): dataset: recorded with other"),
        (lambda v: v.update(status="error"), "in the new environment: its status is error"),
        (fail("state"), "in the new environment: resuming lost something: state: x failed"),
        (fail("continuous"), "in the new environment: resuming lost something: continuous: x failed"),
        (lambda v: v["provenance"].pop("fingerprint"), "its verdict does not say what it ran on"),
    ],
)  # fmt: skip
def test_a_pair_that_says_nothing_of_the_environments_is_refused_and_red(
    place: Place, capsys: Said, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    place.pair("b")
    _, new = place.pair("a")
    place.edit(new, change)
    assert place.drift() == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("not compared: cpu/dev/a: ")]
    assert said in line
    assert out.endswith("2 cells: 1 equal bit for bit, 0 drifted, 1 not compared\n")
    assert place.drift("--approve") == 1
    assert not place.goldens.exists()
    assert place.drift("--without", "cpu/dev/a") == 0


@pytest.mark.parametrize("commit", ["", "0" * 40 + "+"])
def test_runs_of_which_nobody_knows_the_code_are_refused_until_somebody_vouches(
    place: Place, capsys: Said, commit: str
) -> None:
    for cell in place.pair("a"):
        place.edit(cell, provenance(commit=commit))
    assert place.drift() == 1
    assert "may be o" in capsys.readouterr().out
    assert place.drift("--across-commits") == 0


def test_a_run_without_an_uninterrupted_phase_is_refused(place: Place, capsys: Said) -> None:
    old, _ = place.pair("a")
    shutil.rmtree(old / "continuous")
    assert place.drift() == 1
    assert "in the old environment: there is no uninterrupted run in it" in capsys.readouterr().out


def test_cells_that_one_environment_lacks_are_listed_and_red(place: Place, capsys: Said) -> None:
    place.pair("a")
    place.run(place.old, "b")
    place.run(place.new, "c")
    assert place.drift() == 1
    out = capsys.readouterr().out
    assert f"not compared: cpu/dev/b: was not run in {place.new}\n" in out
    assert f"not compared: cpu/dev/c: was not run in {place.old}\n" in out
    assert place.drift("--without", "cpu/dev/b", "--without", "cpu/*/c") == 0
    assert place.drift("--without", "*") == 3


@pytest.mark.parametrize("text", ["", "[]", "{", '{"cell": 1}', "[" * 100_000])
def test_a_broken_verdict_is_one_refused_cell_and_the_others_are_compared(
    place: Place, capsys: Said, text: str
) -> None:
    place.pair("b")
    _, new = place.pair("a")
    (new / "verdict.json").write_text(text)
    assert place.drift() == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("not compared: ")]
    assert line.startswith(f"not compared: cpu/dev/a: {new / 'verdict.json'}: ")
    assert out.endswith("2 cells: 1 equal bit for bit, 0 drifted, 1 not compared\n")


def test_curves_that_cannot_be_read_are_one_refused_cell(place: Place, capsys: Said) -> None:
    _, new = place.pair("a")
    shutil.rmtree(new / "continuous" / "tensorboard")
    (new / "continuous" / "metrics.jsonl").write_text("{\n")
    assert place.drift() == 1
    assert "not compared: cpu/dev/a: " in capsys.readouterr().out


# -- one approval for all ----------------------------------------------------------------------


def test_one_approval_takes_all_equal_cells_too(place: Place, capsys: Said) -> None:
    place.pair("a", lm_loss=rounding)
    place.pair("b")
    assert place.drift("--approve", "--dry-run") == 0
    assert "would approve: " in capsys.readouterr().out
    assert not place.goldens.exists()
    assert place.drift("--approve") == 0
    assert capsys.readouterr().out.endswith("2 goldens approved\n")
    for case in ("a", "b"):
        golden = goldens.read(place.golden(case))
        assert (golden.provenance["how"], golden.fingerprint["numerics"]) == ("approved", NEW)
    assert place.drift("--approve") == 0
    assert (
        f"approved: {place.golden()} from {place.new / 'cpu/dev/a'}: no value changes"
        in capsys.readouterr().out
    )


def test_more_than_rounding_is_approved_by_its_name_only_and_till_then_nothing_is(
    place: Place, capsys: Said
) -> None:
    place.pair("a", lm_loss=lambda line: line + 0.2)
    place.pair("b", lm_loss=rounding)
    assert place.drift("--approve") == 1
    out = capsys.readouterr().out
    assert "not approved: cpu/dev/a: more than rounding: lm loss: " in out
    assert "nothing was written" in out
    assert place.drift("--approve", "--accept", "cpu/dev/b") == 1
    assert place.drift("--approve", "--accept", "cpu/dev/nothing") == 2
    assert not place.goldens.exists()
    assert place.drift("--approve", "--accept", "cpu/dev/a") == 0
    assert place.golden("a").exists()
    assert place.golden("b").exists()


def test_an_old_run_that_is_not_its_golden_is_not_the_environment_alone(place: Place, capsys: Said) -> None:
    old, _ = place.pair("a", lm_loss=rounding)
    place.edit(old, fail("golden", "lm loss"))
    assert place.drift("--approve") == 1
    assert (
        "not approved: cpu/dev/a: not the environment alone: in the old one it is not its golden either:"
        " golden: lm loss failed" in capsys.readouterr().out
    )
    assert place.drift("--approve", "--accept", "cpu/dev/*") == 0


def test_a_broken_golden_is_replaced_and_said(place: Place, capsys: Said) -> None:
    place.pair("a")
    place.golden().parent.mkdir(parents=True)
    place.golden().write_text("{")
    assert place.drift("--approve") == 0
    assert "the old one was broken" in capsys.readouterr().out
    assert goldens.read(place.golden()).series


def test_json_has_all_of_it(place: Place, capsys: Said) -> None:
    place.pair("a", lm_loss=rounding)
    place.run(place.old, "b")
    assert place.drift("--json", "--approve") == 1
    found = json.loads(capsys.readouterr().out)
    (cell,) = found["cells"]
    (metric,) = cell["changed"]
    assert (cell["cell"], cell["operations"]) == ("cpu/dev/a", ["layer norm, fp32", "softmax"])
    assert (metric["metric"], metric["differing"], metric["first"][0]) == ("lm loss", 11, 10)
    assert (metric["within_rounding"], cell["unexplained"], cell["concerns"]) == (True, False, [])
    assert cell["environment"] == ["torch 2.8.0 → 2.13.0"]
    assert (found["commit"], found["same"], found["written"]) == ("0" * 40, False, False)
    assert [each["cell"] for each in found["refused"]] == ["cpu/dev/b"]
    assert [each["cell"] for each in found["not_approved"]] == ["cpu/dev/b"]
    assert [each["golden"] for each in found["approved"]] == [str(place.golden())]
