"""The steps that :mod:`harness.protocol.protocols` puts into sentences.

Each gets what it needs and returns what it found; which steps were taken before is no matter to any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.checks.edges import Edges
from harness.checks.summaries import without_summaries
from harness.errors import CheckpointError, HarnessError, NothingLogged, TrainerFailed
from harness.metrics import join
from harness.protocol import asking, continuation, judge
from harness.protocol.findings import (
    AgainstGolden,
    Found,
    Joined,
    Killed,
    NotResumed,
    Observed,
    Probed,
    Recorded,
    SavedState,
)
from harness.protocol.phases import Phases
from harness.protocol.refusal import sentence
from harness.protocol.states import States
from harness.trainers.base import PhaseName

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.metrics import Series
    from harness.protocol.experiments import Experiments


class Steps:
    """The steps of one cell.

    Args:
        phases: runs the phases of the plan.
    """

    def __init__(self, phases: Phases) -> None:
        self.phases, self.plan = phases, phases.plan
        self.states = States(phases)
        self._repeats = 0
        self._uninterrupted: Recorded | None = None
        self._probed: Probed | None = None
        self._experiments: Experiments | None = None

    # -- training ----------------------------------------------------------------------------

    def train(self) -> Recorded:
        """From 0 to N, uninterrupted; run once."""
        if self._uninterrupted is None:
            self._uninterrupted = self._phase("continuous", load=None, start=0, stop=self.plan.n)
        return self._uninterrupted

    def train_again(self) -> Iterator[Recorded]:
        """The repeats that a recorded golden's statistics come from."""
        for _ in range(self.plan.options.repeats - 1):
            yield self.repeat()

    def interrupt(self) -> Recorded:
        """From 0 to k; then the process is gone."""
        return self._phase("interrupted", load=None, start=0, stop=self.plan.k)

    def nothing_was_resumed(self, killed: Killed) -> Found:
        """The kill came when the last checkpoint was complete: there was nothing left to resume for."""
        return Found(checks=(judge.nothing_resumed(killed.at, self.plan.options),))

    def resume(
        self, source: Recorded, *, like: Mapping[str, Series], at: int | None = None
    ) -> Recorded | NotResumed:
        """From ``source``'s checkpoint of k (or of ``at``) to N.

        Args:
            like: what an uninterrupted run logs.
        """
        at = self.plan.k if at is None else at
        load = self.phases.folder.checkpoints("resumed-from")
        trainer = self.plan.trainer
        try:
            trainer.rewind(source.phase, load, at)
            before = trainer.saved_until(load, at)
            resumed = self._phase("resumed", load=load, start=at, stop=self.plan.n)
        except (CheckpointError, TrainerFailed) as error:
            cause = error.__cause__ if isinstance(error, TrainerFailed) else error
            if isinstance(cause, CheckpointError):
                return NotResumed(checks=(judge.not_loaded(at, cause),))
            lost = self._not_loaded(error, load, at)
            if lost is None:
                raise
            return NotResumed(checks=(judge.not_loaded(at, error),), component=lost)
        except NothingLogged:
            if (unable := self._said_unable(at)) is None:
                raise
            return unable
        after = trainer.saved_until(load, at) | trainer.saved_until(resumed.phase.save, at, after=load)
        known = continuation.before(self._named(source.series), at)
        # A run that trains 1..k again saves on the way, as the uninterrupted one does: if that one has a
        # checkpoint of it. Where none is kept, what is logged again may have been trained again.
        judged = self._named(resumed.series)
        again = bool(after - before) or (
            continuation.replays(judged, known) and not trainer.saved_until(self.train().phase.save, at)
        )
        went_on = continuation.went_on(
            judged, known, self._named(like), at, trained_again=again, n=self.plan.n
        )
        series = {**resumed.series, **went_on.series}
        return replace(resumed, series=series, checks=(*resumed.checks, went_on.check))

    def _named(self, series: Mapping[str, Series]) -> Mapping[str, Series]:
        """What METRICS names: where a run went on is judged by that alone."""
        return continuation.named(series, self.plan.case.metrics)

    def _not_loaded(self, error: HarnessError, load: Path, at: int) -> str | None:
        """What the resumed phase could not load; None where it ended for another reason, or had trained."""
        from harness.diagnosis import could_not_load, said_unable

        if not isinstance(error, TrainerFailed) or self.phases.trained("resumed", behind=at):
            return None
        if error.raised is None and error.reason.startswith("exited"):
            return said_unable(error.reason)
        return could_not_load(error.raised, str(load))

    def _said_unable(self, at: int) -> NotResumed | None:
        """Some say that they cannot load, and end as if all were well."""
        from harness.diagnosis import said_unable

        said = [(lost, words) for words in self.phases.last_words("resumed") if (lost := said_unable(words))]
        if not said:
            return None
        lost, words = said[-1]
        error = CheckpointError(
            f"resumed: it ended without an error and without a step; its log says: {words}"
        )
        return NotResumed(checks=(judge.not_loaded(at, error),), component=lost)

    def probe(self, source: Recorded) -> Probed:
        """Load ``source``'s checkpoint of k and save it again without a step; tried once."""
        if self._probed is None:
            self._probed = asking.probe(self.phases, self.states, source)
        return self._probed

    def experiments(self, source: Recorded, resumed: Recorded) -> Experiments:
        """Resuming from altered checkpoints; one budget a cell."""
        from harness.protocol.experiments import Experiments

        if self._experiments is None:
            self._experiments = Experiments(self.phases, self.states, source, resumed, self._uninterrupted)
        return self._experiments

    def replicas_alike(self, source: Recorded) -> bool | None:
        """Whether all that hold the same weights have loaded the same; None where that cannot be told."""
        return asking.replicas_alike(self.phases, source)

    def _phase(
        self, name: PhaseName, *, load: Path | None, start: int, stop: int, folder: str = ""
    ) -> Recorded:
        recorded = self.phases.run(name, load=load, start=start, stop=stop, folder=folder)
        if not self.plan.trainer.can_rewind or name == "probe":
            return recorded
        return replace(recorded, checks=(judge.tracker_names(stop, recorded.phase.save, folder or name),))

    # -- comparing ---------------------------------------------------------------------------

    def compare_with_golden(self, continuous: Recorded) -> Found:
        """The uninterrupted run over 1..N, and its state at N: did training change?"""
        if self.plan.options.golden_update:
            return Found()
        with self.phases.timed("checks"):
            return self._against_golden(continuous.series, continuous)

    def compare_joined_with_golden(self, interrupted: Recorded, resumed: Recorded | NotResumed) -> Joined:
        """The joined curve over 1..N and the state at N, bit for bit.

        What is bounded on one side only (time, memory) fails here for good: a second measurement
        that is better does not undo a first that was not. Anything else is a doubt, for the
        reference to explain.
        """
        if isinstance(resumed, NotResumed) or not (interrupted.held and resumed.held):
            return Joined(comparison=None)
        with self.phases.timed("checks"):
            # A resumed phase may have another layout, and the golden is of none that was resumed.
            about = interrupted if self.plan.layouts_differ else resumed
            golden, end = self.plan.golden, continuation.last_of(interrupted.series)
            k, joined = resumed.phase.start, join(interrupted.series, resumed.series)
            edges = None
            if golden is not None:
                cut = None if self.plan.trainer.ends_itself else continuation.last_before(golden.series, k)
                edges = Edges(golden.series, k, end, cut)
            found = self._against_golden(joined, resumed, about, edges)
        exact = found.comparison is not None and found.comparison.whole
        if exact and found.held and found.alike:
            return Joined(checks=found.checks, comparison=found.comparison, equal=True)
        failed = [
            replace(check, name=check.name.replace("golden:", "golden: joined:", 1))
            for check in found.checks
            if not check.passed
        ]
        return Joined(
            checks=tuple(check for check in failed if check.kind == "upper-bound"),
            comparison=found.comparison,
            doubts=tuple(check for check in failed if check.kind != "upper-bound"),
        )

    def compare_with_uninterrupted(self, resumed: Recorded, continuous: Recorded, source: Recorded) -> Found:
        """The resumed run over what is left of the uninterrupted one's curves: was anything lost?"""
        with self.phases.timed("checks"):
            k, n = resumed.phase.start, self.plan.n
            known = continuation.before(self._named(source.series), k)
            last = continuation.last_known(self._named(continuous.series), known, k, n)
            expected = continuation.behind(continuous.series, resumed.series, last)
            checks = self._curves(expected, resumed.series, Edges(continuous.series, k))
            return Found(checks=tuple(without_summaries(checks, continuous.series, resumed.series, last + 1)))

    def compare_before(self, interrupted: Recorded, continuous: Recorded) -> Observed:
        """Two runs of the same steps 1..k, and their states at k: a difference is no fault of resuming.

        What they do not share though all curves are equal (times, paths, hosts, jobs) is no state.
        """
        with self.phases.timed("checks"):
            expected, actual = continuation.common(continuous.series, interrupted.series)
            checks = self._curves(expected, actual) if expected else []
        renamed = [replace(c, name=c.name.replace("continuous:", "interrupted:", 1)) for c in checks]
        alike = bool(renamed) and all(check.passed for check in renamed)
        observed = self.states.observe(interrupted, continuous, self.plan.k, alike=alike)
        return replace(observed, checks=(*renamed, *observed.checks))

    def interrupt_again(self, interrupted: Recorded) -> bool | None:
        """0 to k once more: does a run that is told to stop at k repeat itself? None where nobody can say."""
        try:
            again = self._phase(
                "interrupted", load=None, start=0, stop=self.plan.k, folder="interrupted-again"
            )
        except (HarnessError, OSError) as error:
            self.phases.observer.note(f"interrupted again: {sentence(error)}")
            return None
        with self.phases.timed("checks"):
            checks = self._curves(*continuation.common(interrupted.series, again.series))
        return all(check.passed for check in checks)

    def compare_saved_state(
        self, resumed: Recorded, continuous: Recorded, source: Recorded, curves: Found
    ) -> SavedState:
        """Every tensor, moment, counter and RNG state.

        At N, bit for bit. Where the resumed phase has another layout, or the case is not
        deterministic, later steps differ in their last bits: then the state is compared as it is
        loaded, which must lose nothing, by saving it again at once; and where the trainer cannot be
        asked to do that, by what two uninterrupted runs have in common.

        Args:
            source: whose checkpoint of k was resumed from.
            curves: what comparing the curves has found.
        """
        if not (self.plan.layouts_differ or not self.plan.deterministic):
            return self.states.at_the_end(resumed, continuous, self.repeat if curves.held else None)
        probed = self.probe(source)
        if probed.difference is not None or self.plan.layouts_differ:
            return self.states.as_loaded(continuous, probed)
        return self.states.by_distance(resumed, continuous, self.repeat)

    def repeat(self) -> Recorded:
        """One more uninterrupted run, to see what such runs share."""
        self._repeats += 1
        folder = f"repeat-{self._repeats + 1}"
        return self._phase("repeat", load=None, start=0, stop=self.plan.n, folder=folder)

    def came_to_the_end(self, resumed: Recorded, continuous: Recorded) -> Found:
        """Both runs ended at N, or at the same iteration of their own accord."""
        end = resumed.end
        if end < continuous.end and resumed.saved_at == continuous.saved_at:
            # Of few values nobody can tell where a run ended; but here the other one's are the same.
            last = continuation.last_of
            end = continuous.end if last(resumed.series) == last(continuous.series) else end
        named = all(run.saved_at == run.end for run in (continuous, replace(resumed, end=end)))
        return Found(checks=(judge.same_end(continuous.end, end, self.plan.n, named=named),))

    def fingerprint(self, run: Recorded) -> dict[str, Any]:
        """What decided the bits of a run."""
        found = self.plan.trainer.provenance(run.phase)
        if self.phases.devices and self.plan.trainer.name != "native":  # its ranks have said it themselves
            found["device"] = ", ".join(self.phases.devices)
        return {
            **found,
            "platform": self.plan.platform,
            "deterministic": self.plan.deterministic,
        }

    def subject(self) -> dict[str, dict[str, Any]]:
        """What the case says that decides numbers."""
        from harness.goldens import subject_of

        return subject_of(self.plan.case, self.plan.cell.hardware)

    def _curves(
        self, expected: Mapping[str, Series], actual: Mapping[str, Series], edges: Edges | None = None
    ) -> list[Check]:
        from harness.checks import compare_curves

        plan = self.plan
        steps = [step for line in (*expected.values(), *actual.values()) for step in line.steps.tolist()]
        exact = plan.deterministic and not plan.layouts_differ
        statistics = plan.golden.statistics if plan.golden is not None and not exact else {}
        return compare_curves(
            expected,
            actual,
            against="continuous",
            lane="exact" if exact else "envelope" if statistics else "tolerance",
            first=min(steps, default=0),
            last=max(steps, default=0),
            metrics=plan.case.metrics,
            statistics=statistics or None,
            note="" if exact else "another layout" if plan.layouts_differ else "not deterministic",
            edges=edges,
        )

    def _against_golden(
        self,
        series: Mapping[str, Series],
        run: Recorded,
        about: Recorded | None = None,
        edges: Edges | None = None,
    ) -> AgainstGolden:
        """Compare.

        Args:
            series: over 1..N.
            run: whose state is the one at N.
            about: whose fingerprint is compared; ``run``'s without.
            edges: where the series were stopped and went on; None for those of one process.
        """
        from harness.checks import compare_curves

        golden = self.plan.golden
        if golden is None:
            return AgainstGolden(checks=(judge.no_golden(self.plan),), comparison=None)
        comparison = judge.how(
            golden, self.fingerprint(about or run), self.subject(), deterministic=self.plan.deterministic
        )
        exact = comparison.lane == "exact"
        if not exact:
            series = golden.alike(series)
        checks = compare_curves(
            golden.series,
            series,
            against="golden",
            lane=comparison.lane,
            first=0 if continuation.from_zero(golden.series) and continuation.from_zero(series) else 1,
            last=self.plan.n,
            metrics=self.plan.case.metrics,
            statistics=golden.statistics or None,
            note="" if exact else comparison.lane,  # why: said once, in the verdict's provenance
            enforce_bounds=comparison.same_machine,
            enforce_time=self.plan.cell.hardware != "cpu",  # others may use its cores, and do
            rounding=comparison.rounding,
            edges=edges,
        )
        if edges is not None:
            first = continuation.last_before(golden.series, edges.k) + 1
            checks = without_summaries(checks, golden.series, series, first)
        alike = True
        if comparison.whole:
            state = self.states.digests(run, golden.circumstances)
            resumed = run.phase.load is not None
            judged = judge.golden_state(golden, state.digests, state.values, resumed=resumed)
            checks, alike = [*state.checks, *checks, *judged.checks], judged.alike
        if comparison.subject:
            checks.insert(0, judge.another_subject(comparison.subject, self.plan))
        return AgainstGolden(checks=tuple(checks), comparison=comparison, alike=alike)
