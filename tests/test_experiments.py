"""A script that forgets, resumed from altered checkpoints: real processes, real files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.cases import load_case
from harness.matrix import Cell
from harness.protocol.plan import Options
from harness.protocol.run import run_cell
from harness.verdict import Verdict

SCRIPT = Path(__file__).parent / "stand_ins" / "forgetful_script.py"
TRAINS_FROM = "resume: it trains from the checkpoint"
COMMAND = [
    "python", SCRIPT.name, "--iters", "${TRAIN_ITERS}", "--stop", "${EXIT_ITERS}", "--every", "10",
    "--save", "${CHECKPOINT_SAVE_PATH}", "--metrics", "${OUTPUT_PATH}/metrics.jsonl",
]  # fmt: skip


def write(folder: Path, *words: str) -> None:
    """The case, forgetting what the words say."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(SCRIPT, folder)
    train = [*COMMAND, *words]
    command = {"train": train, "resume": [*train, "--load", "${CHECKPOINT_LOAD_PATH}"]}
    config = {
        "MODEL_ARGS": {"--train-iters": 40, "--save-interval": 10},
        "HARNESS": {"trainer": "command", "command": command},
    }
    (folder / "model_config.yaml").write_text(json.dumps(config))


def run(path: Path, *words: str, protocol: str = "full", **options: Any) -> Verdict:
    folder = path / "cases" / "forgetful"
    write(folder, *words)
    return run_cell(
        Cell("cpu", "dev", "forgetful"),
        case=load_case(folder),
        cases=path / "cases",
        goldens=path / "goldens",
        results=path / "results",
        options=Options(protocol=protocol, **options),
    )


def failed(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if not check.passed and check.against != "golden"]


def evidence(verdict: Verdict) -> str:
    assert verdict.diagnosis is not None
    return "\n".join(verdict.diagnosis.evidence)


@pytest.mark.parametrize("protocol", ["auto", "full"])
def test_a_run_that_trains_anew_and_logs_from_k_on_is_red(tmp_path: Path, protocol: str) -> None:
    assert not failed(run(tmp_path, golden_update=True))
    sound = run(tmp_path, protocol=protocol)
    assert sound.passed
    said = next(check for check in sound.checks if check.name == TRAINS_FROM)
    assert "`loss` of iteration 21 is another" in said.message
    verdict = run(tmp_path, "--forgets", "everything", protocol=protocol)
    assert not verdict.passed
    assert failed(verdict) == [TRAINS_FROM]
    assert verdict.diagnosis is not None
    assert verdict.diagnosis.component == "checkpoint"
    assert "all at once" in evidence(verdict)


@pytest.mark.parametrize(
    ("forgets", "component"),
    [
        ("weights", "weights"),
        ("first-moment", "optimizer"),
        ("average", "buffers"),
        ("rng", "rng"),
        ("position", "data-order"),
        ("schedule", "lr-schedule"),
    ],
)
def test_what_is_forgotten_is_named(tmp_path: Path, forgets: str, component: str) -> None:
    verdict = run(tmp_path, "--forgets", forgets)
    assert failed(verdict)
    assert verdict.diagnosis is not None
    assert verdict.diagnosis.component == component, evidence(verdict)
    checkpoints = tmp_path / "results" / "cpu" / "dev" / "forgetful" / "checkpoints"
    assert not list(checkpoints.glob("*trial*")), "the copies are removed"


def test_nothing_is_tried_where_no_time_is_given_for_it(tmp_path: Path) -> None:
    verdict = run(tmp_path, "--forgets", "first-moment", trials=0.0)
    assert failed(verdict)
    assert "experiments: none, as --trials 0 says" in verdict.provenance["notes"]
    assert not list((tmp_path / "results" / "cpu" / "dev" / "forgetful").glob("trial-*"))
    assert "--protocol full --trials 0 " in verdict.reproduce


def test_what_is_forgotten_is_named_also_where_nothing_is_saved_a_step_later(tmp_path: Path) -> None:
    for forgets, component in (("rng", "rng"), ("first-moment", "optimizer")):
        verdict = run(tmp_path, "--forgets", forgets, "--no-last")
        assert verdict.diagnosis is not None
        assert verdict.diagnosis.component == component, evidence(verdict)


def test_the_sentence_names_the_entry_and_the_command_that_tries_it_again(tmp_path: Path) -> None:
    said = evidence(run(tmp_path, "--forgets", "rng"))
    assert "altered in the checkpoint of 20, and resumed to 21: nothing comes out otherwise" in said
    assert "harness sensitivity" in said
    assert "--entry rng" in said
