"""An alarm is whatever keeps a clean run from passing, and the total says how many there were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.alarms.running import NAMES, Clean, busy, markdown, run_one, total
from tests.faults.running import WARM, Bench

PASSED = Clean(NAMES[0], "full", "nothing", (), "exact", 1.0)
ALARM = replace(PASSED, alarms=("continuous: lm loss: 1 of 10 steps differs",), lane="tolerance")


def test_a_run_that_cannot_pass_is_an_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))
    with WARM:
        found = run_one(Bench(tmp_path), 1, "dense_torch", "full", "nothing")  # there is no golden
    assert len(found.alarms) == 1
    assert found.alarms[0].startswith("golden: is there")
    refused = run_one(Bench(tmp_path), 2, "dense_torch", "no such protocol", "nothing")
    assert len(refused.alarms) == 1


def test_total_counts_verdicts_and_alarms() -> None:
    assert total([PASSED, PASSED, ALARM]) == "3 clean verdicts (2 compared bit for bit), 1 false alarms"


def test_table_shows_which_case_failed_in_which_condition() -> None:
    other = replace(PASSED, case=NAMES[1], protocol="fast", beside="a busy machine")
    rows = markdown([PASSED, ALARM, other], "dev", "2.13.0").splitlines()
    assert rows[0] == "| case | fast, beside a busy machine | full, beside nothing |"
    assert rows[2] == f"| {NAMES[0]} | 0 passed | **1 of 2 fail** |"
    assert rows[3] == f"| {NAMES[1]} | 1 passed | 0 passed |"


def test_busy_processes_end_with_the_block() -> None:
    before = {child.pid for child in psutil.Process().children()}
    with busy(2):
        running = {child.pid for child in psutil.Process().children()} - before
        assert len(running) == 2
    assert not any(psutil.pid_exists(pid) for pid in running)
