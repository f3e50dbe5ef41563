"""What a verdict says to a person in a hurry: what broke, since which step, what was lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.diagnosis import COMPONENTS
from harness.protocol.judge import LOAD, NO_GOLDEN, NOT_LOGGED
from harness.text import count, one_line
from harness.verdict import NOT_RUN

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.verdict import Verdict


@dataclass(frozen=True)
class Headline:
    """What somebody in a hurry must know of a cell that is not green.

    Args:
        what: what broke.
        since: since which step.
        lost: which component, in words.
        command: how to see it on one's own machine.
        entry: which entry of the saved state says most of what was lost; empty where none is known.
    """

    what: str
    since: str
    lost: str
    command: str
    entry: str = ""

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """All but the command, each with its word."""
        entry = (("entry", self.entry),) if self.entry else ()
        return (("what", self.what), ("since", self.since), ("lost", self.lost), *entry)


def first_failure(verdict: Verdict) -> Check | None:
    """The failed check with the earliest step; a resumed run's before a golden's."""
    at = [check for check in verdict.failures if check.first_bad_step is not None]
    resume = [check for check in at if check.against != "golden"]
    curves = [check for check in resume if check.metric] or resume or at
    return min(curves, key=lambda check: check.first_bad_step or 0, default=None)


def resumed_after(verdict: Verdict) -> int | None:
    """k, where the verdict says it."""
    k = verdict.provenance.get("resumed_after")
    return k if type(k) is int else None


def headline(verdict: Verdict, k: int | None = None) -> Headline:
    """Say it in three lines.

    Args:
        k: the iteration of the checkpoint, to say how long after it the first bad step came.
    """
    entry = one_line(verdict.diagnosis.entry) if verdict.diagnosis else ""
    return Headline(_what(verdict), _since(verdict, k), _lost(verdict), one_line(verdict.reproduce), entry)


def _what(verdict: Verdict) -> str:
    if verdict.passed:
        return "everything held"
    if verdict.status in NOT_RUN:
        return one_line(f"{verdict.status}: {verdict.message}")
    evidence = verdict.diagnosis.evidence if verdict.diagnosis else ()
    if verdict.status == "error":
        return one_line(
            f"could not be run to its end: {evidence[0]}" if evidence else "could not be run to its end"
        )
    if not verdict.failures:
        return one_line(verdict.message) or "failed without a failed check"
    for check in verdict.failures:
        if check.name == NOT_LOGGED:
            return one_line(check.message.partition(" — ")[0])  # what to do is in the verdict
        if check.name.startswith(LOAD):
            return one_line(
                f"the checkpoint could not be loaded: {check.message.partition('; its log: ')[0]}"
            )
    against = {check.against for check in verdict.failures}
    resume = bool(against & {"continuous", "state"})
    if resume and "golden" not in against:
        return "resuming does not continue the same training"
    if resume:
        return (
            "resuming does not continue the same training; nor is the uninterrupted run what the golden says"
        )
    if any(check.name == NO_GOLDEN for check in verdict.failures):
        return "there is no golden to compare with" + ("; resuming is sound" if _sound(verdict) else "")
    if all(check.kind == "present" for check in verdict.failures):
        return one_line(verdict.failures[0].message or verdict.failures[0].name)
    if verdict.diagnosis and verdict.diagnosis.component in ("performance", "memory"):
        return "it needs more time or memory than its golden; the curves are the same"
    return "training is not what the golden recorded" + ("; resuming it is sound" if _sound(verdict) else "")


def _sound(verdict: Verdict) -> bool:
    """Whether resuming was compared with the uninterrupted run, and everything held."""
    resume = [check.passed for check in verdict.checks if check.against == "continuous"]
    return bool(resume) and all(check.passed for check in verdict.checks if check.against != "golden")


def _since(verdict: Verdict, k: int | None) -> str:
    check = first_failure(verdict)
    if check is None:
        if verdict.status == "error" or verdict.status in NOT_RUN:
            return "no step was judged"
        state = any(check.against == "state" for check in verdict.failures)
        return "no step of any curve: the saved state at the end differs" if state else "no step"
    step = check.first_bad_step or 0
    after = ""
    if k is not None and step > k and check.against != "golden":
        after = f", {count(step - k, 'step')} after the checkpoint of {k}"
    return one_line(f"step {step}{after} ({check.name})")


def _lost(verdict: Verdict) -> str:
    if verdict.diagnosis is None:
        return "nothing" if verdict.passed or _sound(verdict) else "not diagnosed"
    component = one_line(verdict.diagnosis.component)
    if verdict.diagnosis.candidates:
        return one_line(
            f"{component}; it may be {' or '.join(one.component for one in verdict.diagnosis.candidates)}"
        )
    return f"{component}: {COMPONENTS[component]}" if component in COMPONENTS else component
