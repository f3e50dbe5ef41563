"""What a plan says before anything runs."""

from __future__ import annotations

import shlex
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from harness.machine import portable
from harness.matrix import Cell
from harness.protocol.plan import Options, Plan, prepare

ROOT = Path(__file__).parents[1]
CASE = "gpt3_tp1_pp1_resume_torch_dist"


def planned(options: Options) -> Plan:
    cell = Cell(hardware="cpu", track="dev", case=CASE)
    folders = {name: ROOT / path for name, path in (("cases", "test_cases"), ("goldens", "goldens"))}
    return prepare(cell, case=None, results=Path("results"), options=options, **folders)


@pytest.mark.parametrize(
    ("session", "program"),
    [("case(cpu)", "nox"), ("case(cpu)(dev, gpt)", "nox"), ("", "harness"), ("tests", "harness")],
)
def test_the_command_that_runs_a_cell_again_is_of_the_kind_that_ran_it(
    session: str, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOX_CURRENT_SESSION", session)
    words = shlex.split(planned(Options(protocol="full")).reproduce)
    assert words[0] == program
    assert words[words.index("--protocol") + 1] == "full"
    assert any(CASE in word for word in words)


@pytest.mark.torch
def test_a_golden_with_numerics_is_expected_to_be_exact_on_any_processor_but_not_under_other_switches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = planned(Options())
    assert plan.golden is not None
    torch = version("torch").partition("+")[0]
    fingerprint = {
        **plan.golden.fingerprint, "torch": torch, "device": "Another CPU", "numerics": {"libm": "1"},
        "cpu_switches": portable.effective({}),
    }  # fmt: skip
    golden = replace(plan.golden, provenance={**plan.golden.provenance, "fingerprint": fingerprint})
    plan = replace(plan, golden=golden)
    for name in portable.PORTABLE:
        monkeypatch.delenv(name, raising=False)
    assert plan.expects_exact()
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    assert not plan.expects_exact()
