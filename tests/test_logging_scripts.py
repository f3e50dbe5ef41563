"""Whole runs of a script that logs as people do: green where it is sound, red where it is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.cases import Case, load_case
from harness.matrix import Cell
from harness.protocol.judge import NOT_LOGGED
from harness.protocol.plan import Options
from harness.protocol.run import run_cell

if TYPE_CHECKING:
    from harness.verdict import Verdict

STAND_INS = Path(__file__).parent / "stand_ins"
STOPS = ("--stop", "${EXIT_ITERS}")


@pytest.fixture(autouse=True)
def _cores_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))


def case(tmp_path: Path, logger: str, *more: str, n: int = 16, k: int = 8, **keys: Any) -> Case:
    words = ["python", "train.py", "--logger", logger, "--iters", "${TRAIN_ITERS}", "--save-every", str(k),
             "--save", "${CHECKPOINT_SAVE_PATH}", "--out", "${OUTPUT_PATH}", *more]  # fmt: skip
    folder = tmp_path / "cases" / "mine" / "logging"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(STAND_INS / "logging_script.py", folder / "train.py")
    command = {"train": words, "resume": [*words, "--load", "${CHECKPOINT_LOAD_PATH}"]}
    arguments = {"--train-iters": n, "--save-interval": k}
    ours = {"trainer": "command", "command": command}
    (folder / "model_config.yaml").write_text(json.dumps({"MODEL_ARGS": arguments, "HARNESS": ours, **keys}))
    return load_case(folder)


def run(
    tmp_path: Path, a_case: Case, *, protocol: str = "full", trials: float = 0, **options: Any
) -> Verdict:
    return run_cell(
        Cell("cpu", "dev", a_case.name), case=a_case, cases=tmp_path / "cases",
        goldens=tmp_path / "goldens", results=tmp_path / "results",
        options=Options(protocol=protocol, trials=trials, **options),
    )  # fmt: skip


def failing(verdict: Verdict) -> dict[str, str]:
    return {c.name: c.message for c in verdict.checks if not c.passed and c.against != "golden"}


def held_and_not(tmp_path: Path, logger: str, *more: str, **keys: Any) -> Verdict:
    """Recorded, held by both protocols; red where momentum is lost. Returns the verdict of the sound run."""
    a_case = case(tmp_path, logger, *more, **keys)
    recorded = run(tmp_path, a_case, golden_update=True)
    assert not failing(recorded)
    assert list((tmp_path / "goldens").rglob("golden_values_*.json")), [c.message for c in recorded.checks]
    sound = run(tmp_path, a_case)
    for verdict in (sound, run(tmp_path, a_case, protocol="fast")):
        assert verdict.passed, {c.name: c.message for c in verdict.checks if not c.passed}
    broken = run(tmp_path, case(tmp_path, logger, *more, "--forgets", "momentum", **keys))
    assert any(check.metric for check in broken.checks if not check.passed and check.against == "continuous")
    return sound


def compared(verdict: Verdict) -> set[str]:
    kinds = ("exact", "present")
    return {c.metric for c in verdict.checks if c.metric and c.against == "continuous" and c.kind in kinds}


def notes(verdict: Verdict) -> str:
    return "\n".join(verdict.provenance.get("notes", ()))


def test_lightnings_table_is_read_with_its_empty_cells(tmp_path: Path) -> None:
    verdict = held_and_not(tmp_path, "csv", *STOPS, "--validate-every", "4")
    assert compared(verdict) == {"epoch", "train_loss", "val_loss"}


def test_what_nobody_compares_is_passed_over_and_said(tmp_path: Path) -> None:
    verdict = held_and_not(tmp_path, "fields", *STOPS)
    assert compared(verdict) == {"rank", "train/loss", "timestamp", "tokens_per_sec"}
    said = notes(verdict)
    assert (
        "metrics.jsonl: not compared, no numbers: `training` (bool), `stage` (text), `val_loss` (null)"
        in said
    )
    assert "metrics.jsonl: not compared: a row has no step" in said


def test_metrics_are_filtered_before_anything_is_judged(tmp_path: Path) -> None:
    assert compared(held_and_not(tmp_path, "last-words", *STOPS, METRICS=["loss"])) == {"loss"}


def test_the_history_in_a_trainers_checkpoints_is_its_log(tmp_path: Path) -> None:
    verdict = held_and_not(tmp_path, "state", *STOPS)
    assert compared(verdict) == {"loss", "epoch"}
    (where,) = [c for c in verdict.checks if c.name.startswith("resume: first step")]
    assert "logged again, with equal values" in where.message


def test_a_run_that_trains_all_again_and_shows_the_same_history_is_red(tmp_path: Path) -> None:
    verdict = run(tmp_path, case(tmp_path, "state", *STOPS, "--forgets", "all"))
    assert any(name.startswith("resume: first step") for name in failing(verdict)), failing(verdict)


def test_last_words_are_compared_but_for_means_of_own_steps(tmp_path: Path) -> None:
    verdict = held_and_not(tmp_path, "last-words", *STOPS)
    (mean,) = [check for check in verdict.checks if check.name == "continuous: train_loss"]
    assert (mean.passed, mean.kind) == (True, "present")
    assert "each process sums up its own steps: `loss`" in mean.message
    assert "not compared" in mean.message


@pytest.mark.torch
def test_runs_beside_each_other_are_series_of_their_own(tmp_path: Path) -> None:
    verdict = held_and_not(tmp_path, "boards", *STOPS)
    expected = {
        "loss/train",
        "loss/valid",
        "lr",
        "train/epoch_loss",
        "validation/epoch_loss",
        "hparams/final",
    }
    assert compared(verdict) == expected


def test_a_validation_at_k_may_come_from_the_resumed_process(tmp_path: Path) -> None:
    verdict = held_and_not(tmp_path, "lines", *STOPS, "--validate-every", "4")
    assert compared(verdict) == {"loss", "val_loss"}
    (where,) = [c for c in verdict.checks if c.name.startswith("resume: first step")]
    assert where.message == "it went on at step 9; logged again, with equal values: 8"


def test_a_script_that_counts_from_zero_and_went_on_behind_k_is_held(tmp_path: Path) -> None:
    assert compared(held_and_not(tmp_path, "from-zero")) == {"loss"}  # it is at its end before it is stopped


def test_what_was_in_the_buffers_of_a_script_that_was_ended_is_not_its_fault(tmp_path: Path) -> None:
    a_case = case(tmp_path, "buffered", "--pause", "0.06", n=64)
    assert not failing(run(tmp_path, a_case, golden_update=True))
    verdict = run(tmp_path, a_case, protocol="fast")
    assert verdict.passed, {c.name: c.message for c in verdict.checks if not c.passed}
    (joined,) = [check for check in verdict.checks if check.name == "golden: loss"]
    assert "not written by a process when it was ended, and not compared: 1–32" in joined.message
    assert "nothing of its metrics was written when it was ended: not compared" in notes(verdict)


def test_a_script_that_was_ended_and_trains_all_again_is_red(tmp_path: Path) -> None:
    verdict = run(tmp_path, case(tmp_path, "buffered", "--pause", "0.06", "--forgets", "all", n=64))
    assert any(name.startswith("resume: first step") for name in failing(verdict)), failing(verdict)


def test_recording_a_broken_run_says_what_was_lost(tmp_path: Path) -> None:
    a_case = case(tmp_path, "lines", *STOPS, "--forgets", "momentum")
    verdict = run(tmp_path, a_case, golden_update=True)
    assert verdict.diagnosis is not None
    assert verdict.diagnosis.evidence[0].startswith("`loss` differs from iteration 10 on")
    assert not (tmp_path / "goldens").exists()


def test_a_refusal_names_the_file_that_is_there_and_what_was_looked_for(tmp_path: Path) -> None:
    a_case = case(tmp_path, "csv", *STOPS)
    script = a_case.directory / "train.py"
    script.write_text(script.read_text().replace('"metrics.csv"', '"my numbers.csv"'))
    verdict = run(tmp_path, a_case)
    said = failing(verdict)[NOT_LOGGED]
    assert "; there is lightning_logs/version_0/my numbers.csv" in said
    assert "metrics.csv" in said
    assert "no event file" in said


def test_a_command_that_cannot_be_probed_is_not_reported_as_a_fault(tmp_path: Path) -> None:
    said: list[str] = []

    class Observer:
        def __getattr__(self, name: str) -> Any:
            return lambda *words, **_: said.append(f"{name} {words}")

    a_case = case(tmp_path, "lines", *STOPS, "--forgets", "momentum")
    verdict = run_cell(
        Cell("cpu", "dev", a_case.name), case=a_case, cases=tmp_path / "cases", goldens=tmp_path / "goldens",
        results=tmp_path / "results", options=Options(protocol="full"), observer=Observer(),
    )  # fmt: skip
    assert verdict.status == "failed"
    assert any(line.startswith("phase_started") for line in said)
    assert not [line for line in said if "probe" in line]
