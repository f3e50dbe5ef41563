"""One cell being run: the steps that :mod:`harness.protocol.protocols` puts into sentences."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError, HarnessError, TrainerFailed
from harness.metrics import join
from harness.protocol import judge
from harness.protocol.phases import Phases, Recorded
from harness.trainers.base import PhaseName

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff
    from harness.checks import Check
    from harness.diagnosis import Diagnosis
    from harness.metrics import Series
    from harness.protocol.verdict import Verdict


class Run:
    """Runs phases and collects checks.

    A context manager: what stops the run inside it (a dead rank, a torn file) goes into the
    verdict, and no process outlives it.

    Args:
        phases: runs the phases of the plan, and keeps what they left behind.
    """

    def __init__(self, phases: Phases) -> None:
        self.phases = phases
        self.plan, self.folder, self.observer = phases.plan, phases.folder, phases.observer
        self.n, self.k = self.plan.n, self.plan.k
        self.checks: list[Check] = []
        self.provenance: dict[str, Any] = {}
        self._repeats: list[Mapping[str, Series]] = []
        self._digests: dict[Path, dict[str, str]] = {}
        self._state: StateDiff | None = None
        self._probed: StateDiff | None = None
        self._unprobed: HarnessError | None = None
        self._doubts: list[Check] = []
        self._failure: HarnessError | None = None
        self._diagnosis: Diagnosis | None = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self.phases.close()
        if not isinstance(error, HarnessError):
            return False
        from harness.diagnosis import crash

        self._failure = error
        self._diagnosis = crash(error)
        return True

    # -- training ----------------------------------------------------------------------------

    def train(self) -> Recorded:
        """From 0 to N, uninterrupted."""
        return self._phase("continuous", load=None, start=0, stop=self.n)

    def train_again(self) -> None:
        """The repeats that a recorded golden's statistics come from."""
        for i in range(2, self.plan.options.repeats + 1):
            repeat = self._phase("repeat", load=None, start=0, stop=self.n, folder=f"repeat-{i}")
            self._repeats.append(repeat.series)

    def interrupt(self) -> Recorded:
        """From 0 to k; then the process is gone."""
        return self._phase("interrupted", load=None, start=0, stop=self.k)

    def interrupt_by_killing(self) -> tuple[Recorded | None, int]:
        """From 0 towards N, killed on the way; what is left on disk, and the iteration it resumes from."""
        from harness.protocol.crash import kill_on_the_way

        return kill_on_the_way(self)

    def resume(self, source: Recorded, *, at: int | None = None) -> Recorded | None:
        """From ``source``'s checkpoint of k to N; None if that cannot be loaded."""
        at = self.k if at is None else at
        load = self.folder.checkpoints("resumed-from")
        try:
            self.plan.trainer.rewind(source.phase, load, at)
            resumed = self._phase("resumed", load=load, start=at, stop=self.n)
        except (CheckpointError, TrainerFailed) as error:
            cause = error.__cause__ if isinstance(error, TrainerFailed) else error
            if not isinstance(cause, CheckpointError):
                raise
            self.checks.append(judge.not_loaded(at, cause))
            return None
        self.checks.append(judge.resumed_there(at, resumed.series, self._reference()))
        return resumed

    def _reference(self) -> Mapping[str, Series]:
        """What an uninterrupted run logs: this one's, else the golden's."""
        continuous = self.phases.recorded.get("continuous")
        if continuous is not None:
            return continuous.series
        return self.plan.golden.series if self.plan.golden is not None else {}

    # -- comparing ---------------------------------------------------------------------------

    def compare_with_golden(self, continuous: Recorded) -> None:
        """The uninterrupted run over 1..N, and its state at N: did training change?"""
        if self.plan.options.golden_update:
            return
        with self.phases.timed("checks"):
            self.checks += self._against_golden(continuous.series, continuous)

    def joined_is_golden(self, interrupted: Recorded, resumed: Recorded | None) -> bool:
        """The joined curve over 1..N and the state at N, bit for bit; False on any doubt.

        What is bounded on one side only (time, memory) fails here for good: a second measurement
        that is better does not undo a first that was not. Anything else is a doubt, for the
        reference to explain.
        """
        if resumed is None or not all(check.passed for check in self.checks):
            return False
        with self.phases.timed("checks"):
            checks = self._against_golden(join(interrupted.series, resumed.series), resumed)
        exact = self.provenance.get("compared") == "exact"
        if exact and all(check.passed for check in checks):
            self.checks += checks
            return True
        failed = [
            replace(check, name=check.name.replace("golden:", "golden: joined:", 1))
            for check in checks
            if not check.passed
        ]
        self.checks += [check for check in failed if check.kind == "upper-bound"]
        self._doubts = [check for check in failed if check.kind != "upper-bound"]
        return False

    def keep_what_is_unexplained(self) -> None:
        """A doubt that the reference has no explanation for stays: it was not a second try."""
        if all(check.passed for check in self.checks):
            self.checks += self._doubts

    def compare_with_uninterrupted(self, resumed: Recorded | None, continuous: Recorded) -> None:
        """The resumed run over k+1..N: was anything lost that a curve shows?"""
        if resumed is None:
            return
        with self.phases.timed("checks"):
            self.checks += self._curves(continuous.series, resumed.series, resumed.phase.start + 1, self.n)

    def compare_before(self, interrupted: Recorded, continuous: Recorded) -> None:
        """Two runs of the same steps 1..k: a difference is no fault of resuming."""
        with self.phases.timed("checks"):
            checks = self._curves(continuous.series, interrupted.series, 1, self.k)
            self.checks += [
                replace(check, name=check.name.replace("continuous:", "interrupted:", 1)) for check in checks
            ]

    def compare_saved_state(self, resumed: Recorded | None, continuous: Recorded) -> None:
        """Every tensor, moment, counter and RNG state.

        At N, bit for bit. Where the resumed phase has another layout, or the case is not
        deterministic, later steps differ in their last bits: then the state is compared as it is
        loaded, which must lose nothing, by saving it again at once.
        """
        if resumed is None:
            return
        if self.plan.layouts_differ or not self.plan.deterministic:
            probe = self._probe()
            if probe is not None:
                self._state = probe
                self.checks += judge.saved_state(
                    probe, self._components(continuous), self.k, name="loaded state"
                )
            elif self._unprobed is not None:
                self.checks.append(judge.not_probed(self._unprobed))
            return
        from harness.checkpoints import diff

        with self.phases.timed("state"):
            try:
                self._state = diff(continuous.saved, resumed.saved)
            except CheckpointError as error:  # a phase that ended early has left none of N
                self.checks.append(judge.not_whole(self.n, error))
                return
            self.checks += judge.saved_state(self._state, self._components(continuous), self.n)

    # -- concluding --------------------------------------------------------------------------

    def record_golden(self) -> None:
        """Approve the uninterrupted run, if that was asked for and resuming it is sound."""
        run = self.phases.recorded.get("continuous")
        if not self.plan.options.golden_update or run is None:
            return
        self._fingerprints_of_state(run)  # one that cannot be read is a failed check
        unsound = [check for check in self.checks if not check.passed]
        if unsound:
            self.checks.append(judge.golden_refused(unsound))
            return
        from harness import goldens

        plan = self.plan
        path = plan.goldens / plan.case.name / goldens.file_name(plan.cell.track, plan.platform)
        provenance = goldens.provenance_of(
            self._fingerprint(run),
            self._fingerprints_of_state(run),
            repeats=1 + len(self._repeats),
            statistics=self._statistics(run),
        )
        change = goldens.write(path, run.series, provenance, metrics=plan.case.metrics)
        self.checks.append(judge.golden_recorded(change))

    def say_what_was_lost(self) -> None:
        """Name the component, if something was lost; a probe separates load from training."""
        failed = [check for check in self.checks if not check.passed]
        if not failed or self.plan.options.golden_update:
            return
        from harness.diagnosis import diagnose

        resume_failed = any(check.against != "golden" for check in failed)
        probe = self._probe() if resume_failed else None
        continuous, resumed = self.phases.recorded.get("continuous"), self.phases.recorded.get("resumed")
        with self.phases.timed("diagnosis"):
            self._diagnosis = diagnose(
                self.checks,
                continuous=continuous.series if continuous else {},
                resumed=resumed.series if resumed else None,
                k=resumed.phase.start if resumed else self.k,
                n=self.n,
                state=self._state,
                probe=probe,
                deterministic=self.plan.deterministic,
                golden_only=not resume_failed,
                arguments=self.plan.case.arguments(self.plan.cell.hardware),
            )

    def verdict(self) -> Verdict:
        """All of it."""
        from harness.protocol.verdict import Verdict

        self._describe()
        held = all(check.passed for check in self.checks)
        return Verdict(
            cell=self.plan.cell.id,
            status="error" if self._failure else "passed" if held and self.checks else "failed",
            checks=tuple(self.checks),
            diagnosis=self._diagnosis,
            timing={name: round(seconds, 3) for name, seconds in self.phases.timing().items()},
            provenance=self.provenance,
            reproduce=self.plan.reproduce,
        )

    def write_state_diff(self) -> None:
        """What differs, tensor by tensor, beside the verdict."""
        if self._state is not None:
            path = self.folder.path / "state_diff.json"
            path.write_text(json.dumps(self._state.as_dict(), indent=1, default=str) + "\n")

    # -- how ---------------------------------------------------------------------------------

    def _phase(
        self, name: PhaseName, *, load: Path | None, start: int, stop: int, folder: str = ""
    ) -> Recorded:
        recorded = self.phases.run(name, load=load, start=start, stop=stop, folder=folder)
        if self.plan.trainer.can_rewind and name != "probe":
            self.checks.append(judge.tracker_names(stop, recorded.phase.save, folder or name))
        return recorded

    def _probe(self) -> StateDiff | None:
        """Load k and save it again without a step: what differs was lost by that alone."""
        from harness.checkpoints import diff

        source = self.phases.recorded.get("interrupted") or self.phases.recorded.get("continuous")
        if self._probed is not None or source is None:
            return self._probed
        load = self.folder.checkpoints("probe-from")
        try:
            self.plan.trainer.rewind(source.phase, load, self.k)
            probe = self._phase("probe", load=load, start=self.k, stop=self.k)
            self._probed = diff(self.plan.trainer.saved(source.phase, self.k), probe.saved)
        except HarnessError as error:  # the diagnosis then goes without it
            self._unprobed = error
            self.observer.note(f"probe: {error}")
        return self._probed

    def _curves(
        self, expected: Mapping[str, Series], actual: Mapping[str, Series], first: int, last: int
    ) -> list[Check]:
        from harness.checks import compare_curves

        exact = self.plan.deterministic and not self.plan.layouts_differ
        golden = self.plan.golden
        statistics = golden.statistics if golden is not None and not exact else {}
        return compare_curves(
            expected,
            actual,
            against="continuous",
            lane="exact" if exact else "envelope" if statistics else "tolerance",
            first=first,
            last=last,
            metrics=self.plan.case.metrics,
            statistics=statistics or None,
            note="" if exact else "another layout" if self.plan.layouts_differ else "not deterministic",
        )

    def _against_golden(self, series: Mapping[str, Series], run: Recorded) -> list[Check]:
        from harness.checks import compare_curves

        golden = self.plan.golden
        if golden is None:
            self.provenance["golden"] = "none"
            return [judge.no_golden(self.plan)]
        fingerprint = self._fingerprint(run)
        comparison = judge.how(golden, fingerprint, deterministic=self.plan.deterministic)
        self.provenance["golden"] = comparison.why
        self.provenance["compared"] = comparison.lane
        self.provenance["golden_provenance"] = dict(golden.provenance)
        checks = compare_curves(
            golden.series,
            series,
            against="golden",
            lane=comparison.lane,
            first=1,
            last=self.n,
            metrics=self.plan.case.metrics,
            statistics=golden.statistics or None,
            note="" if comparison.lane == "exact" else comparison.why,
            enforce_bounds=comparison.same_machine,
            enforce_time=self.plan.cell.hardware != "cpu",  # others may use its cores, and do
        )
        if comparison.lane == "exact":
            checks += judge.golden_state(golden, self._fingerprints_of_state(run))
        return checks

    def _fingerprints_of_state(self, run: Recorded) -> dict[str, str]:
        from harness.checkpoints import fingerprint

        if run.saved not in self._digests:
            with self.phases.timed("state"):
                try:
                    self._digests[run.saved] = fingerprint(run.saved)
                except CheckpointError as error:  # the other comparisons still tell what is missing
                    self._digests[run.saved] = {}
                    self.checks.append(judge.not_whole(run.phase.stop, error))
        return self._digests[run.saved]

    def _components(self, run: Recorded) -> list[str]:
        return sorted(self._fingerprints_of_state(run))

    def _statistics(self, run: Recorded) -> Mapping[str, Any] | None:
        if not self._repeats:
            return None
        from harness.checks import statistics_of

        return statistics_of([run.series, *self._repeats])

    def _fingerprint(self, run: Recorded) -> dict[str, Any]:
        return {
            **self.plan.trainer.provenance(run.phase),
            "platform": self.plan.platform,
            "deterministic": self.plan.deterministic,
        }

    def _describe(self) -> None:
        """What ran, for those who read the verdict without having been there."""
        from harness import __version__
        from harness.machine.provenance import commit

        reference = self.phases.recorded.get("continuous") or self.phases.recorded.get("resumed")
        if reference is not None:
            with contextlib.suppress(HarnessError):
                self.provenance["fingerprint"] = self._fingerprint(reference)
                self.provenance["state"] = self._digests.get(reference.saved, {})
        self.provenance |= {
            "harness": __version__,
            "iterations": self.n,
            "resumed_after": self.k if self.plan.resumes else None,
            "world_size": self.plan.world_size,
            "case": str(self.plan.case.directory),
            "results": str(self.folder.path),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "commit": commit(self.plan.trainer.code()),
        }
        if self._failure is not None:
            self.provenance["error"] = str(self._failure)
