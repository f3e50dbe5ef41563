"""The table of configurations is what it says; without a checkout nothing is run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cases import load_case
from harness.checks import Check
from harness.trainers.megatron.adapter import MegatronTrainer
from harness.verdict import Status, Verdict
from tests.megatron.__main__ import main
from tests.megatron.configs import CONFIGS, chosen
from tests.megatron.running import unexpected


def test_every_configuration_is_a_case_that_the_adapter_starts_with_so_many_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlm").mkdir()
    (tmp_path / "mlm" / "pretrain_gpt.py").touch()
    monkeypatch.setenv("MEGATRON_LM_PATH", str(tmp_path / "mlm"))
    assert len({config.name for config in CONFIGS}) == len(CONFIGS)
    for config in CONFIGS:
        case = load_case(config.write(tmp_path / "cases")).trained_by("megatron", "cpu")
        assert case.name == config.name
        trainer = MegatronTrainer(case, "cpu")
        trainer.check()
        processes = config.processes if config.case is None else {"gpt": 4, "moe": 8}[case.family]
        assert trainer.world_size == processes
        assert (case.train_iters("cpu"), case.resume_at("cpu")) == (10, 5)
        assert (case.model_args_2 is not None) == (config.second is not None)


def test_words_choose_by_parts_of_names() -> None:
    assert [one.name for one in chosen(["zero", "reshard"])] == [
        "dp2_zero_torch_dist", "dp2_zero_torch", "reshard_tp1_tp2"
    ]  # fmt: skip
    assert chosen([]) == list(CONFIGS)


def test_without_a_checkout_or_a_configuration_there_is_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MEGATRON_LM_PATH", raising=False)
    assert main([]) == 3
    assert "MEGATRON_LM_PATH names no checkout" in capsys.readouterr().err
    assert main(["no_such_one"]) == 3
    assert main(["--list"]) == 0


def verdict(*checks: Check, **more: object) -> Verdict:
    status: Status = "failed" if any(not check.passed for check in checks) else "passed"
    made = Verdict("cpu/dev/x", status, checks, None, {}, {"notes": ["…"]}, "harness run x")
    return replace(made, **more)  # type: ignore[arg-type]


def check(name: str, message: str, *, passed: bool) -> Check:
    return Check(name, None, "golden", "present", passed, message=message)


def test_green_is_not_enough_where_no_state_was_compared() -> None:
    assert unexpected(verdict(check("a", "", passed=True)), "auto", "") == [
        "nothing of the saved state was compared"
    ]


def test_what_is_not_recorded_is_not_as_expected_and_what_is_recorded_is() -> None:
    refused = check("golden: recorded", "not recorded: 1 checks failed", passed=False)
    recorded = check("golden: recorded", "recorded", passed=False)
    assert "not recorded: 1 checks failed" in unexpected(verdict(refused), "record", "")
    assert unexpected(verdict(recorded), "record", "") == ["nothing of the saved state was compared"]


def test_red_is_expected_only_with_its_sentence() -> None:
    other = verdict(check("a", "another thing", passed=False))
    assert unexpected(other, "record", "this")[0] == "it is red, and does not say 'this'"
    assert unexpected(verdict(check("a", "so this is", passed=False)), "record", "this") == []
    assert unexpected(verdict(check("a", "", passed=True)), "record", "this") == [
        "it is green, expected red: this"
    ]
