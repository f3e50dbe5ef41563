"""What there is to say of a finished run in one clause: who only sees that it is red must see which red."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from harness.protocol.judge import LOAD, NO_GOLDEN, NOT_LOGGED

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.diagnosis import Diagnosis
    from harness.errors import HarnessError

RECORDED: Final = "golden: recorded"
#: Components that are no state which resuming could lose.
_NOT_STATE: Final = {
    "nondeterminism": "the same run twice is not the same",
    "crash": "a phase could not be run to its end",
    "performance": "it needs more time than it may",
    "memory": "it needs more memory than it may",
    "unknown": "resuming does not continue the same training",
}


def message_of(
    checks: Sequence[Check], diagnosis: Diagnosis | None, failure: HarnessError | None = None
) -> str:
    """What tells this red from another; empty where everything held.

    Args:
        failure: what kept it from being run to its end; None where nothing did.
    """
    if failure is not None:
        return f"could not be run to its end: {failure.message}"
    failed = [check for check in checks if not check.passed]
    golden = {check.name for check in failed if check.against == "golden"}
    resume = [check for check in failed if check.against != "golden"]
    parts = [_resume(resume, diagnosis)] if resume else []
    if RECORDED in golden:
        # Of a sound run only; otherwise something else has failed too.
        parts.insert(0, "golden recorded" if len(failed) == 1 else "golden not recorded")
    elif NO_GOLDEN in golden:
        parts.insert(0, "no golden for this cell")
    elif golden:
        parts.append(_against_golden(None if resume else diagnosis))
    if golden and not resume and any(check.against in ("continuous", "state") for check in checks):
        parts.append("resuming is sound")
    return ", ".join(parts)


def _resume(failed: Sequence[Check], diagnosis: Diagnosis | None) -> str:
    if any(check.name.startswith(LOAD) for check in failed):
        what = diagnosis.component if diagnosis is not None else "checkpoint"
        return "the checkpoint could not be loaded" + ("" if what == "checkpoint" else f": {what}")
    if diagnosis is not None and diagnosis.component not in _NOT_STATE:
        return f"resuming lost {diagnosis.component}"
    if any(check.name == NOT_LOGGED for check in failed):
        return "what was logged cannot be read, or nothing was"
    if all(check.kind == "present" for check in failed):
        return f"not everything could be compared ({failed[0].name})"
    return _NOT_STATE[diagnosis.component if diagnosis else "unknown"]


def _against_golden(diagnosis: Diagnosis | None) -> str:
    if diagnosis is not None and diagnosis.component in ("performance", "memory"):
        return _NOT_STATE[diagnosis.component]
    return "training changed against the golden"
