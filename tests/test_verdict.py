"""``verdict.json``: its keys are a contract, and what lies there in their place is refused in one line."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from harness.checkpoints.coverage import AppliedRule, Count, Coverage
from harness.checks import Check, Worst
from harness.diagnosis import Candidate, Diagnosis
from harness.errors import EXIT_CRASHED, EXIT_FAILED, EXIT_PASSED, HarnessError, VerdictError
from harness.verdict import Run, Verdict
from harness.verdict.reading import read_verdict


def verdict(**changes: Any) -> Verdict:
    bad = Check(
        "continuous: lm loss", "lm loss", "continuous", "exact", passed=False, first_bad_step=52,
        worst=Worst(97, 9.75, 9.875), message="49 of 50 steps differ",
    )  # fmt: skip
    good = Check("state: rng", None, "state", "exact", passed=True, message="rng: every bit is the same")
    return Verdict(**{
        "cell": "cpu/dev/some_case",
        "status": "failed",
        "checks": (bad, good),
        "diagnosis": Diagnosis("optimizer", ("first bad at k+2", "moments differ")),
        "timing": {"total": 24.9},
        "provenance": {"torch": "2.13.0", "layout": "TP1 PP4"},
        "reproduce": "harness run some_case",
        **changes,
    })  # fmt: skip


def test_verdict_json_has_the_keys_of_the_contract_and_no_other(tmp_path: Path) -> None:
    verdict().write(tmp_path / "verdict.json")
    found = json.loads((tmp_path / "verdict.json").read_text())
    assert list(found) == ["cell", "status", "checks", "diagnosis", "timing", "provenance", "reproduce",
                           "message", "run", "coverage"]  # fmt: skip
    check = found["checks"][0]
    assert set(check) - {"message"} == {
        "name", "metric", "against", "kind", "passed", "first_bad_step", "worst",
    }  # fmt: skip
    assert check["worst"] == {
        "step": 97,
        "expected": 9.75,
        "actual": 9.875,
        "abs": 0.125,
        "rel": 0.125 / 9.75,
    }
    assert found["checks"][1]["worst"] is None
    assert found["checks"][1]["metric"] is None
    assert found["diagnosis"] == {
        "component": "optimizer",
        "evidence": ["first bad at k+2", "moments differ"],
        "candidates": [],
        "entry": "",
        "recipes": [],
    }


def test_a_verdict_reads_back_as_it_was_written(tmp_path: Path) -> None:
    for made in (verdict(), verdict(checks=(), diagnosis=None, status="error")):
        made.write(tmp_path / "verdict.json")
        assert read_verdict(tmp_path / "verdict.json") == made


def test_nan_and_infinity_are_words_and_the_file_stays_json(tmp_path: Path) -> None:
    worst = Worst(3, float("nan"), float("inf"))
    check = Check(
        "golden: lm loss", "lm loss", "golden", "exact", passed=False, first_bad_step=3, worst=worst
    )
    verdict(checks=(check,), timing={"total": float("inf")}).write(tmp_path / "verdict.json")

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found = json.loads((tmp_path / "verdict.json").read_text(), parse_constant=no_constant)
    assert found["checks"][0]["worst"]["expected"] == "nan"
    assert found["checks"][0]["worst"]["actual"] == "inf"
    read = read_verdict(tmp_path / "verdict.json")
    assert read.checks[0].worst == Worst(3, "nan", "inf")


def test_a_writer_that_dies_leaves_the_old_verdict(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    verdict().write(path)

    class Refuses:
        def __str__(self) -> str:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        verdict(provenance={"odd": Refuses()}).write(path)
    assert read_verdict(path) == verdict()
    assert [entry.name for entry in tmp_path.iterdir()] == ["verdict.json"]


def test_passed_with_a_failed_check_is_refused() -> None:
    with pytest.raises(ValueError, match="passed with 1 failed check"):
        verdict(status="passed")


def test_passed_without_a_check_is_refused() -> None:
    with pytest.raises(ValueError, match="passed without a check"):
        verdict(status="passed", checks=())


def test_an_unknown_status_is_refused() -> None:
    with pytest.raises(ValueError, match="'flaky'"):
        verdict(status="flaky")


def test_exit_codes_are_those_of_the_contract() -> None:
    held = Check("golden: lm loss", "lm loss", "golden", "exact", passed=True)
    assert verdict(status="passed", checks=(held,)).exit_code == EXIT_PASSED
    assert verdict().exit_code == EXIT_FAILED
    assert verdict(status="error").exit_code == EXIT_CRASHED


def _place(raw: dict[str, Any], path: str) -> tuple[Any, Any]:
    """What holds the value at a path, and its key there."""
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    return functools.reduce(lambda place, parent: place[parent], parents, cast("Any", raw)), last


def _without(path: str) -> Callable[[dict[str, Any]], object]:
    def change(raw: dict[str, Any]) -> None:
        place, last = _place(raw, path)
        del place[last]

    return change


def _with(path: str, value: object) -> Callable[[dict[str, Any]], object]:
    def change(raw: dict[str, Any]) -> None:
        place, last = _place(raw, path)
        place[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("cell"), "cell is missing, expected a text"),
        (_without("diagnosis"), "diagnosis is missing"),
        (_with("checks", None), "checks: found null, expected a list"),
        (
            _with("status", "green"),
            'status: found "green", expected passed, failed, error, refused or skipped',
        ),
        (_with("timing", []), "timing: found a list, expected an object"),
        (_with("timing.total", "long"), 'timing.total: found "long", expected a number or nan, inf or -inf'),
        (_with("checks.0.passed", "yes"), 'checks[0].passed: found "yes", expected true or false'),
        (
            _with("checks.0.worst.step", "97"),
            'checks[0].worst.step: found "97", expected a whole number or null',
        ),
        (_with("checks.1", "held"), 'checks[1]: found "held", expected an object'),
        (_without("checks.0.message"), "checks[0].message is missing, expected a text"),
        (_with("checks.0.against", "luck"), 'found "luck", expected golden, continuous or state'),
        (_with("checks.0.worst.abs", True), "checks[0].worst.abs: found true, expected"),
        (_with("diagnosis.component", "gremlins"), "'gremlins'"),
        (_with("diagnosis.evidence", "none"), 'diagnosis.evidence: found "none", expected a list'),
    ],
)
def test_what_is_not_as_the_contract_says_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    raw = json.loads(verdict().to_json())
    change(raw)
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(VerdictError) as caught:
        read_verdict(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'"text"', b"[" * 100_000])
def test_what_is_no_verdict_at_all_is_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "verdict.json"
    path.write_bytes(content)
    with pytest.raises(HarnessError, match=r"verdict\.json"):
        read_verdict(path)


def test_a_file_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(VerdictError, match="cannot be read"):
        read_verdict(tmp_path / "verdict.json")


def test_whole_numbers_of_a_check_stay_whole(tmp_path: Path) -> None:
    check = Check("state: step", None, "state", "present", passed=False, worst=Worst(8, 8, 4))
    verdict(checks=(check,)).write(tmp_path / "verdict.json")
    (read,) = read_verdict(tmp_path / "verdict.json").checks
    assert read.worst is not None
    assert repr((read.worst.expected, read.worst.actual)) == "(8, 4)"


def test_a_message_with_half_a_character_is_read_back(tmp_path: Path) -> None:
    verdict(reproduce="harness run \udcff").write(tmp_path / "verdict.json")
    assert read_verdict(tmp_path / "verdict.json").reproduce == "harness run \udcff"


def test_keys_of_a_newer_harness_are_passed_over_and_its_kinds_kept(tmp_path: Path) -> None:
    raw = json.loads(verdict().to_json()) | {"schema": 2}
    raw["checks"][1]["kind"] = "by-hash"
    raw["checks"][0]["weight"] = 3
    raw["checks"][0]["worst"]["rank"] = 3
    raw["diagnosis"]["confidence"] = 0.5
    (tmp_path / "verdict.json").write_text(json.dumps(raw))
    read = read_verdict(tmp_path / "verdict.json")
    assert [str(check.kind) for check in read.checks] == ["exact", "by-hash"]
    assert replace(read, checks=()) == verdict(checks=())


def test_run_coverage_and_candidates_come_back_from_the_file(tmp_path: Path) -> None:
    rule = AppliedRule("observed", "elapsed", "two uninterrupted runs differ in it", 2)
    whole = verdict(
        message="ended after 15 of 20",
        run=Run("f" * 32, "2026-11-27T00:00:00Z", "2026-11-27T00:01:00Z"),
        coverage=Coverage(Count(2), Count(9, 2), Count(4, 0, 1), (rule,)),
        diagnosis=Diagnosis(
            "unknown", ("k+1",), (Candidate("rng", ("a",), ("b", "c")), Candidate("buffers"))
        ),
    )
    path = tmp_path / "verdict.json"
    whole.write(path)
    assert read_verdict(path) == whole
    found = json.loads(path.read_text())
    assert found["diagnosis"]["candidates"][0] == {"component": "rng", "against": ["b", "c"], "for": ["a"]}
    assert found["coverage"]["copies"] == {"compared": 4, "excluded": 0, "uncompared": 1}
    assert found["coverage"]["rules"][0]["where"] == "observed"


@pytest.mark.parametrize(("status", "code"), [("refused", 2), ("skipped", 3)])
def test_a_cell_that_was_not_run_says_why_and_has_no_checks(status: str, code: int) -> None:
    found = verdict(status=status, checks=(), diagnosis=None, message="no golden can be read")
    assert (found.exit_code, found.passed) == (code, False)
    with pytest.raises(ValueError, match="a message that says why"):
        verdict(status=status, checks=(), diagnosis=None)
    with pytest.raises(ValueError, match="expected no checks"):
        verdict(status=status, diagnosis=None, message="why")


def test_a_ledger_is_one_sentence() -> None:
    rules = (
        AppliedRule("case", "a", "r", 2),
        AppliedRule("case", "b", "r", 1),
        AppliedRule("case", "c", "r", 0),
    )
    ledger = Coverage(Count(9), Count(1204, 3), Count(), rules)
    assert ledger.sentence() == "1,204 entries in 9 files compared, 3 excluded by 2 rules, 0 uncompared"
    ledger = Coverage(Count(1), Count(1, 0, 2), Count(1))
    assert ledger.sentence() == "1 entry in 1 file compared, with 1 copy, 0 excluded, 2 uncompared"
