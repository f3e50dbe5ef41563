"""Which comparison applies to a cell, and the checks that are no comparison of curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from harness.checks import Against, Check, Worst
from harness.errors import CheckpointError, HarnessError

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff, TensorDiff
    from harness.goldens import Change, Golden
    from harness.protocol.plan import Options, Plan

Lane = Literal["exact", "tolerance", "envelope"]
#: The check that fails a cell without a golden.
NO_GOLDEN: Final = "golden: is there"
#: How many times as far apart as two uninterrupted runs floats may be; the distance of a few elements varies.
_FAR, _MANY = 4.0, 16
_SHOWN = 3  # names and sentences; the rest is in state_diff.json


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
    """The loaded state could not be saved again, and nothing else tells whether it was loaded."""
    said = f"the state as it was loaded could not be compared: {error.message}"
    return present("loaded state: compared", "state", passed=False, message=said)


def no_curve(checks: Sequence[Check]) -> Check:
    """Whatever else was compared, no curve of training was."""
    seen = ", ".join(sorted({check.metric for check in checks if check.metric is not None})) or "none"
    said = f"no curve of training was compared (metrics: {seen}): log the loss of every step"
    return present("continuous: a curve of training", "continuous", passed=False, message=said)


def no_state() -> Check:
    """Nothing of the saved state was compared."""
    said = "no entry of the saved state was compared: whether it was all taken up, nobody knows"
    return present("state: compared", "state", passed=False, message=said)


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


def never_the_same(rest: Sequence[TensorDiff], iteration: int) -> list[Check]:
    """What two runs that were not resumed have in their states, and must share."""
    return [
        Check(
            name=f"interrupted: state: {component}",
            metric=None,
            against="continuous",
            kind="exact",
            passed=False,
            first_bad_step=iteration,
            worst=Worst(iteration, found[0].a, found[0].b, found[0].max_abs, found[0].max_rel),
            message=f"two runs from 0 to {iteration}, neither of them resumed: {_listed(found)}",
        )
        for component, found in sorted(_by_component(rest).items())
    ]


# -- against the golden ------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """How a run is compared with a golden.

    Args:
        lane: which comparison of curves.
        why: one sentence that names the golden and says why not exactly, where it is not.
        same_machine: the golden was recorded on such a device, so its times and memory mean something.
    """

    lane: Lane
    why: str
    same_machine: bool


def how(golden: Golden, fingerprint: Mapping[str, Any], *, deterministic: bool) -> Comparison:
    """The lane in which a run with ``fingerprint`` is compared with ``golden``."""
    recorded = golden.fingerprint
    apart = [
        f"{key} {recorded.get(key)!r} there, {fingerprint.get(key)!r} here"
        for key in sorted({*recorded, *fingerprint})
        if recorded.get(key) != fingerprint.get(key)
    ]
    same = bool(recorded) and recorded.get("device") == fingerprint.get("device")
    lane: Lane = "envelope" if golden.statistics else "tolerance"
    if golden.fallback:
        reason = "it is its track's, not this platform's own"
    elif not recorded:
        reason = f"nobody knows what it was recorded on ({golden.provenance.get('how', 'no provenance')})"
    elif not deterministic:
        reason = "the case is not deterministic"
    elif apart:
        reason = f"the fingerprints differ: {'; '.join(apart)}"
        lane = "tolerance"  # repeats on another machine say nothing of this one's bits
    else:
        said = f"{golden.path}: compared bit for bit, same fingerprint"
        return Comparison("exact", said, same_machine=True)
    by = "by the envelope of its repeats" if lane == "envelope" else "by tolerance"
    return Comparison(lane, f"{golden.path}: compared {by}: {reason}", same)


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
    golden: Golden, digests: Mapping[str, str], values: Mapping[str, Mapping[str, str]]
) -> GoldenState:
    """The saved state at N against the digests of the golden, component by component.

    A plain value that is another one than recorded is noted: where every bit of all else is the same, and
    nothing was resumed between that run and this one, it is the time, the host, the job.

    Args:
        digests, values: of the state, as in :class:`harness.checkpoints.fingerprints.Fingerprint`.
    """
    checks, noted = [], False
    for component in sorted({*golden.state, *golden.values, *digests, *values} if golden.state else ()):
        expected, actual = golden.state.get(component), digests.get(component)
        same = actual == expected
        there = "other bits than recorded" if expected and actual else "is not there"
        said = "the same bits" if same else there if expected else "was not there when it was recorded"
        worst = None if same else Worst(None, (expected or "none")[:12], (actual or "none")[:12])
        then, now = golden.values.get(component, {}), values.get(component, {})
        others = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
        if others:
            noted = True
            more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
            said += f"; another value than recorded: {', '.join(others[:_SHOWN])}{more}"
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


# -- saved state -------------------------------------------------------------------------------


def saved_state(
    difference: StateDiff, components: Sequence[str], n: int, *, name: str = "state"
) -> list[Check]:
    """One check a component, from the diff of two checkpoints."""
    groups = difference.by_component()
    checks = []
    for component in sorted({*components, *groups}):
        found = groups.get(component, ())
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
                message=_listed(found) or f"{component}: every bit is the same",
            )
        )
    if not difference.compared:
        message = f"{difference.a} and {difference.b} hold nothing that could be compared"
        checks.append(present(f"{name}: something to compare", "state", passed=False, message=message))
    if missed := difference.coverage.uncompared:
        message = f"{missed} of the two states were not compared: {difference.coverage.sentence()}"
        checks.append(present(f"{name}: all of it is compared", "state", passed=False, message=message))
    lacking = {gap.sentence: gap for gap in (*difference.gaps_a, *difference.gaps_b)}
    for sentence, gap in lacking.items():
        checks.append(present(f"{name}: {gap.component} is saved", "state", passed=False, message=sentence))
    return checks


def state_by_distance(
    difference: StateDiff,
    yardstick: StateDiff,
    found: Mapping[str, float],
    usual: Mapping[str, float],
    n: int,
) -> list[Check]:
    """One check a component, of training that does not repeat its own bits.

    Args:
        difference: of the resumed run's state and the uninterrupted one's.
        yardstick: of two uninterrupted runs' states.
        found, usual: how far floats are apart in either, relative, by name.
    """
    checks = []
    allowed = _allowed(yardstick, usual)
    groups = difference.by_component()
    for component in sorted({*groups, *yardstick.by_component()}):
        bad = []
        for entry in groups.get(component, ()):
            apart, limit = found.get(entry.name), allowed(entry)
            if apart is None or limit is None:
                bad.append(entry.sentence())
            elif apart > limit:
                bad.append(
                    f"{entry.name}: {apart:.3g} away, where two uninterrupted runs are {limit / _FAR:.3g}"
                )
        said = "; ".join(bad[:_SHOWN]) + (f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else "")
        checks.append(
            Check(
                name=f"state: {component}",
                metric=None,
                against="state",
                kind="tolerance",
                passed=not bad,
                first_bad_step=n if bad else None,
                message=said or f"{component}: no further apart than two uninterrupted runs are",
            )
        )
    if not difference.compared:
        message = f"{difference.a} and {difference.b} hold nothing that could be compared"
        checks.append(present("state: something to compare", "state", passed=False, message=message))
    elif not checks:
        message = "every bit is the same, though the case is not deterministic"
        checks.append(present("state: compared", "state", passed=True, message=message))
    return checks


def _allowed(yardstick: StateDiff, usual: Mapping[str, float]) -> Callable[[TensorDiff], float | None]:
    """How far a float may be off; None for what two uninterrupted runs share bit for bit."""
    typical: dict[str, list[float]] = {}
    for entry in yardstick.entries:
        if entry.name in usual and entry.elements >= _MANY:
            typical.setdefault(entry.component, []).append(usual[entry.name])
    middle = {component: sorted(values)[len(values) // 2] for component, values in typical.items()}

    def limit(entry: TensorDiff) -> float | None:
        if entry.name not in usual:
            return None
        few = 1 if entry.elements >= _MANY else _FAR
        return _FAR * few * max(usual[entry.name], middle.get(entry.component, 0.0))

    return limit


def _by_component(entries: Sequence[TensorDiff]) -> dict[str, list[TensorDiff]]:
    found: dict[str, list[TensorDiff]] = {}
    for entry in entries:
        found.setdefault(entry.component, []).append(entry)
    return found


def _listed(found: Sequence[TensorDiff]) -> str:
    said = [entry.sentence() for entry in found[:_SHOWN]]
    return "; ".join([*said, *([f"and {len(found) - len(said)} more"] if len(found) > len(said) else [])])


# -- recording ---------------------------------------------------------------------------------


def golden_refused(unsound: Sequence[Check]) -> Check:
    """Nothing is recorded of a run that cannot be resumed."""
    names = ", ".join(check.name for check in unsound[:_SHOWN])
    return present(
        "golden: recorded",
        "golden",
        passed=False,
        message=f"not recorded: {len(unsound)} checks failed ({names}); a golden comes of a sound run",
    )


def golden_recorded(change: Change) -> Check:
    """Recording never passes for a test."""
    return present(
        "golden: recorded",
        "golden",
        passed=False,
        message=f"{change.sentence()} (this fails, so that an update cannot pass for a test)",
    )
