"""What a verdict says to a person: what broke, since which step, what was lost."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.protocol.verdict import Verdict

#: Said after "lost:".
COMPONENTS: Final = {
    "weights": "the model's weights",
    "optimizer": "the optimizer's state: moments, step counts or master weights",
    "lr-schedule": "the position of the learning-rate schedule",
    "rng": "a random number stream",
    "data-order": "the place in the data",
    "grad-scaler": "the loss scale of the gradient scaler",
    "experts": "experts, or their router",
    "embedding": "the embedding, or the head tied to it",
    "buffers": "buffers: state that is neither weight nor optimizer",
    "iteration": "the iteration count",
    "checkpoint": "the checkpoint itself: missing, torn, or not the one that the tracker names",
    "performance": "speed",
    "memory": "memory",
    "nondeterminism": "nothing for certain: the same run does not repeat its own bits",
    "crash": "the run: a rank died or hung",
    "unknown": "something that the evidence does not name",
}
#: The check that fails a cell without a golden.
NO_GOLDEN: Final = "golden: is there"
#: How a cell ended: a verdict's status, or why there is none.
State = Literal["passed", "failed", "error", "unreadable", "missing", "unfinished"]
STATES: Final[dict[State, str]] = {
    "passed": "passed", "failed": "failed", "error": "error", "unreadable": "unreadable",
    "missing": "no verdict", "unfinished": "not finished",
}  # fmt: skip
#: Nothing is told by colour alone.
SIGNS: Final[dict[State, str]] = {
    "passed": "✓", "failed": "✗", "error": "!", "unreadable": "?", "missing": "?", "unfinished": "…",
}  # fmt: skip
#: Control characters, surrogates and direction overrides: they would rewrite the screen around them.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


@dataclass(frozen=True)
class Headline:
    """What somebody in a hurry must know of a cell that is not green.

    Args:
        what: what broke.
        since: since which step.
        lost: which component, in words.
        command: how to see it on one's own machine.
    """

    what: str
    since: str
    lost: str
    command: str


def printable(text: object) -> str:
    """Untrusted text that can do nothing to a terminal or a page: what is hidden is spelled out."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), str(text))


def one_line(text: object) -> str:
    """The same, without line ends."""
    return " ".join(printable(text).split())


def duration(seconds: float) -> str:
    """``0.4 s``, ``13.7 s``, ``2 min 5 s``, ``1 h 40 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(amount: float) -> str:
    """``512 B``, ``1.1 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def short(value: float) -> str:
    """A number for a narrow column; exact ones stand elsewhere."""
    return f"{value:.5g}"


def exact(value: float | str | None) -> str:
    """A value of a check, all its digits; empty for none."""
    return "" if value is None else printable(value)


def count(number: int, noun: str) -> str:
    """``1 step``, ``3 steps``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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
    return Headline(_what(verdict), _since(verdict, k), _lost(verdict), one_line(verdict.reproduce))


def _what(verdict: Verdict) -> str:
    if verdict.passed:
        return "everything held"
    evidence = verdict.diagnosis.evidence if verdict.diagnosis else ()
    if verdict.status == "error":
        return one_line(
            f"could not be run to its end: {evidence[0]}" if evidence else "could not be run to its end"
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
        if verdict.status == "error":
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
    return f"{component}: {COMPONENTS[component]}" if component in COMPONENTS else component
