"""harness/protocol/telling.py: one red can be told from another by its one clause."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.checks import Check
from harness.checks.result import Against, Kind
from harness.diagnosis import Diagnosis
from harness.errors import TrainerFailed
from harness.protocol.judge import NO_GOLDEN
from harness.protocol.telling import RECORDED, message_of
from harness.report.terminal import Terminal, render
from harness.verdict import Verdict


def check(name: str, against: Against, *, passed: bool, kind: Kind = "exact") -> Check:
    return Check(name, None, against, kind, passed)


SOUND = check("continuous: loss", "continuous", passed=True)
LOST = check("continuous: loss", "continuous", passed=False)
SAME, CHANGED = (check("golden: loss", "golden", passed=passed) for passed in (True, False))
NONE = check(NO_GOLDEN, "golden", passed=False, kind="present")
WRITTEN = check(RECORDED, "golden", passed=False, kind="present")
UNLOADED = check("resume: load iteration 5", "state", passed=False, kind="present")
SILENT = check("state: something to compare", "state", passed=False, kind="present")


@pytest.mark.parametrize(
    ("checks", "component", "said"),
    [
        ((SAME, SOUND), None, ""),
        ((NONE, SOUND), None, "no golden for this cell, resuming is sound"),
        ((NONE, LOST), "rng", "no golden for this cell, resuming lost rng"),
        ((NONE,), None, "no golden for this cell"),
        ((SAME, LOST), "lr-schedule", "resuming lost lr-schedule"),
        ((SAME, LOST), "unknown", "resuming does not continue the same training"),
        ((SAME, LOST), None, "resuming does not continue the same training"),
        ((SAME, LOST), "nondeterminism", "the same run twice is not the same"),
        ((CHANGED, SOUND), "weights", "training changed against the golden, resuming is sound"),
        ((CHANGED, LOST), "rng", "resuming lost rng, training changed against the golden"),
        ((CHANGED, SOUND), "performance", "it needs more time than it may, resuming is sound"),
        ((WRITTEN, SOUND), None, "golden recorded, resuming is sound"),
        ((WRITTEN, LOST), None, "golden not recorded, resuming does not continue the same training"),
        ((SAME, UNLOADED), "checkpoint", "the checkpoint could not be loaded"),
        ((SAME, UNLOADED), "optimizer", "the checkpoint could not be loaded: optimizer"),
        ((SAME, SILENT), "unknown", "not everything could be compared (state: something to compare)"),
    ],
)
def test_each_red_has_its_own_words(checks: tuple[Check, ...], component: str | None, said: str) -> None:
    diagnosis = Diagnosis(component, ()) if component else None
    assert message_of(checks, diagnosis) == said


def test_what_did_not_end_says_so() -> None:
    failed = TrainerFailed(phase="resumed", rank=1, reason="failed: ValueError: boom", log="a.log")
    said = "could not be run to its end: resumed: rank 1 failed: ValueError: boom"
    assert message_of((LOST,), Diagnosis("crash", ()), failed) == said


def test_the_last_line_of_a_run_and_the_first_of_a_test_say_it() -> None:
    checks, message = (NONE, SOUND), "no golden for this cell, resuming is sound"
    verdict = Verdict("cpu/dev/x", "failed", checks, None, {"total": 2.0}, {}, "harness run x", message)
    line = f"FAILED cpu/dev/x: {message}: golden 0/1, continuous 1/1 held, 2.0 s"
    stream = io.StringIO()
    Terminal(Console(file=stream, width=200)).verdict(verdict)
    assert stream.getvalue().splitlines()[-2:] == ["again: harness run x", line]
    assert render(verdict).splitlines()[0] == line
