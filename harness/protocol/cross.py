"""Saved by one, resumed by another: tracks, or parallel layouts, each with each.

Every side trains from 0 to N once. For each pair the checkpoint of k that one side has saved is loaded by
the other one, saved again at once (the state, bit for bit after gathering), and resumed to N: its curve is
held against the uninterrupted run of the side that saved, which it goes on from. How far it may be off was
measured in the same run (:mod:`harness.checks.measured`).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from harness.checkpoints.components import is_per_rank
from harness.errors import HarnessError, TrainerFailed
from harness.launch.launcher import Launcher, Outcome
from harness.protocol import judge
from harness.protocol.findings import NotResumed, Probed, Recorded, SavedState
from harness.protocol.observer import Observer
from harness.protocol.phases import Phases
from harness.protocol.refusal import sentence
from harness.protocol.relative import Relative
from harness.protocol.results import ResultsFolder
from harness.protocol.steps import Steps
from harness.trainers.base import Launch

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from harness.checkpoints.rules import Rule
    from harness.checks import Check
    from harness.checks.measured import Measured
    from harness.protocol.plan import Plan


@dataclass(frozen=True)
class Side:
    """One that saves and resumes.

    Args:
        axis: ``track`` or ``layout``.
        name: of the track, or of the layout.
        plan: its cell, in its layout.
        layout: the name of that; two sides of one track and one layout are one.
        python: of its track's environment; empty: this process's own.
    """

    axis: str
    name: str
    plan: Plan
    layout: str
    python: str = ""

    @property
    def key(self) -> str:
        """Of its own run."""
        return f"{self.plan.cell.track}-{self.layout}"


@dataclass(frozen=True)
class Trained:
    """A side that has trained from 0 to N.

    Args:
        continuous: never stopped.
        source: whose checkpoint of k is resumed from: the same run, or one that was stopped at k.
        fingerprint: what decided its bits.
        circumstances: what of its states no two of its runs share.
    """

    continuous: Recorded
    source: Recorded
    fingerprint: Mapping[str, Any]
    circumstances: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Pair:
    """What became of one pair.

    Args:
        saved_by, resumed_by: names of sides.
        result: ``exact``: bit for bit; ``within``: as far off as measured numerics allow; ``cannot``; or
            ``error`` where one of them does not even train.
        component: what is not taken up, or what is other than bit for bit; empty for ``exact``.
        why: a sentence.
        state: of the state as it was loaded, a sentence.
        curves: by metric.
        loaded: whether it was; if not, the trainer has said that it cannot.
    """

    axis: str
    saved_by: str
    resumed_by: str
    result: str
    component: str = ""
    why: str = ""
    state: str = ""
    curves: tuple[Measured, ...] = ()
    seconds: float = 0.0
    loaded: bool = True

    @property
    def lost(self) -> bool:
        """Whether it was loaded, and lost something without a word."""
        return self.result == "cannot" and self.loaded

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "curves": [asdict(one) for one in self.curves]}


class Elsewhere(Launcher):
    """A launcher in another environment.

    Args:
        python: that environment's; empty: this one's.
    """

    def __init__(self, python: str) -> None:
        super().__init__()
        self._python = python

    def run(self, launch: Launch, **how: Any) -> Outcome:
        """As :meth:`Launcher.run`."""
        return super().run(launch.under(self._python) if self._python else launch, **how)


class _Steps(Steps):
    """The steps of a side whose own run there is already."""

    def __init__(self, phases: Phases, never_stopped: Trained | None) -> None:
        super().__init__(phases)
        if never_stopped is not None:
            self._uninterrupted = never_stopped.continuous
            self.states.observed = never_stopped.circumstances


class Cross:
    """Trains sides and crosses them; a context manager: no process outlives it.

    Args:
        folder: gets a folder a side, and one a pair.
        observer: told of the progress.
        devices: set in the environment of every rank.
    """

    def __init__(self, folder: Path, observer: Observer, devices: Mapping[str, str]) -> None:
        self.folder, self.observer, self._devices = folder, observer, devices
        self._launchers: dict[str, Launcher] = {}
        self._trained: dict[str, Trained | str] = {}

    def __enter__(self) -> Cross:
        return self

    def __exit__(self, *_: object) -> None:
        for launcher in self._launchers.values():
            launcher.close()

    def run(self, sides: Sequence[Side], told: Callable[[Pair], object]) -> list[Pair]:
        """Every ordered pair of sides that share an axis.

        Args:
            told: of each pair when it is done.
        """
        found = []
        for one, two in pairs_of(sides):
            pair = self.cross(one, two)
            told(pair)
            found.append(pair)
        return found

    def trained(self, side: Side) -> Trained | str:
        """A side's own run, or what kept it from training; run once."""
        if side.key not in self._trained:
            self.observer.note(f"{side.key}: {side.plan.world_size} ranks, never stopped")
            self._trained[side.key] = self._train(side)
        return self._trained[side.key]

    def _train(self, side: Side) -> Trained | str:
        with self._steps(side, "sides", side.key) as steps:
            try:
                source = continuous = steps.train()
                if not side.plan.trainer.can_rewind:
                    source = steps.interrupt()
                    before = steps.compare_before(source, continuous)
                    if not before.held:
                        said = next(check.message for check in before.checks if not check.passed)
                        return f"a run that is stopped is not the beginning of one that is not: {said}"
                return Trained(continuous, source, steps.fingerprint(continuous), steps.states.observed)
            except (HarnessError, OSError) as error:
                return _relative(side.plan, self.folder, str(error))

    def cross(self, one: Side, two: Side) -> Pair:
        """Resume under ``two`` what ``one`` has saved."""
        saved, other = self.trained(one), self.trained(two)
        pair = Pair(one.axis, one.name, two.name, "error")
        if isinstance(saved, str) or isinstance(other, str):
            name, why = (one.name, saved) if isinstance(saved, str) else (two.name, other)
            return replace(pair, why=f"{name} does not train: {why}")
        self.observer.note(f"{one.axis} {one.name} → {two.name}")
        place = ("pairs", one.axis, f"{one.name}-{two.name}")
        with self._steps(two, *place, never_stopped=other) as steps:
            try:
                found = _Crossing(steps, saved, other).found()
            except TrainerFailed as error:
                from harness.diagnosis import crash

                found = _Crossed("cannot", crash(error).component, str(error), loaded=False)
            except (HarnessError, OSError) as error:
                found = _Crossed("error", why=str(error))
            except Exception as error:  # noqa: BLE001 - the other pairs are told all the same
                said = f"{type(error).__name__}: {sentence(error)}"
                found = _Crossed("error", why=f"the harness itself has failed: {said}")
            seconds = steps.phases.timing()["total"]
        folder = self.folder.joinpath(*place)
        why, state = (_relative(two.plan, folder, said) for said in (found.why, found.state))
        return replace(
            pair, result=found.result, component=found.component, why=why, state=state,
            curves=found.curves, seconds=round(seconds, 3), loaded=found.loaded,
        )  # fmt: skip

    @contextlib.contextmanager
    def _steps(self, side: Side, *names: str, never_stopped: Trained | None = None) -> Iterator[Steps]:
        path = self.folder.joinpath(*names)
        launcher = self._launchers.setdefault(side.python, Elsewhere(side.python))
        with Phases(side.plan, ResultsFolder(path), self.observer, self._devices, launcher) as phases:
            yield _Steps(phases, never_stopped)


def pairs_of(sides: Iterable[Side]) -> list[tuple[Side, Side]]:
    """Every ordered pair of two that share an axis, in their order."""
    return [(a, b) for a, b in itertools.permutations(sides, 2) if a.axis == b.axis]


@dataclass(frozen=True)
class _Crossed:
    result: str
    component: str = ""
    why: str = ""
    state: str = ""
    curves: tuple[Measured, ...] = ()
    loaded: bool = True


@dataclass(frozen=True)
class _Crossing:
    """One pair.

    Args:
        steps: of the side that resumes.
        saved, other: the side that has saved, and the one that resumes.
    """

    steps: Steps
    saved: Trained
    other: Trained

    def found(self) -> _Crossed:
        """Load, save again at once, resume to N, compare."""
        from harness.checks.measured import compare_as_measured

        steps, continuous = self.steps, self.saved.continuous
        resumed = steps.resume(self.saved.source, like=continuous.series)
        if isinstance(resumed, NotResumed):
            return _Crossed("cannot", resumed.component, resumed.checks[-1].message, loaded=False)
        probed = steps.probe(self.saved.source) if steps.plan.trainer.can_probe else None
        curves = compare_as_measured(
            continuous.series, resumed.series, self.other.continuous.series,
            k=resumed.phase.start, same=self._one_training, metrics=steps.plan.case.metrics,
        )  # fmt: skip
        exact = bool(curves) and all(one.exact for one in curves)
        state = self._state(probed, resumed, exact=exact)
        found = (resumed, state, steps.came_to_the_end(resumed, continuous))
        checks = [*(check for one in found for check in one.checks), *(one.check for one in curves)]
        if not any(_is_value(one.check) for one in curves):
            checks.append(judge.no_curve(checks))
        if not all(check.passed for check in checks):
            component, why = self._lost(checks, resumed, state)
            return _Crossed("cannot", component, why, self._said(state), curves)
        if exact:
            return self._exact(resumed, state, curves)
        component, why = self._rounds(state, curves)
        return _Crossed("within", component, why, self._said(state), curves)

    def _exact(self, resumed: Recorded, state: SavedState, curves: tuple[Measured, ...]) -> _Crossed:
        """Of curves that are the same to the last bit: whether the state at N is, too."""
        from harness.diagnosis import in_order_of_cause

        states, n, said = self.steps.states, self.steps.plan.n, self._said(state)
        mine = self.saved.continuous.saved
        difference = states.diff(mine, resumed.saved, resumed=True) if state.probed else state.difference
        if difference is None or not difference.entries:
            return _Crossed(
                "exact", "", f"every bit of the curves and of the state at {n} is the same", said, curves
            )
        first = in_order_of_cause(difference.entries, None)[0]
        why = f"the curves are the same to the last bit, and the state at {n} is not: {first.sentence()}"
        if self._one_training:  # then nothing but what was lost can have made it
            return _Crossed("cannot", first.component, why, said, curves)
        return _Crossed("within", "numerics", why, said, curves)

    @cached_property
    def _one_training(self) -> bool:
        """Whether both sides' own runs are the same to the last bit, their states too."""
        from harness.checks.measured import same_curves

        mine, theirs = self.saved.continuous, self.other.continuous
        alike = same_curves(mine.series, theirs.series)
        return alike and self.steps.states.diff(mine.saved, theirs.saved, resumed=False).equal

    def _state(self, probed: Probed | None, resumed: Recorded, *, exact: bool) -> SavedState:
        """As it was loaded; where nobody can ask for that, at N, if the curves are the same to the bit."""
        if probed is not None:
            return self.steps.states.as_loaded(self.saved.continuous, probed)
        if exact:
            return self.steps.states.at_the_end(resumed, self.saved.continuous, None)
        return SavedState(difference=None)

    def _said(self, state: SavedState) -> str:
        difference = state.difference
        if difference is None:
            failed = [check.message for check in state.checks if not check.passed]
            return "; ".join(failed) or "not compared: the trainer cannot be asked to save what it has loaded"
        if not all(check.passed for check in state.checks):
            return "; ".join(check.message for check in state.checks if not check.passed)
        when = "as it was loaded" if state.probed is not None else f"at {self.steps.plan.n}"
        lost = len(difference.not_comparable)
        but = f"; {lost} names of one layout alone ({difference.not_comparable[0]}, …)" if lost else ""
        return f"{difference.compared} entries {when}: every bit is the same{but}"

    def _lost(self, checks: Sequence[Check], resumed: Recorded, state: SavedState) -> tuple[str, str]:
        """Which component, and the first sentence of the evidence."""
        from harness.diagnosis import diagnose

        plan, difference = self.steps.plan, state.difference
        found = diagnose(
            checks,
            continuous=self.saved.continuous.series,
            resumed=resumed.series,
            k=resumed.phase.start,
            n=plan.n,
            state=difference,
            probe=difference if state.probed is not None else None,
            deterministic=False,
            arguments=plan.case.arguments(plan.cell.hardware),
        )
        said = next(check.message for check in checks if not check.passed)
        component = found.component if found else "unknown"
        return component, next(iter(found.evidence), said) if found else said

    def _rounds(self, state: SavedState, curves: Sequence[Measured]) -> tuple[str, str]:
        """Why it is not exact, though nothing is lost."""
        from harness.checks.tolerance import tolerance_of
        from harness.goldens import apart

        fingerprint = self.other.fingerprint
        found = apart(self.saved.fingerprint, fingerprint)
        operations = "; ".join(found.environment).removeprefix("numerics: ")
        precision = str(fingerprint.get("precision", ""))
        names = state.difference.not_comparable if state.difference is not None else ()
        streams = [name for name in names if is_per_rank(name)]
        for one in curves:
            first = tolerance_of(one.check.metric or "", precision).first
            if streams and first is not None and one.start is not None and one.start > first:
                return "rng", (
                    f"random numbers are drawn otherwise: {len(streams)} streams are of one layout alone; "
                    f"{one.check.metric} is {one.start:.2g} off at the first step"
                )
        return "numerics", operations or "sums are taken in another order"


def _is_value(check: Check) -> bool:
    from harness.metrics.known import about

    return (
        check.metric is not None
        and check.kind in ("exact", "tolerance")
        and (about(check.metric).judged == "value")
    )


def _relative(plan: Plan, folder: Path, said: str) -> str:
    return Relative.of(plan, folder).text(said)
