"""Saved states of a cell beside each other, with the rules of what is no state."""

from __future__ import annotations

import glob
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import CheckpointError
from harness.protocol import judge, state_checks
from harness.protocol.findings import Digests, Observed, Probed, Recorded, SavedState

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff
    from harness.checkpoints.coverage import Coverage
    from harness.checkpoints.rules import Rule
    from harness.protocol.phases import Phases


#: Uninterrupted runs that a distance is measured by, beside the first.
_YARDSTICKS = 2


class States:
    """Compares the saved states of one cell's phases.

    Args:
        phases: of the cell.
    """

    def __init__(self, phases: Phases) -> None:
        from harness.checkpoints.places import of_results
        from harness.checkpoints.rules import Rule

        self.phases, self.plan = phases, phases.plan
        self.places = of_results(phases.folder.path, self.plan.case.directory)
        ignored = self.plan.case.harness.checkpoint.ignore
        self.rules = (*self.plan.trainer.rules, *(Rule("case", r.entry, r.reason, r.file) for r in ignored))
        self.observed: tuple[Rule, ...] = ()
        self._digests: dict[tuple[Path, tuple[Rule, ...]], Digests] = {}

    def diff(self, a: Path, b: Path, *, resumed: bool, probed: bool = False) -> StateDiff:
        """Two states; raises CheckpointError.

        Args:
            resumed: ``b`` is a resumed run's, and ``a`` is not: what resuming may move, it may have moved.
            probed: ``b`` is ``a``, loaded and saved at once.
        """
        from harness.checkpoints import diff

        with self.phases.timed("state"):
            rules = (*self.rules, *_logs(a), *_logs(b), *self.observed)
            rules += self.plan.trainer.probed if probed else ()
            kept = [rule for rule in rules if resumed or not rule.when]
            return diff(a, b, rules=kept, places=self.places)

    def digests(self, run: Recorded, observed: Iterable[Rule] | None = None) -> Digests:
        """Of the state at the end of a run; read once.

        Args:
            observed: circumstances that are left out; None: those that were seen here.
        """
        from harness.checkpoints.fingerprints import fingerprint_of

        rules = (*self.rules, *(self.observed if observed is None else observed))
        if (run.saved, rules) not in self._digests:
            with self.phases.timed("state"):
                try:
                    found = fingerprint_of(run.saved, (*_logs(run.saved), *rules), self.places)
                    known = Digests(
                        checks=state_checks.all_is_read(found.coverage, found.unread),
                        digests=found.digests,
                        coverage=found.coverage,
                        values=found.values,
                    )
                except CheckpointError as error:  # the other comparisons still tell what is missing
                    known = Digests(checks=(judge.not_whole(run.saved_at, error),))
                self._digests[run.saved, rules] = known
        return self._digests[run.saved, rules]

    def moved(self, resumed: Recorded, continuous: Recorded, difference: StateDiff | None) -> dict[str, str]:
        """Digests of a resumed run's state that are not the uninterrupted one's, because a rule allows it.

        Args:
            difference: of their states.

        Raises:
            CheckpointError: the resumed run's cannot be read any more.
        """
        if difference is None or not difference.as_allowed:
            return {}
        from harness.checkpoints.fingerprints import fingerprint_of

        theirs, rules = self.digests(continuous).digests, (*self.rules, *self.observed)
        rules = (*_logs(resumed.saved), *rules)
        with self.phases.timed("state"):
            mine = fingerprint_of(resumed.saved, rules, self.places, only=difference.as_allowed).digests
        return {component: digest for component, digest in mine.items() if theirs.get(component) != digest}

    def coverage(self, run: Recorded) -> Coverage | None:
        """What the digests of a run's state are made of, as far as they were needed."""
        return self.digests_so_far(run).coverage

    def digests_so_far(self, run: Recorded) -> Digests:
        """The same, as far as they were needed."""
        known = [found for (path, _), found in self._digests.items() if path == run.saved]
        return known[-1] if known else Digests()

    # -- without any resume ------------------------------------------------------------------

    def observe(self, one: Recorded, other: Recorded, iteration: int, *, alike: bool) -> Observed:
        """The states of one iteration of two runs that were not resumed.

        What they do not share is a circumstance where it is a plain value and training was the same, and
        nondeterminism where it is a tensor.

        Args:
            alike: their curves are equal.
        """
        from harness.checkpoints.circumstances import circumstances

        try:
            # Before the end, one of them has overwritten what stands beside the checkpoint of ``iteration``.
            early = iteration != other.saved_at
            a, b = (self.plan.trainer.saved(run.phase, iteration, alone=early) for run in (other, one))
            if early and a == other.saved:
                return Observed()  # its only checkpoint, which is of a later iteration
            difference = self.diff(a, b, resumed=False)
        except CheckpointError:
            return Observed()  # one of them has none of that iteration (any more)
        rules, rest = circumstances(
            difference, iteration, lists=alike and self.plan.deterministic, floats=self.plan.deterministic
        )
        self.observed += rules
        if not self.plan.deterministic:
            return Observed(rules=rules)
        return Observed(rules=rules, checks=tuple(state_checks.never_the_same(rest, iteration)))

    # -- at the end --------------------------------------------------------------------------

    def at_the_end(
        self, resumed: Recorded, continuous: Recorded, repeat: Callable[[], Recorded] | None
    ) -> SavedState:
        """Bit for bit.

        Args:
            repeat: makes one more uninterrupted run, which tells whether a plain value is any state; None
                where the verdict does not hang on that.
        """
        from harness.checkpoints.circumstances import only_plain

        seen = Observed()
        try:
            difference = self.diff(continuous.saved, resumed.saved, resumed=True)
            if repeat is not None and only_plain(difference):
                seen = self.observe(repeat(), continuous, continuous.saved_at, alike=True)
                difference = self.diff(continuous.saved, resumed.saved, resumed=True)
        except CheckpointError as error:  # a phase that ended early has left none of N
            return SavedState(checks=(judge.not_whole(self.plan.n, error),), difference=None)
        known = self.digests(continuous)
        checks = state_checks.saved_state(difference, known.components, continuous.saved_at)
        return SavedState(checks=(*seen.checks, *known.checks, *checks), difference=difference)

    def as_loaded(self, continuous: Recorded, probed: Probed) -> SavedState:
        """The state of k beside itself, loaded and saved again without a step."""
        if probed.difference is None:
            checks = (judge.not_probed(probed.problem),) if probed.problem is not None else ()
            return SavedState(checks=checks, difference=None, probed=probed)
        known = self.digests(continuous)
        found = state_checks.saved_state(
            probed.difference, known.components, self.plan.k, name="loaded state"
        )
        return SavedState(checks=(*known.checks, *found), difference=probed.difference, probed=probed)

    def by_distance(
        self, resumed: Recorded, continuous: Recorded, repeat: Callable[[], Recorded]
    ) -> SavedState:
        """Of a case that does not repeat itself: what uninterrupted runs share must be shared here too.

        Whole numbers, positions and texts exactly; floats by their distance, against the distance between
        uninterrupted runs. Where that of two does not cover it, a third one is asked: a distance between
        single numbers may be small by chance.
        """
        from harness.checkpoints.distances import distances

        usual: dict[str, float] = {}
        try:
            for _ in range(_YARDSTICKS):
                again = repeat()
                self.observe(again, continuous, continuous.saved_at, alike=False)
                yardstick = self.diff(continuous.saved, again.saved, resumed=False)
                difference = self.diff(continuous.saved, resumed.saved, resumed=True)
                with self.phases.timed("state"):
                    found = distances(difference, self.places)
                    for name, apart in distances(yardstick, self.places).items():
                        if math.isfinite(apart):
                            usual[name] = max(apart, usual.get(name, 0.0))
                checks = state_checks.state_by_distance(
                    difference, yardstick, found, usual, continuous.saved_at
                )
                if all(check.passed for check in checks) or not usual:
                    break
        except CheckpointError as error:
            return SavedState(checks=(judge.not_whole(self.plan.n, error),), difference=None)
        return SavedState(checks=tuple(checks), difference=difference)


def _logs(saved: Path) -> list[Rule]:
    """Event files that a script writes where it saves: what was logged is compared as curves."""
    from harness.checkpoints.foreign import files_below
    from harness.checkpoints.rules import Rule
    from harness.metrics.events import is_event_file

    reason = "an event file: what was logged is compared as curves"
    files = files_below(saved) if saved.is_dir() else []
    names = [file.relative_to(saved).as_posix() for file in files if is_event_file(file)]
    return [Rule("trainer", "*", reason, glob.escape(name)) for name in names]
