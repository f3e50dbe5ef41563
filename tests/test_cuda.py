"""On a GPU: the single-GPU case through the same command, exactly repeatable, and faults caught there."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from harness.machine.hardware import hardware_here
from harness.verdict import Verdict
from harness.verdict.reading import read_verdict

ROOT = Path(__file__).parents[1]
CASE = "gpt3_tp1_pp1_resume_torch_dist"


def cuda_is_here() -> bool:
    # In a process of its own: CUDA must not be touched in one that forks ranks later.
    words = [sys.executable, "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(
        hardware_here() == "cpu" or not cuda_is_here(),
        reason="missing hardware: a CUDA device of a known kind",
    ),
]


def run(folder: Path, *words: str) -> tuple[int, Verdict]:
    """The case on the GPU that is here."""
    hardware = hardware_here()
    command = [sys.executable, "-m", "harness", "run", CASE, "--hardware", hardware]
    folders = ["--goldens", str(folder / "goldens"), "--results", str(folder / "results")]
    done = subprocess.run([*command, *folders, *words], cwd=ROOT, check=False, env=os.environ)
    return done.returncode, read_verdict(folder / "results" / hardware / "dev" / CASE / "verdict.json")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cuda")
    status, verdict = run(folder, "--golden-update")
    assert status == 1
    assert [check.name for check in verdict.failures] == ["golden: recorded"]
    return folder


@pytest.mark.parametrize("protocol", ["full", "fast"])
def test_a_second_run_is_bit_for_bit_the_first_and_so_is_its_resume(recorded: Path, protocol: str) -> None:
    status, verdict = run(recorded, "--protocol", protocol)
    assert status == 0
    assert {c.kind for c in verdict.checks if c.metric == "lm loss"} == {"exact"}
    assert "NVIDIA" in str(verdict.provenance["fingerprint"]["device"])


def test_every_operation_is_measured_there_and_twice_alike(recorded: Path) -> None:
    status, verdict = run(recorded, "--protocol", "full")
    assert status == 0
    assert "compared bit for bit, same numerics" in verdict.provenance["golden"]
    found = verdict.provenance["fingerprint"]["numerics"]
    assert {"linear, bf16", "attention, bf16", "softmax", "cross entropy", "Adam"} <= found.keys()
    code = "from harness.machine.numerics import measure; print(len(measure('cuda', 'bf16')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == f"{len(found)}\n"  # no line that says what cannot be measured


@pytest.mark.parametrize("number", [3, 5, 21])
def test_a_planted_fault_is_caught_and_named_there_too(tmp_path: Path, number: int) -> None:
    from harness import trainers
    from harness.cases import find_case
    from harness.matrix import Cell
    from harness.protocol.plan import Options
    from harness.protocol.run import run_cell
    from tests.faults import trainer
    from tests.faults.bank import FAULTS

    (fault,) = (one for one in FAULTS if one.number == number)
    case = find_case(CASE, ROOT / "test_cases")
    original = dict(trainers.TRAINERS)
    trainer.planted = partial(trainer.PlantedTrainer, plants=fault.plants, disk=fault.disk)  # type: ignore[attr-defined]
    trainers.TRAINERS["native"] = f"{trainer.__name__}:planted"
    try:
        verdict = run_cell(
            Cell(hardware_here(), "dev", CASE), cases=ROOT / "test_cases", goldens=tmp_path / "goldens",
            results=tmp_path / "results", options=Options(protocol="full"), case=case,
        )  # fmt: skip
    finally:
        trainers.TRAINERS.clear()
        trainers.TRAINERS.update(original)
    assert any(check.against in ("continuous", "state") for check in verdict.failures)
    assert verdict.diagnosis is not None
    assert verdict.diagnosis.component == fault.component
