"""The scripts of the experiments are sound, and every fault is what its row says, without the harness."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from harness.metrics import read_metrics
from tests.experiments import __main__ as experiments
from tests.experiments.bank import BY_NAME, FAULTS, GRU, SCRIPTS, Edits, Fault, PlaceError, Script, edited
from tests.experiments.matrix import from_json, markdown, summary, to_json
from tests.experiments.running import Outcome, judge, try_fault

WORDS = Path(__file__).parents[2] / "docs" / "reference" / "words.md"


def test_there_are_twenty_five_faults_and_each_has_its_place() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) == 25
    assert Counter(fault.script.name for fault in FAULTS) == {"gru_lm": 13, "ddp_vit": 12}
    assert {file.stem for file in SCRIPTS.glob("*.py")} == set(BY_NAME)
    for fault in FAULTS:
        text = (SCRIPTS / f"{fault.script.name}.py").read_text()
        faulty = edited(text, fault.edits)
        assert faulty != text
        compile(faulty, fault.name, "exec")


def test_an_edit_without_its_place_is_refused() -> None:
    with pytest.raises(PlaceError, match="found 2 times: 'a'"):
        edited("a a", (("a", "b"),))
    with pytest.raises(PlaceError, match="found 0 times"):
        edited("a a", (("c", "b"),))


def test_a_right_candidate_is_no_wrong_name_and_no_right_one(tmp_path: Path) -> None:
    def outcome(name: str, component: str, *candidates: str, seen: str = "loss, 13") -> Outcome:
        return Outcome(name, "failed" if seen else "passed", "", seen, "", component, candidates)

    outcomes = [
        outcome("hidden-state-lost", "buffers"),
        outcome("head-untied", "optimizer"),
        outcome("numpy-stream-lost", "unknown", "weights", "rng"),
        outcome("second-group-lost", "unknown", "weights"),
        outcome("trained-anew", "", seen=""),
    ]
    assert [one.named for one in outcomes] == ["named", "wrong", "candidate", "unknown", "passed"]
    assert summary(outcomes) == (
        "4 of 5 caught, 1 of 5 named rightly; 1 unknown with the right one among its candidates, 1 unknown "
        "without it, 1 named wrongly"
    )
    table = markdown(outcomes)
    assert "| buffers | buffers |" in table
    assert "| **optimizer** |" in table
    assert "| unknown: weights, *rng* |" in table
    assert "**nothing: passed**" in table
    (tmp_path / "matrix.json").write_text(to_json(outcomes))
    assert sorted(from_json(tmp_path / "matrix.json"), key=str) == sorted(outcomes, key=str)
    assert from_json(tmp_path / "none.json") == []


def test_a_name_that_nothing_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert experiments.main(["gru_lm", "no-such"]) == 3
    said = "no-such: no script and no fault has this name; known are gru_lm, ddp_vit, "
    assert said in capsys.readouterr().err


def train(script: Script, folder: Path, edits: Edits = (), *, stop: int, resume: Path | None = None) -> None:
    """One launch, without the harness."""
    saved, out = folder / "saved", folder / "out"
    for made in (saved, out):
        made.mkdir(parents=True, exist_ok=True)
    file = folder / "train.py"
    file.write_text(edited((SCRIPTS / f"{script.name}.py").read_text(), edits))
    known = {"${TRAIN_ITERS}": script.n, "${SAVE_INTERVAL}": script.every, "${CHECKPOINT_SAVE_PATH}": saved}
    words = [str(known.get(word, word)).replace("${OUTPUT_PATH}", str(out)) for word in script.words]
    words += [script.stop, str(stop), *((script.resume, str(resume)) if resume else ())]
    start = ["-m", "torch.distributed.run", *script.start[1:]] if script.world_size > 1 else []
    command = [sys.executable, *start, str(file), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.torch
@pytest.mark.parametrize("script", BY_NAME.values(), ids=BY_NAME)
def test_a_sound_script_goes_on_bit_for_bit(script: Script, tmp_path: Path) -> None:
    train(script, tmp_path / "whole", stop=script.n)
    train(script, tmp_path / "parts", stop=script.n // 2)
    first = (tmp_path / "parts" / "out" / "metrics.jsonl").read_text()
    train(script, tmp_path / "parts", stop=script.n, resume=tmp_path / "parts" / "saved")
    whole, parts = (tmp_path / name / "out" / "metrics.jsonl" for name in ("whole", "parts"))
    assert whole.read_text() == parts.read_text()
    assert parts.read_text().startswith(first)
    assert len(first.splitlines()) == script.n // 2
    from harness.checkpoints import diff

    ends = [next((tmp_path / name / "saved").glob(f"*_{script.n}*")) for name in ("whole", "parts")]
    found = diff(*ends)
    assert found.compared > 30
    assert not found.entries
    losses = read_metrics(whole.parent, whole.parent)["loss"]
    assert len(losses.steps) == script.n


@pytest.mark.torch
def test_a_fault_is_judged_beside_the_golden_of_the_sound_script(tmp_path: Path) -> None:
    recorded = judge(tmp_path, GRU, "recorded", record=True)
    assert [check.name for check in recorded.failures] == ["golden: recorded"]
    [fault] = [fault for fault in FAULTS if fault.name == "schedule-built-after-load"]
    found = try_fault(tmp_path, fault.name)
    assert found.continuous == "lr, 13"
    assert (found.golden, found.component, found.named) == ("", "lr-schedule", "named")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_component_is_one_of_the_words(fault: Fault) -> None:
    assert f"| `{fault.component}` |" in WORDS.read_text()
    assert fault.reference.count("#") == 1
