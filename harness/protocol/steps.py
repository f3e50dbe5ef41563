"""The steps that :mod:`harness.protocol.protocols` puts into sentences.

Each gets what it needs and returns what it found; which steps were taken before is no matter to any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError, HarnessError, TrainerFailed
from harness.metrics import join
from harness.protocol import judge
from harness.protocol.findings import (
    AgainstGolden,
    Digests,
    Found,
    Joined,
    Killed,
    NotResumed,
    Probed,
    Recorded,
    SavedState,
)
from harness.protocol.phases import Phases
from harness.trainers.base import PhaseName

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.metrics import Series


class Steps:
    """The steps of one cell.

    Args:
        phases: runs the phases of the plan.
    """

    def __init__(self, phases: Phases) -> None:
        self.phases, self.plan = phases, phases.plan
        self._digests: dict[Path, Digests] = {}

    # -- training ----------------------------------------------------------------------------

    def train(self) -> Recorded:
        """From 0 to N, uninterrupted."""
        return self._phase("continuous", load=None, start=0, stop=self.plan.n)

    def train_again(self) -> Iterator[Recorded]:
        """The repeats that a recorded golden's statistics come from."""
        for i in range(2, self.plan.options.repeats + 1):
            yield self._phase("repeat", load=None, start=0, stop=self.plan.n, folder=f"repeat-{i}")

    def interrupt(self) -> Recorded:
        """From 0 to k; then the process is gone."""
        return self._phase("interrupted", load=None, start=0, stop=self.plan.k)

    def interrupt_by_killing(self) -> Killed:
        """From 0 towards N, killed on the way; what is left on disk, and the iteration it resumes from."""
        from harness.protocol.crash import kill_on_the_way

        return kill_on_the_way(self.phases)

    def resume(
        self, source: Recorded, *, like: Mapping[str, Series], at: int | None = None
    ) -> Recorded | NotResumed:
        """From ``source``'s checkpoint of k (or of ``at``) to N.

        Args:
            like: what an uninterrupted run logs.
        """
        at = self.plan.k if at is None else at
        load = self.phases.folder.checkpoints("resumed-from")
        try:
            self.plan.trainer.rewind(source.phase, load, at)
            resumed = self._phase("resumed", load=load, start=at, stop=self.plan.n)
        except (CheckpointError, TrainerFailed) as error:
            cause = error.__cause__ if isinstance(error, TrainerFailed) else error
            if not isinstance(cause, CheckpointError):
                raise
            return NotResumed(checks=(judge.not_loaded(at, cause),))
        return replace(resumed, checks=(*resumed.checks, judge.resumed_there(at, resumed.series, like)))

    def probe(self, source: Recorded) -> Probed:
        """Load ``source``'s checkpoint of k and save it again without a step."""
        from harness.checkpoints import diff

        k, load = self.plan.k, self.phases.folder.checkpoints("probe-from")
        try:
            self.plan.trainer.rewind(source.phase, load, k)
            probe = self._phase("probe", load=load, start=k, stop=k)
            return Probed(difference=diff(self.plan.trainer.saved(source.phase, k), probe.saved))
        except HarnessError as error:  # the diagnosis then goes without it
            self.phases.observer.note(f"probe: {error}")
            return Probed(problem=error)

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
            found = self._against_golden(join(interrupted.series, resumed.series), resumed, about)
        exact = found.comparison is not None and found.comparison.whole
        if exact and found.held:
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

    def compare_with_uninterrupted(self, resumed: Recorded, continuous: Recorded) -> Found:
        """The resumed run over k+1..N: was anything lost that a curve shows?"""
        with self.phases.timed("checks"):
            first, last = resumed.phase.start + 1, self.plan.n
            return Found(checks=tuple(self._curves(continuous.series, resumed.series, first, last)))

    def compare_before(self, interrupted: Recorded, continuous: Recorded) -> Found:
        """Two runs of the same steps 1..k: a difference is no fault of resuming."""
        with self.phases.timed("checks"):
            checks = self._curves(continuous.series, interrupted.series, 1, self.plan.k)
        renamed = (replace(c, name=c.name.replace("continuous:", "interrupted:", 1)) for c in checks)
        return Found(checks=tuple(renamed))

    def compare_saved_state(self, resumed: Recorded, continuous: Recorded, source: Recorded) -> SavedState:
        """Every tensor, moment, counter and RNG state.

        At N, bit for bit. Where the resumed phase has another layout, or the case is not
        deterministic, later steps differ in their last bits: then the state is compared as it is
        loaded, which must lose nothing, by saving it again at once.

        Args:
            source: whose checkpoint of k was resumed from.
        """
        if self.plan.layouts_differ or not self.plan.deterministic:
            return self._loaded_state(continuous, self.probe(source))
        from harness.checkpoints import diff

        with self.phases.timed("state"):
            try:
                difference = diff(continuous.saved, resumed.saved)
            except CheckpointError as error:  # a phase that ended early has left none of N
                return SavedState(checks=(judge.not_whole(self.plan.n, error),), difference=None)
            known = self.digests(continuous)
            checks = judge.saved_state(difference, sorted(known.digests), self.plan.n)
        return SavedState(checks=(*known.checks, *checks), difference=difference)

    def _loaded_state(self, continuous: Recorded, probed: Probed) -> SavedState:
        if probed.difference is None:
            checks = (judge.not_probed(probed.problem),) if probed.problem is not None else ()
            return SavedState(checks=checks, difference=None, probed=probed)
        known = self.digests(continuous)
        found = judge.saved_state(probed.difference, sorted(known.digests), self.plan.k, name="loaded state")
        return SavedState(checks=(*known.checks, *found), difference=probed.difference, probed=probed)

    def digests(self, run: Recorded) -> Digests:
        """Of the state at the end of a run; read once."""
        from harness.checkpoints import fingerprint

        if run.saved not in self._digests:
            with self.phases.timed("state"):
                try:
                    self._digests[run.saved] = Digests(digests=fingerprint(run.saved))
                except CheckpointError as error:  # the other comparisons still tell what is missing
                    self._digests[run.saved] = Digests(checks=(judge.not_whole(run.phase.stop, error),))
        return self._digests[run.saved]

    def digests_so_far(self, run: Recorded) -> Mapping[str, str]:
        """The same, as far as they were needed."""
        return self._digests.get(run.saved, Digests()).digests

    def fingerprint(self, run: Recorded) -> dict[str, Any]:
        """What decided the bits of a run."""
        return {
            **self.plan.trainer.provenance(run.phase),
            "platform": self.plan.platform,
            "deterministic": self.plan.deterministic,
        }

    def subject(self) -> dict[str, dict[str, Any]]:
        """What the case says that decides numbers."""
        from harness.goldens import subject_of

        return subject_of(self.plan.case, self.plan.cell.hardware)

    def _curves(
        self, expected: Mapping[str, Series], actual: Mapping[str, Series], first: int, last: int
    ) -> list[Check]:
        from harness.checks import compare_curves

        plan = self.plan
        exact = plan.deterministic and not plan.layouts_differ
        statistics = plan.golden.statistics if plan.golden is not None and not exact else {}
        return compare_curves(
            expected,
            actual,
            against="continuous",
            lane="exact" if exact else "envelope" if statistics else "tolerance",
            first=first,
            last=last,
            metrics=plan.case.metrics,
            statistics=statistics or None,
            note="" if exact else "another layout" if plan.layouts_differ else "not deterministic",
        )

    def _against_golden(
        self, series: Mapping[str, Series], run: Recorded, about: Recorded | None = None
    ) -> AgainstGolden:
        """Compare.

        Args:
            series: over 1..N.
            run: whose state is the one at N.
            about: whose fingerprint is compared; ``run``'s without.
        """
        from harness.checks import compare_curves

        golden = self.plan.golden
        if golden is None:
            return AgainstGolden(checks=(judge.no_golden(self.plan),), comparison=None)
        comparison = judge.how(
            golden, self.fingerprint(about or run), self.subject(), deterministic=self.plan.deterministic
        )
        exact = comparison.lane == "exact"
        checks = compare_curves(
            golden.series,
            series,
            against="golden",
            lane=comparison.lane,
            first=1,
            last=self.plan.n,
            metrics=self.plan.case.metrics,
            statistics=golden.statistics or None,
            note="" if exact else comparison.why,
            enforce_bounds=comparison.same_machine,
            enforce_time=self.plan.cell.hardware != "cpu",  # others may use its cores, and do
        )
        if comparison.whole:
            state = self.digests(run)
            checks = [*state.checks, *checks, *judge.golden_state(golden, state.digests)]
        if comparison.subject:
            checks.insert(0, judge.another_subject(comparison.subject, self.plan))
        return AgainstGolden(checks=tuple(checks), comparison=comparison)
