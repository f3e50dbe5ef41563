"""``harness goldens approve``: what a finished run says becomes what later runs are compared with."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import goldens
from harness.checks import Against, Check
from harness.commands.cli import main
from harness.goldens.approving import golden_of
from harness.matrix import Cell

#: Anybody's trainer, without torch: a seeded walk that is saved and resumed.
SCRIPT = """
import json, os, pathlib, random, sys

out, stop, save, load = (*sys.argv[1:], "")[:4]
state, step = random.Random(1).getstate(), 0
if load:
    (text,) = [p.read_text() for p in pathlib.Path(load).glob("iter_*/state.json")]
    state, step = json.loads(text)["rng"], json.loads(text)["step"]
    state = (state[0], tuple(state[1]), state[2])
rng = random.Random()
rng.setstate(state)
pathlib.Path(out).mkdir(parents=True, exist_ok=True)
with open(os.path.join(out, "metrics.jsonl"), "a") as log:
    while step < int(stop):
        step += 1
        shift = float(os.environ.get("SHIFT", "0")) * (step > 3)
        values = {"step": step, "lm loss": 9 - step / 10 + rng.random() + shift, "other": step}
        log.write(json.dumps(values) + "\\n")
        if step in (4, 8):
            folder = pathlib.Path(save, f"iter_{step:07d}")
            folder.mkdir(parents=True)
            saved = {"rng": rng.getstate(), "step": step, "w": [step * 0.5]}
            (folder / "state.json").write_text(json.dumps(saved))
            pathlib.Path(save, "latest_checkpointed_iteration.txt").write_text(str(step))
"""
CASE = """
METRICS: [lm loss]
MODEL_ARGS: {--train-iters: 8, --save-interval: 4}
HARNESS:
  trainer: command
  world_size: 1
  command:
    train: [python, train.py, "${OUTPUT_PATH}", "${EXIT_ITERS}", "${CHECKPOINT_SAVE_PATH}"]
    resume:
      [python, train.py, "${OUTPUT_PATH}", "${EXIT_ITERS}", "${CHECKPOINT_SAVE_PATH}",
       "${CHECKPOINT_LOAD_PATH}"]
"""
CELL = Path("cpu", "dev", "walk")
FILE = Path("walk", "golden_values_dev_cpu.json")


class Place:
    """Cases, goldens and results in a folder of their own, and the command line on them."""

    def __init__(self, folder: Path) -> None:
        self.cases, self.goldens, self.results = (folder / n for n in ("test_cases", "goldens", "results"))

    def run(self) -> int:
        folders = ["--cases", self.cases, "--goldens", self.goldens, "--results", self.results]
        return main(["run", "walk", "--hardware", "cpu", "--protocol", "full", *map(str, folders)])

    def approve(self, *more: str, results: Path | None = None) -> int:
        folders = ["--goldens", str(self.goldens), "--cases", str(self.cases)]
        return main(["goldens", "approve", str(results or self.results), *folders, *more])

    @property
    def golden(self) -> Path:
        return self.goldens / FILE

    def edit(self, change: Callable[[dict[str, Any]], None], cell: Path = CELL) -> None:
        path = self.results / cell / "verdict.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cell that was run, resumed soundly, and has no golden yet."""
    folder = tmp_path_factory.mktemp("approve")
    case = folder / "test_cases" / "own" / "walk"
    case.mkdir(parents=True)
    (case / "train.py").write_text(SCRIPT)
    (case / "model_config.yaml").write_text(CASE)
    assert Place(folder).run() == 1
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Place:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return Place(tmp_path)


def test_approved_run_is_the_golden_that_the_next_run_passes_with(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.approve() == 0
    assert f"approved: {place.golden} from {place.results / CELL}: new" in capsys.readouterr().out
    golden = goldens.read(place.golden)
    assert set(golden.series) == {"lm loss"}  # the case compares no other
    assert golden.provenance["how"] == "approved"
    verdict = json.loads((place.results / CELL / "verdict.json").read_text())
    assert dict(golden.fingerprint) == verdict["provenance"]["fingerprint"]
    assert dict(golden.state) == verdict["provenance"]["state"]
    assert golden.state
    assert place.run() == 0
    verdict = json.loads((place.results / CELL / "verdict.json").read_text())
    assert verdict["provenance"]["compared"] == "exact"


def test_change_is_shown_before_and_when_it_is_approved(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place.approve() == 0
    monkeypatch.setenv("SHIFT", "0.5")
    assert place.run() == 1
    before = place.golden.read_bytes()
    capsys.readouterr()
    assert main(["goldens", "diff", str(place.golden), str(place.results / CELL)]) == 1
    assert "lm loss: 5 of 8 steps differ, first 4" in capsys.readouterr().out
    assert place.approve("--dry-run") == 0
    assert place.golden.read_bytes() == before
    assert place.approve() == 0
    assert "lm loss: 5 of 8 steps differ, first 4" in capsys.readouterr().out
    assert place.run() == 0


def fail(against: Against) -> Callable[[dict[str, Any]], None]:
    def change(verdict: dict[str, Any]) -> None:
        check = Check(f"{against}: x", None, against, "present", passed=False)
        verdict["checks"].append(dataclasses.asdict(check))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (fail("state"), "resuming lost something: state: x failed"),
        (fail("continuous"), "resuming lost something: continuous: x failed"),
        (lambda v: v.update(status="error"), "its status is error"),
        (lambda v: v["provenance"].pop("fingerprint"), "its verdict does not say what it ran on"),
    ],
)
def test_unsound_run_is_refused_with_the_reason_and_nothing_written(
    place: Place, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, Any]], None], said: str
) -> None:
    place.edit(change)
    assert place.approve() == 1
    out = capsys.readouterr().out
    assert f"refused: cpu/dev/walk: {said}" in out
    assert "nothing was written" in out
    assert not place.goldens.exists()


def test_one_unsound_run_of_a_tree_stops_the_others(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path("cpu", "lts", "walk")
    shutil.copytree(place.results / CELL, place.results / other)
    place.edit(lambda v: v.update(cell="cpu/lts/walk"), other)
    place.edit(fail("state"), other)
    assert place.approve("--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["written"], len(found["approved"]), len(found["refused"])) == (False, 1, 1)
    assert not place.goldens.exists()
    assert place.approve(results=place.results / CELL) == 0
    assert place.golden.exists()


def test_run_that_lost_a_value_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    log = place.results / CELL / "continuous" / "metrics.jsonl"
    log.write_text(log.read_text().replace('"lm loss"', '"ml loss"'))
    assert place.approve() == 1
    assert "logged none of lm loss" in capsys.readouterr().out


def test_results_without_an_uninterrupted_run_are_refused(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(place.results / CELL / "continuous")
    assert place.approve() == 1
    assert "run the cell with --protocol full" in capsys.readouterr().out


def test_two_runs_of_one_cell_are_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(place.results / CELL, place.results / "copy")
    assert place.approve() == 2
    assert "holds two runs for" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"cell": 1}', "[" * 100_000,
     '{"cell": "cpu/dev/../../etc", "status": "passed", "checks": [], "provenance": {}}',
     '{"cell": "cpu/dev/a/../b", "status": "passed", "checks": [], "provenance": {}}',
     '{"cell": "cpu/dev/..", "status": "passed", "checks": [], "provenance": {}}',
     '{"cell": "cpu/dev/walk", "status": "passed", "checks": [1], "provenance": {}}'],
)  # fmt: skip
def test_verdict_that_is_none_is_refused_in_one_line(
    place: Place, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (place.results / CELL / "verdict.json").write_text(text)
    assert place.approve() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "verdict.json" in error
    assert not place.goldens.exists()


def test_results_that_are_not_there_are_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["goldens", "approve", str(tmp_path / "nowhere")]) == 2
    assert main(["goldens", "approve", str(tmp_path)]) == 3
    assert "holds no verdict.json" in capsys.readouterr().err


@pytest.mark.parametrize(("platform", "costs"), [("cpu", True), ("cpu-megatron", False)])
def test_of_a_run_behind_a_stand_in_no_cost_is_approved(tmp_path: Path, platform: str, costs: bool) -> None:
    """Later runs there have none: one that was approved would be missed in each of them."""
    logged = tmp_path / "continuous" / "metrics.jsonl"
    logged.parent.mkdir()
    row = {"lm loss": 1.5, "iteration-time": 0.1, "mem-allocated-bytes": 7}
    logged.write_text("".join(json.dumps({"step": step, **row}) + "\n" for step in (1, 2)))
    provenance = {"fingerprint": {"platform": platform}}
    found = golden_of(tmp_path, Cell("cpu", "dev", "walk"), provenance, tmp_path / "goldens", {})
    assert set(found.series) == (set(row) if costs else {"lm loss"})
    assert found.path.name == f"golden_values_dev_{platform}.json"
