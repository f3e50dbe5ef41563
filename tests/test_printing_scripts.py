"""Whole runs of a script that only prints: green where it is sound, red where it is not, and no crash."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from harness.cases import Case, load_case
from harness.commands.cli import main
from harness.matrix import Cell
from harness.metrics import stdout
from harness.night.headline import headline
from harness.protocol.judge import NOT_LOGGED
from harness.protocol.plan import Options
from harness.protocol.run import run_cell

if TYPE_CHECKING:
    from harness.verdict import Verdict

STAND_INS = Path(__file__).parent / "stand_ins"
LOSS = r"^step (?P<step>\d+) loss (?P<loss>\S+)"
VALIDATION = r"validation at (?P<step>\d+): (?P<val_loss>\S+)"
STOPS = ("--stop", "${EXIT_ITERS}")


@pytest.fixture(autouse=True)
def _cores_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained here is a number; it need not wait for whoever trains beside it."""
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))


def case(
    tmp_path: Path, *more: str, n: int = 20, k: int = 10, printed: Any = LOSS, command: Any = None
) -> Case:
    words = ["python", "train.py", "--iters", "${TRAIN_ITERS}", "--save-every", str(k),
             "--save", "${CHECKPOINT_SAVE_PATH}", *more]  # fmt: skip
    folder = tmp_path / "cases" / "mine" / "printing"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(STAND_INS / "printing_script.py", folder / "train.py")
    command = command or {"train": words, "resume": [*words, "--load", "${CHECKPOINT_LOAD_PATH}"]}
    ours = {"trainer": "command", "command": command, **({"metrics": {"stdout": printed}} if printed else {})}
    arguments = {"--train-iters": n, "--save-interval": k}
    (folder / "model_config.yaml").write_text(json.dumps({"MODEL_ARGS": arguments, "HARNESS": ours}))
    return load_case(folder)


def run(tmp_path: Path, a_case: Case, *, protocol: str = "full", **options: Any) -> Verdict:
    return run_cell(
        Cell("cpu", "dev", a_case.name), case=a_case, cases=tmp_path / "cases",
        goldens=tmp_path / "goldens", results=tmp_path / "results",
        options=Options(protocol=protocol, keep_checkpoints=True, **options),
    )  # fmt: skip


def failing(verdict: Verdict) -> dict[str, str]:
    return {c.name: c.message for c in verdict.checks if not c.passed and c.against != "golden"}


def results(tmp_path: Path, phase: str) -> Path:
    return tmp_path / "results" / "cpu" / "dev" / "printing" / phase


def test_from_the_command_line_a_golden_is_recorded_and_held_and_a_fault_is_red(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_case = case(tmp_path, *STOPS)
    words = ["run", str(a_case.directory), "--hardware", "cpu",
             "--goldens", str(tmp_path / "goldens"), "--results", str(tmp_path / "results")]  # fmt: skip
    assert main([*words, "--golden-update"]) == 1
    (golden,) = (tmp_path / "goldens").rglob("golden_values_*cpu.json")
    assert json.loads(golden.read_text())["loss"]["end_step"] == 20
    assert main([*words, "--protocol", "full"]) == 0
    assert main(words) == 0
    capsys.readouterr()

    case(tmp_path, *STOPS, "--forgets", "momentum")
    assert main([*words, "--protocol", "full"]) == 1
    said = capsys.readouterr().out
    assert "continuous: loss" in said
    assert "crash" not in said


def test_several_lines_have_several_metrics(tmp_path: Path) -> None:
    a_case = case(tmp_path, *STOPS, "--validate-every", "5", printed=[LOSS, VALIDATION])
    verdict = run(tmp_path, a_case)
    assert not failing(verdict)
    assert {check.metric for check in verdict.checks} >= {"loss", "val_loss"}


def test_the_case_of_the_documents_reads_both_kinds_of_lines(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "command-trainer.md").read_text()
    (block,) = [one.partition("```")[0] for one in text.split("```yaml\n") if "    stdout:" in one]
    printed = yaml.safe_load(block)["HARNESS"]["metrics"]["stdout"]
    verdict = run(tmp_path, case(tmp_path, *STOPS, "--validate-every", "5", printed=printed))
    assert not failing(verdict)
    assert {check.metric for check in verdict.checks} >= {"loss", "val_loss"}


@pytest.mark.parametrize("k", [50, 45])
@pytest.mark.parametrize("zero", [(), ("--from-zero",)], ids=["from 1", "from 0"])
def test_a_script_may_print_every_ten_steps(k: int, zero: tuple[str, ...], tmp_path: Path) -> None:
    a_case = case(tmp_path, *STOPS, "--print-every", "10", *zero, n=100, k=k)
    verdict = run(tmp_path, a_case)
    assert not failing(verdict)
    (compared,) = [check for check in verdict.checks if check.name == "continuous: loss"]
    assert "5 " in compared.message or "6 " in compared.message, compared.message
    broken = case(tmp_path, *STOPS, "--print-every", "10", *zero, "--forgets", "momentum", n=100, k=k)
    assert "continuous: loss" in failing(run(tmp_path, broken))


def test_a_part_that_is_too_short_for_a_line_is_no_fault(tmp_path: Path) -> None:
    verdict = run(tmp_path, case(tmp_path, *STOPS, "--print-every", "10", n=10, k=5))
    assert not failing(verdict)


def test_a_script_that_cannot_stop_keeps_what_it_printed_until_it_was_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    verdict = run(tmp_path, case(tmp_path, "--pause", "0.05", n=120, k=10))
    assert not failing(verdict)
    assert "interrupted: loss" in {check.name for check in verdict.checks if check.passed}
    log = (results(tmp_path, "interrupted") / stdout.LOG).read_text()
    assert "step 10 loss" in log
    assert log.endswith("\n")


@pytest.mark.parametrize("printed", [None, r"epoch (?P<step>\d+) loss (?P<loss>\S+)"])
def test_a_run_that_logged_nothing_is_failed_and_shows_what_to_write(
    printed: str | None, tmp_path: Path
) -> None:
    verdict = run(tmp_path, case(tmp_path, *STOPS, printed=printed))
    assert (verdict.status, verdict.exit_code, verdict.diagnosis) == ("failed", 1, None)
    assert verdict.message == "what was logged cannot be read, or nothing was"
    (check,) = verdict.checks
    assert check.name == NOT_LOGGED
    what = headline(verdict).what
    assert ("no line matches" if printed else "the trainer logged nothing") in what
    assert "lines like" not in what
    assert "its log has lines like 'step 1 loss " in check.message
    advised = check.message.partition("{metrics: {stdout: '")[2].partition("'}}")[0]
    if printed:
        assert f"no line matches HARNESS.metrics.stdout {printed!r}" in check.message
    else:
        assert "the trainer logged nothing" in check.message
    assert not failing(run(tmp_path, case(tmp_path, *STOPS, printed=advised)))


def test_one_expression_of_several_that_matches_nothing_is_told(tmp_path: Path) -> None:
    verdict = run(tmp_path, case(tmp_path, *STOPS, printed=[LOSS, VALIDATION]))
    assert f"no line matches HARNESS.metrics.stdout {VALIDATION!r}" in failing(verdict)[NOT_LOGGED]


def test_a_value_that_is_none_is_failed_with_its_line_and_nothing_is_recorded(tmp_path: Path) -> None:
    a_case = case(tmp_path, *STOPS, "--line", "step {step} loss {loss}s")
    verdict = run(tmp_path, a_case, golden_update=True)
    assert (verdict.status, verdict.diagnosis) == ("failed", None)
    assert f"{stdout.LOG}:" in failing(verdict)[NOT_LOGGED]
    assert not (tmp_path / "goldens").exists()


@pytest.mark.tools
def test_what_several_ranks_print_counts_once(tmp_path: Path) -> None:
    """Under torchrun itself."""
    words = ["torchrun", "--standalone", "--nproc_per_node", "2", "train.py",
             "--iters", "${TRAIN_ITERS}", "--save-every", "10", "--save", "${CHECKPOINT_SAVE_PATH}",
             *STOPS]  # fmt: skip
    command = {"train": words, "resume": [*words, "--load", "${CHECKPOINT_LOAD_PATH}"]}
    expression = LOSS.replace("^", "").replace(r"\S+", r"[-+.\de]+")
    verdict = run(tmp_path, case(tmp_path, command=command, printed=expression))
    assert not failing(verdict)


def test_a_phase_can_be_read_again_without_its_case(tmp_path: Path) -> None:
    a_case = case(tmp_path, *STOPS)
    run(tmp_path, a_case)
    shutil.rmtree(a_case.directory)
    from harness.metrics import read_metrics

    phase = results(tmp_path, "continuous")
    assert len(read_metrics(phase / "tensorboard", phase)["loss"]) == 20


def test_a_golden_is_approved_from_results_that_were_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, case(tmp_path, *STOPS))
    words = ["goldens", "approve", str(tmp_path / "results"), "--cases", str(tmp_path / "cases"),
             "--goldens", str(tmp_path / "goldens")]  # fmt: skip
    assert main(words) == 0, capsys.readouterr()
    verdict = run(tmp_path, case(tmp_path, *STOPS))
    assert verdict.passed, failing(verdict)
