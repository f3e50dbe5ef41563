"""What two runs of a sound script do not share is no loss, what is lost beside it is one: a slice of both.

All of it: ``python -m tests.circumstances``, and the same with ``--faults``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.checkpoints.coverage import AppliedRule, Count, Coverage
from harness.checks import Check
from harness.verdict import Verdict
from tests.circumstances import alone
from tests.circumstances.__main__ import chosen, total
from tests.circumstances.bank import FAULTS, KINDS, SOUND, TABLE, Fault, Sound
from tests.circumstances.running import Found, missed, record, try_fault, try_sound, waived

pytestmark = pytest.mark.torch  # to compare with
CASES = {sound.name: sound for sound in SOUND}
GREEN = (
    "numbered_none", "numbered_coarse_2", "numbered_coarse_3", "numbered_by_step", "numbered_arguments",
    "numbered_goes_on_mixed", "folder_log_dates", "folder_stamped_file", "beside_csv_seconds", "last_history",
    "pair_mixed", "pickled_objects",
)  # fmt: skip
RED = (
    "numbered_mixed: tokens_seen", "numbered_history: a record", "numbered_folder_key: a score",
    "numbered_coarse_2: epoch", "folder_csv_seconds: rows", "folder_mixed: linked", "beside_mixed: reader",
    "pickled_mixed: offset",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's own, which a test gives back."""
    for name in ("LOSE", "CLOCK", "HARNESS_LEASES"):
        monkeypatch.setenv(name, "")


@pytest.mark.parametrize("name", GREEN)
def test_a_sound_script_is_green(name: str, tmp_path: Path) -> None:
    found = try_sound(tmp_path, CASES[name])
    assert [one.step for one in found] == ["alone", "record", "auto", "full"]
    assert [(one.step, *one.wrong) for one in found if one.wrong] == []


@pytest.mark.parametrize("name", RED)
def test_a_loss_is_red_and_named(name: str, tmp_path: Path) -> None:
    (fault,) = (one for one in FAULTS if one.name == name)
    found = [*record(tmp_path, fault.case), *try_fault(tmp_path, fault)]
    assert [one.step for one in found] == ["record", "alone", "auto", "full"]
    assert [(one.step, *one.wrong) for one in found if one.wrong] == []


# -- the tables ----------------------------------------------------------------------------------


def test_the_tables_are_whole() -> None:
    assert len(CASES) == len(SOUND) >= 50
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert {fault.case.name for fault in FAULTS} <= CASES.keys()
    assert {kind for _, _, kinds in TABLE for kind in kinds} == KINDS.keys()
    assert {fault.shape for fault in FAULTS} == {sound.shape for sound in SOUND}
    assert {*GREEN, *RED} <= {*CASES, *(fault.name for fault in FAULTS)}


def test_a_slice_is_taken_by_name_and_by_number() -> None:
    assert chosen(SOUND, ["last_"], 1) == [sound for sound in SOUND if sound.shape == "last"]
    assert chosen(SOUND, [], 10) == list(SOUND[::10])
    assert chosen(FAULTS, ["no such name"], 1) == []


def test_a_loss_that_is_another_one_than_the_table_says_is_told(tmp_path: Path) -> None:
    said = alone.harmless(Fault("last", "epoch", "tokens_seen"), tmp_path)
    assert said == "last_mixed: epoch: expected tokens_seen to differ, found: last.json:.epoch"
    assert "found: nothing" in alone.harmless(Fault("last", "no such thing", "epoch"), tmp_path / "other")


def test_a_script_that_differs_in_more_than_is_declared_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "host", ("hostname",))
    assert "rank_hosts" in alone.unsound(Sound("last", "stops", "host"), tmp_path)


# -- counting ------------------------------------------------------------------------------------


def verdict(*checks: Check, status: str = "failed", coverage: Coverage | None = None) -> Verdict:
    return Verdict("cpu/dev/one", status, checks, None, {}, {}, "harness run", coverage=coverage)  # type: ignore[arg-type]


def failed(name: str, message: str) -> Check:
    return Check(name, None, "state", "present", False, None, None, message)


def test_state_that_is_waived_or_left_out_counts_as_an_alarm() -> None:
    sound = Sound("numbered", "stops", "wall_clock")
    rules = tuple(AppliedRule("observed", entry, "differs", 1) for entry in ("*.saved_at", "tokens_seen"))
    assert waived(sound, verdict()) == []
    found = waived(sound, verdict(coverage=Coverage(files=Count(1, 0, 2), rules=rules)))
    assert found == ["waived: :tokens_seen is excluded, which is no circumstance", "not compared: 2 files"]


def test_a_loss_counts_only_when_its_name_is_said_beside_a_golden() -> None:
    fault = Fault("numbered", "epoch", "epoch")
    named, other = failed("state: unknown", "epoch: 1 against 2"), failed("state: unknown", "w: 1 against 2")
    assert missed(fault, verdict(named)) == []
    assert missed(fault, verdict(replace(named, passed=True), status="passed")) == ["passed"]
    assert missed(fault, verdict(other))[0].startswith("epoch is not named; failed: state: unknown: w")
    assert missed(fault, verdict(named, failed("golden: is there", "none"))) == [
        "there is no golden, as the sound script is not green"
    ]


def test_total_counts_verdicts_recordings_and_scripts_apart() -> None:
    passed = Found("one", "auto", lane="exact")
    alarm = replace(passed, step="full", wrong=("state",), lane="tolerance", reference=True)
    found = [Found("one", "alone", ("unsound",)), Found("one", "record", ("state",)), passed, alarm]
    assert total(found, faults=False) == (
        "2 clean verdicts (1 compared bit for bit, 1 without an uninterrupted run), 1 false alarms; "
        "1 goldens not recorded cleanly; 1 scripts that are not what the tables say"
    )
    assert total(found, faults=True).startswith("2 faulty verdicts (1 compared bit for bit")


def test_a_verdict_that_cannot_be_given_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.circumstances.running.judge", lambda *a, **k: int("?"))
    (found,) = record(tmp_path, SOUND[0])
    assert found.wrong == ("ValueError: invalid literal for int() with base 10: '?'",)
