"""Which comparison applies to a cell, and the checks that are no comparison of curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from harness.checks import Against, Check, Worst
from harness.checks.wording import OTHER_VALUE
from harness.errors import CheckpointError, HarnessError, MetricsError, TrainerFailed

if TYPE_CHECKING:
    from harness.diagnosis.trials import Trial
    from harness.goldens import Change, Golden
    from harness.protocol.plan import Options, Plan

Lane = Literal["exact", "tolerance", "envelope"]
#: The check that fails a cell without a golden.
NO_GOLDEN: Final = "golden: is there"
#: The check that fails a cell of which there are no curves.
NOT_LOGGED: Final = "metrics: can be read"
#: How the check begins that fails where a resumed phase could not load its checkpoint.
LOAD: Final = "resume: load iteration"
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


def not_loaded(k: int, error: CheckpointError | TrainerFailed) -> Check:
    """The resumed phase ended because it could not load its checkpoint."""
    said = _crashed(error) if isinstance(error, TrainerFailed) else str(error)
    return present(f"{LOAD} {k}", "state", passed=False, message=said)


def not_ended(error: TrainerFailed) -> Check:
    """A phase that could not be run to its end."""
    name = f"{error.phase}: runs to its end"
    return present(name, "continuous", passed=False, message=_crashed(error))


def _crashed(error: TrainerFailed) -> str:
    where = [said for said in error.evidence if said.startswith("raised in ")]
    log = [f"its log: {error.log}"] if error.log else []
    return "; ".join([error.message, *where, *log])


def not_whole(iteration: int, error: CheckpointError) -> Check:
    """A phase has left a checkpoint that cannot be read to its end, or none."""
    return present(f"state: checkpoint of iteration {iteration}", "state", passed=False, message=str(error))


def not_probed(error: HarnessError) -> Check:
    """The loaded state could not be saved again, and nothing else tells whether it was loaded."""
    said = f"the state as it was loaded could not be compared: {error.message}"
    return present("loaded state: compared", "state", passed=False, message=said)


def not_logged(error: MetricsError) -> Check:
    """A phase has ended well, and what it logged is not there or cannot be read."""
    return present(NOT_LOGGED, "continuous", passed=False, message=str(error))


def no_curve(checks: Sequence[Check]) -> Check:
    """Whatever else was compared, no curve of training was."""
    seen = ", ".join(sorted({check.metric for check in checks if check.metric is not None})) or "none"
    said = f"no curve of training was compared (metrics: {seen}): log the loss of every step"
    return present("continuous: a curve of training", "continuous", passed=False, message=said)


def no_state() -> Check:
    """Nothing of the saved state was compared."""
    said = "no entry of the saved state was compared: whether it was all taken up, nobody knows"
    return present("state: compared", "state", passed=False, message=said)


def trains_from(trial: Trial, k: int) -> Check:
    """What is logged after ``k`` depends on what was saved there."""
    what = f"all {len(trial.names)} entries that training changes" if len(trial.names) > 1 else trial.names[0]
    seen = trial.seen if trial.taken_up else "nothing comes out otherwise: it trains from something else"
    return present(
        "resume: it trains from the checkpoint",
        "state",
        passed=bool(trial.taken_up),
        message=f"{what} altered in a copy of the checkpoint of {k}, and resumed from it: {seen}",
    )


def nothing_resumed(at: int, options: Options) -> Check:
    """A kill that has cost nothing says nothing of resuming."""
    said = (
        f"the checkpoint of iteration {at}, the last one, was complete when rank {options.crash_rank} was "
        f"killed ({options.crash_at}): nothing was resumed; take a rank that writes the tracker, or another "
        "moment"
    )
    return present("crash: resumed", "continuous", passed=False, message=said)


def same_end(continuous: int, resumed: int, n: int, *, named: bool) -> Check:
    """Both runs must end at N; or at the same iteration before it, of their own accord, and say so.

    Args:
        continuous, resumed: the iterations that they came to.
        named: the checkpoints that they left say that they are of these.
    """
    name = f"resume: came to iteration {n}"
    if continuous == resumed == n:
        return present(name, "continuous", passed=True, message=f"both runs came to iteration {n}")
    worst = Worst(min(continuous, resumed), continuous, resumed)
    if continuous != resumed:
        said = f"the resumed run ended after {resumed} of {n}, the uninterrupted one after {continuous}"
        return present(name, "continuous", passed=False, message=said, worst=worst)
    said = f"both runs ended after {continuous} of {n}"
    if named:
        said += ", of their own accord; compared up to there"
        return present(name, "continuous", passed=True, message=said)
    said += ", and the checkpoint that they leave does not say of which iteration it is"
    return present(name, "continuous", passed=False, message=said, worst=worst)


# -- against the golden ------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """How a run is compared with a golden.

    Args:
        lane: which comparison of curves.
        why: one sentence that names the golden and says why not exactly, where it is not.
        same_machine: the golden was recorded on such a device, with libraries of this size, so its times and
            memory mean something.
        state: the state at N is compared too, by its digests.
        subject: in what the golden was recorded of another training, a sentence each.
        rounding: the precision of the model, where nothing but the rounding of operations differs.
    """

    lane: Lane
    why: str
    same_machine: bool
    state: bool = False
    subject: tuple[str, ...] = ()
    rounding: str = ""

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
    from harness.goldens.fingerprints import NUMERICS, RANDOM

    recorded = golden.fingerprint
    found = apart(recorded, fingerprint)
    others = (*found.subject, *subject_apart(golden.subject, subject)) if recorded else ()
    same = bool(recorded) and recorded.get("device") == fingerprint.get("device") and not found.costs
    lane: Lane = "envelope" if golden.statistics else "tolerance"
    rounding = ""
    if golden.fallback:
        reason = "it is its track's, not this platform's own"
    elif not recorded:
        reason = f"nobody knows what it was recorded on ({golden.provenance.get('how', 'no provenance')})"
    elif not deterministic:
        reason = "the case is not deterministic"
    elif found.environment:
        reason = f"the environments differ: {'; '.join(found.environment)}"
        lane = "tolerance"  # repeats on another machine say nothing of this one's bits
        if found.operations and RANDOM not in found.operations:
            rounding = str(fingerprint.get("precision", ""))
    else:
        measured = bool(recorded.get(NUMERICS)) and bool(fingerprint.get(NUMERICS))
        said = f"{golden.path}: compared bit for bit, same {'numerics' if measured else 'environment'}"
        costs = (cost for cost in found.costs if cost.split()[0] in recorded)
        if noted := (*found.names, *found.versions, *costs):
            said += f" ({'; '.join(noted)})"
        if not golden.has_state:
            said += "; it has no state digests, so only curves are compared with it"
        return Comparison("exact", said, same_machine=same, state=golden.has_state, subject=others)
    by = "by the envelope of its repeats" if lane == "envelope" else "by tolerance"
    why = f"{golden.path}: compared {by}: {reason}"
    return Comparison(lane, why, same, subject=others, rounding=rounding)


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


@dataclass(frozen=True)
class GoldenState:
    """A saved state beside its golden's digests.

    Args:
        checks: one a component.
        alike: no plain value is another one either.
    """

    checks: tuple[Check, ...]
    alike: bool


def golden_state(
    golden: Golden, digests: Mapping[str, str], values: Mapping[str, Mapping[str, str]], *, resumed: bool
) -> GoldenState:
    """The saved state at N against the digests of the golden, component by component.

    A plain value that is another one than recorded is noted: where every bit of all else is the same, and
    nothing was resumed between that run and this one, it is the time, the host, the job.

    Args:
        digests, values: of the state, as in :class:`harness.checkpoints.fingerprints.Fingerprint`.
        resumed: it is a resumed run's.
    """
    checks, noted = [], False
    recorded = golden.state_of(resumed=resumed)
    for component in sorted({*recorded, *golden.values, *digests, *values} if golden.has_state else ()):
        expected, actual = recorded.get(component), digests.get(component)
        same = actual == expected
        there = "other bits than recorded" if expected and actual else "is not there"
        said = "the same bits" if same else there if expected else "was not there when it was recorded"
        worst = None if same else Worst(None, (expected or "none")[:12], (actual or "none")[:12])
        then, now = golden.values.get(component, {}), values.get(component, {})
        others = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
        if others:
            noted = True
            more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
            said += f"; {OTHER_VALUE}: {', '.join(others[:_SHOWN])}{more}"
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
    return GoldenState(tuple(checks), alike=not noted)


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
