"""Which comparison applies to a cell, and the checks that are no comparison of curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from harness.checks import Against, Check, Worst
from harness.errors import CheckpointError, HarnessError, UsageError

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff
    from harness.goldens import Change, Golden
    from harness.metrics import Series
    from harness.protocol.plan import Plan

Lane = Literal["exact", "tolerance", "envelope"]
#: The check that fails a cell without a golden.
NO_GOLDEN: Final = "golden: is there"
_SHOWN = 3  # names and sentences; the rest is in state_diff.json
_MORE_SHOWN = 8  # of what differs from the golden's; the rest is in verdict.json's provenance


def present(name: str, against: Against, *, passed: bool, message: str, worst: Worst | None = None) -> Check:
    """A check that something is there, or happened at all."""
    step = worst.step if worst and not passed else None
    return Check(name, None, against, "present", passed, step, worst, message)


# -- saving and resuming -----------------------------------------------------------------------


def tracker_names(stop: int, save: Path, phase: str) -> Check:
    """A phase must leave a tracker that names its last iteration, or the next one starts elsewhere."""
    from harness.checkpoints import latest

    name = f"{phase}: tracker names iteration {stop}"
    try:
        found = latest(save)
    except CheckpointError as error:
        return present(name, "state", passed=False, message=str(error))
    if found is None:
        said = f"there is no tracker in {save}: a resumed run would start at 0"
        return present(name, "state", passed=False, message=said)
    message = f"the tracker in {save} names iteration {found}"
    return present(name, "state", passed=found == stop, message=message, worst=Worst(stop, stop, found))


def not_loaded(k: int, error: CheckpointError) -> Check:
    """The resumed phase ended because it could not read its checkpoint."""
    return present(f"resume: load iteration {k}", "state", passed=False, message=str(error))


def not_whole(iteration: int, error: CheckpointError) -> Check:
    """A phase has left a checkpoint that cannot be read to its end, or none."""
    return present(f"state: checkpoint of iteration {iteration}", "state", passed=False, message=str(error))


def not_probed(error: HarnessError) -> Check:
    """The loaded state could not be saved again: a trainer that cannot is said, one that fails fails."""
    said = f"the state as it was loaded could not be compared: {error.message}"
    return present("loaded state: compared", "state", passed=isinstance(error, UsageError), message=said)


def resumed_there(k: int, series: Mapping[str, Series], reference: Mapping[str, Series]) -> Check:
    """The resumed run must go on after k: one that starts at 1 has loaded nothing.

    Args:
        reference: what an uninterrupted run logs; not every trainer logs every step.
    """
    later = [int(line.steps[line.steps > k].min()) for line in reference.values() if (line.steps > k).any()]
    expected = min(later, default=k + 1)
    name = f"resume: first step is {expected}"
    first = min((int(line.steps.min()) for line in series.values() if line.steps.size), default=None)
    if first is None:
        return present(name, "continuous", passed=False, message="the resumed run logged nothing")
    if first == expected:
        return present(name, "continuous", passed=True, message=f"it went on at step {first}")
    message = f"it went on at step {first}, expected {expected}"
    if first <= 1:
        message += ": the checkpoint was not loaded, training started again"
    return present(name, "continuous", passed=False, message=message, worst=Worst(first, expected, first))


# -- against the golden ------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """How a run is compared with a golden.

    Args:
        lane: which comparison of curves.
        why: one sentence that names the golden and says why not exactly, where it is not.
        same_machine: the golden was recorded on such a device, so its times and memory mean something.
        state: the state at N is compared too, by its digests.
        subject: in what the golden was recorded of another training, a sentence each.
    """

    lane: Lane
    why: str
    same_machine: bool
    state: bool = False
    subject: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Everything is compared bit for bit, the state too."""
        return self.lane == "exact" and self.state


def how(
    golden: Golden,
    fingerprint: Mapping[str, Any],
    subject: Mapping[str, Mapping[str, Any]],
    *,
    deterministic: bool,
) -> Comparison:
    """The lane in which a run is compared with ``golden``: its environment chooses, and nothing else.

    Args:
        fingerprint: of the run.
        subject: arguments and variables of its case.
    """
    from harness.goldens import apart, subject_apart

    recorded = golden.fingerprint
    found = apart(recorded, fingerprint)
    others = (*found.subject, *subject_apart(golden.subject, subject)) if recorded else ()
    same = bool(recorded) and recorded.get("device") == fingerprint.get("device")
    lane: Lane = "envelope" if golden.statistics else "tolerance"
    if golden.fallback:
        reason = "it is its track's, not this platform's own"
    elif not recorded:
        reason = f"nobody knows what it was recorded on ({golden.provenance.get('how', 'no provenance')})"
    elif not deterministic:
        reason = "the case is not deterministic"
    elif found.environment:
        reason = f"the environments differ: {'; '.join(found.environment)}"
        lane = "tolerance"  # repeats on another machine say nothing of this one's bits
    else:
        said = f"{golden.path}: compared bit for bit, same environment"
        if found.versions:
            said += f" ({'; '.join(found.versions)})"
        if not golden.state:
            said += "; it has no state digests, so only curves are compared with it"
        return Comparison("exact", said, same_machine=True, state=bool(golden.state), subject=others)
    by = "by the envelope of its repeats" if lane == "envelope" else "by tolerance"
    return Comparison(lane, f"{golden.path}: compared {by}: {reason}", same, subject=others)


def another_subject(subject: Sequence[str], plan: Plan) -> Check:
    """The golden is another training's: that is a finding, and no reason to look less closely."""
    said = "; ".join(subject[:_MORE_SHOWN])
    more = len(subject) - _MORE_SHOWN
    return present(
        "golden: subject",
        "golden",
        passed=False,
        message=f"it is another training's: {said}{f'; and {more} more' if more > 0 else ''}; "
        f"record it anew if you mean it: {plan.record_command}",
    )


def no_golden(plan: Plan) -> Check:
    """A cell without a golden is red until somebody has looked at one and approved it."""
    from harness.goldens import file_name

    path = plan.goldens / plan.case.name / file_name(plan.cell.track, plan.platform)
    return present(
        NO_GOLDEN,
        "golden",
        passed=False,
        message=f"there is no golden for this cell ({path}); to record one: {plan.record_command}",
    )


def golden_state(golden: Golden, digests: Mapping[str, str]) -> list[Check]:
    """The saved state at N against the digests of the golden, component by component."""
    checks = []
    for component in sorted({*golden.state, *digests} if golden.state else ()):
        expected, actual = golden.state.get(component), digests.get(component)
        same = actual == expected
        there = "other bits than recorded" if expected and actual else "is not there"
        said = "the same bits" if same else there if expected else "was not there when it was recorded"
        worst = None if same else Worst(None, (expected or "none")[:12], (actual or "none")[:12])
        checks.append(
            Check(
                name=f"golden: state: {component}",
                metric=None,
                against="golden",
                kind="exact",
                passed=same,
                worst=worst,
                message=f"{component}: {said}",
            )
        )
    return checks


# -- saved state -------------------------------------------------------------------------------


def saved_state(
    difference: StateDiff, components: Sequence[str], n: int, *, name: str = "state"
) -> list[Check]:
    """One check a component, from the diff of two checkpoints."""
    groups = difference.by_component()
    checks = []
    for component in sorted({*components, *groups}):
        found = groups.get(component, ())
        said = [entry.sentence() for entry in found[:_SHOWN]]
        if more := len(found) - len(said):
            said.append(f"and {more} more")
        worst = None
        if found:
            entry = max(found, key=lambda one: one.max_abs or 0.0)
            worst = Worst(n, entry.a, entry.b, entry.max_abs, entry.max_rel)
        checks.append(
            Check(
                name=f"{name}: {component}",
                metric=None,
                against="state",
                kind="exact",
                passed=not found,
                first_bad_step=n if found else None,
                worst=worst,
                message="; ".join(said) or f"{component}: every bit is the same",
            )
        )
    if not difference.compared:
        message = f"{difference.a} and {difference.b} hold nothing that could be compared"
        checks.append(present(f"{name}: something to compare", "state", passed=False, message=message))
    lacking = {gap.sentence: gap for gap in (*difference.gaps_a, *difference.gaps_b)}
    for sentence, gap in lacking.items():
        checks.append(present(f"{name}: {gap.component} is saved", "state", passed=False, message=sentence))
    return checks


# -- recording ---------------------------------------------------------------------------------


def golden_refused(unsound: Sequence[Check]) -> Check:
    """Nothing is recorded of a run that cannot be resumed."""
    names = ", ".join(check.name for check in unsound[:_SHOWN])
    return not_recorded(f"{len(unsound)} checks failed ({names}); a golden comes of a sound run")


def not_recorded(why: str) -> Check:
    """The golden is what it was."""
    return present("golden: recorded", "golden", passed=False, message=f"not recorded: {why}")


def unfit(problems: Sequence[str], plan: Plan) -> str:
    """What no golden may hold, and what to do."""
    said = "; ".join(problems[:_SHOWN])
    more = len(problems) - _SHOWN
    advice = "" if plan.case.metrics else "; METRICS in the case file names those that are to be compared"
    return f"{said}{f'; and {more} more' if more > 0 else ''}{advice}"


def golden_recorded(change: Change) -> Check:
    """Recording never passes for a test."""
    return present(
        "golden: recorded",
        "golden",
        passed=False,
        message=f"{change.sentence()} (this fails, so that an update cannot pass for a test)",
    )
