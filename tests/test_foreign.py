"""Faults in a trainer that is not ours are caught, and named as far as its log and its state can tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.checkpoints import diff
from harness.checks import Check, compare_curves
from harness.diagnosis import Diagnosis, diagnose
from harness.matrix import Cell
from harness.metrics import read_metrics
from harness.protocol.continuation import before, went_on
from harness.protocol.plan import Options
from harness.protocol.run import run_cell
from harness.protocol.state_checks import saved_state
from harness.verdict import Verdict

pytestmark = pytest.mark.torch

SCRIPT = Path(__file__).parent / "stand_ins" / "foreign_trainer.py"
K, N = 10, 20
CASE = """
TEST_TYPE: ckpt-resume
ENV_VARS: {{FORGETS: "{forgets}"}}
MODEL_ARGS: {{--train-iters: 20, --save-interval: 10}}
HARNESS:
  trainer: {{default: command}}
  command:
    train: [{python}, {script}, --iters, "${{TRAIN_ITERS}}", --stop, "${{EXIT_ITERS}}", --every,
      "${{SAVE_INTERVAL}}", --out, "${{OUTPUT_PATH}}", --save, "${{CHECKPOINT_SAVE_PATH}}"]
    resume: [{python}, {script}, --iters, "${{TRAIN_ITERS}}", --stop, "${{EXIT_ITERS}}", --every,
      "${{SAVE_INTERVAL}}", --out, "${{OUTPUT_PATH}}", --save, "${{CHECKPOINT_SAVE_PATH}}",
      --load, "${{CHECKPOINT_LOAD_PATH}}"]
"""


@dataclass(frozen=True)
class Lost:
    """What is forgotten, what that is called, what the decisive sentence says, and whether it is certain."""

    forgets: str
    component: str
    says: str
    certain: bool = True


LOST = (
    Lost("rng", "rng", "rng_state.cpu"),
    Lost("data", "data-order", "of `data-order`"),
    Lost("schedule", "lr-schedule", "it restarted at iteration 0"),
    Lost("moments", "optimizer", "the update is not"),
    Lost("counter", "optimizer", "step: differs, at most by 10; first: 20 against 10"),
    Lost("weights", "weights", "not rng: its only entry is equal at 20", certain=False),
    Lost("ema", "buffers", "ema"),
    Lost("iteration", "iteration", "only the iteration's number was lost"),
    Lost("everything", "checkpoint", "nothing was loaded"),
)
#: Resumes once for each thing to forget, after one import.
RESUME_EACH = """
import os, sys
sys.path.insert(0, {folder!r})
import foreign_trainer
for name in {names!r}:
    out = os.path.join({root!r}, name)
    os.makedirs(out)
    sys.argv = ["", "--iters", "20", "--stop", "20", "--every", "10", "--out", out, "--save", out + "/saved",
                "--load", {load!r}]
    pid = os.fork()
    if pid == 0:
        foreign_trainer.FORGETS = {{name}}
        foreign_trainer.main()
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, name
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Verdict]]:
    """The results of a clean cell, its checkpoints, and what a resume that forgets has left."""
    folder = tmp_path_factory.mktemp("foreign")
    before = os.environ.get("HARNESS_LEASES")
    os.environ["HARNESS_LEASES"] = str(folder / "leases")
    verdict = judged(folder, "")
    cell = folder / "results" / "cpu" / "dev" / "foreign-clean"
    program = RESUME_EACH.format(
        folder=str(SCRIPT.parent),
        names=[lost.forgets for lost in LOST],
        root=str(folder / "forgetful"),
        load=str(cell / "checkpoints" / "interrupted"),
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
    yield folder, verdict
    if before is None:
        del os.environ["HARNESS_LEASES"]
    else:
        os.environ["HARNESS_LEASES"] = before


def judged(folder: Path, forgets: str) -> Verdict:
    name = f"foreign-{forgets or 'clean'}"
    case = folder / "cases" / "anybody" / name / "model_config.yaml"
    case.parent.mkdir(parents=True)
    case.write_text(CASE.format(forgets=forgets, python=sys.executable, script=SCRIPT))
    return run_cell(
        Cell("cpu", "dev", name),
        cases=folder / "cases",
        goldens=folder / "goldens",
        results=folder / "results",
        options=Options(protocol="full", keep_checkpoints=True),
    )


def resumed(folder: Path, forgets: str) -> tuple[list[Check], Diagnosis | None]:
    """The checks and the diagnosis of a resume that forgets."""
    cell, out = folder / "results" / "cpu" / "dev" / "foreign-clean", folder / "forgetful" / forgets
    first = read_metrics(cell / "continuous" / "tensorboard", cell / "continuous")
    again = read_metrics(out / "tensorboard", out)
    checks = [went_on(again, before(first, K), first, K, trained_again=True).check]
    checks += compare_curves(first, again, against="continuous", lane="exact", first=K + 1, last=N)
    saved = cell / "checkpoints" / "continuous" / f"checkpoint-{N}", out / "saved" / f"checkpoint-{N}"
    state = diff(*saved)
    checks += saved_state(state, [], N)
    found = diagnose(
        checks, continuous=first, resumed=again, k=K, n=N, state=state, probe=None, deterministic=True
    )
    return checks, found


def test_a_sound_trainer_fails_for_want_of_a_golden_only(sound: tuple[Path, Verdict]) -> None:
    verdict = sound[1]
    assert [check.name for check in verdict.failures] == ["golden: is there"]
    assert verdict.diagnosis is None
    compared = {c.metric for c in verdict.checks if c.against == "continuous" and c.kind == "exact"}
    assert compared == {"loss", "lr", "gnorm", "val_loss"}


@pytest.mark.parametrize("lost", LOST, ids=lambda lost: lost.forgets)
def test_what_is_forgotten_is_caught_and_named(lost: Lost, sound: tuple[Path, Verdict]) -> None:
    checks, diagnosis = resumed(sound[0], lost.forgets)
    assert any(not check.passed for check in checks)
    assert diagnosis is not None
    assert diagnosis.component == (lost.component if lost.certain else "unknown"), diagnosis.evidence
    if not lost.certain:
        assert diagnosis.candidates[0].component == lost.component
    assert any(lost.says in said for said in diagnosis.evidence), diagnosis.evidence


def test_the_whole_protocol_catches_and_names_it_too(tmp_path: Path, sound: tuple[Path, Verdict]) -> None:
    verdict = judged(tmp_path, "data")
    assert verdict.status == "failed"
    assert verdict.diagnosis is not None
    assert verdict.diagnosis.component == "data-order", verdict.diagnosis.evidence
    written = json.loads((tmp_path / "results" / verdict.cell / "state_diff.json").read_text())
    assert written["cause"]["entry"] == written["entries"][0]["name"] == verdict.diagnosis.entry
    assert verdict.diagnosis.entry.endswith("progress.1.1.epoch")
