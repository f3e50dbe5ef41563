"""The faults that ``full`` passes: whole, with references of their own; one of each kind, as it is run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.diagnosis import COMPONENTS
from tests.faults.bank import CASES, FAULTS
from tests.faults.running import Bench, record
from tests.faults.stops import CASE, STOP_FAULTS, StopOutcome, stop_line, stop_table, try_one

pytestmark = pytest.mark.torch


def test_there_are_five_each_with_a_reference_that_no_other_fault_has() -> None:
    assert [fault.number for fault in STOP_FAULTS] == [51, 52, 53, 54, 55]
    trackers = [*(fault.tracker for fault in FAULTS), *(fault.tracker for fault in STOP_FAULTS)]
    assert len(set(trackers)) == len(trackers)
    assert all(re.fullmatch(r"[A-Za-z-]+#\d+", fault.tracker) for fault in STOP_FAULTS)
    assert all(fault.component in COMPONENTS for fault in STOP_FAULTS)
    assert {fault.protocol for fault in STOP_FAULTS} == {"every", "chain"}
    assert len(list(CASES.glob(f"*/{CASE}"))) == 1


def test_full_passes_what_a_second_resume_and_another_k_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))
    bench = Bench(tmp_path)
    record(bench, CASE, "full")
    for number in (52, 54):
        outcome = try_one(bench, number)
        assert outcome.right, outcome


SEEN = StopOutcome(51, True, "failed", (2, 4), "data-order", "harness run x --protocol chain --stops 2,4", 3)


def test_what_is_not_as_the_bank_says_is_bold() -> None:
    assert SEEN.right
    assert "**" not in stop_table([SEEN])
    assert "`--protocol chain --stops 2,4`" in stop_table([SEEN])
    for wrong in (
        replace(SEEN, full=False), replace(SEEN, status="passed"), replace(SEEN, least=(2, 6)),
        replace(SEEN, component="rng"),
    ):  # fmt: skip
        assert not wrong.right
        assert stop_table([wrong]).count("**") == 2
        assert "WRONG" in stop_line(wrong)
