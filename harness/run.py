"""One cell being run: the steps that :mod:`harness.protocol` puts into sentences."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from harness import __version__
from harness.errors import CheckpointError, HarnessError, TrainerFailed
from harness.launch import Launcher
from harness.plan import Plan
from harness.report.observer import Observer
from harness.results import ResultsFolder
from harness.trainers.base import Phase, PhaseName

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff
    from harness.checks import Check
    from harness.diagnosis import Diagnosis
    from harness.metrics import Series
    from harness.report.verdict import Verdict


@dataclass(frozen=True)
class Recorded:
    """What a phase left behind."""

    phase: Phase
    series: Mapping[str, Series]

    @property
    def saved(self) -> Path:
        """Its checkpoint of the last iteration."""
        from harness.checkpoints import iter_dir

        return iter_dir(self.phase.save, self.phase.stop)


class Run:
    """Runs phases and collects checks.

    A context manager: what stops the run inside it (a dead rank, a torn file) goes into the
    verdict, and no process outlives it.
    """

    def __init__(self, plan: Plan, folder: ResultsFolder, observer: Observer) -> None:
        self.plan, self.folder, self.observer = plan, folder, observer
        self.n, self.k = plan.n, plan.k
        self.checks: list[Check] = []
        self.timing: dict[str, float] = {}
        self.provenance: dict[str, Any] = {}
        self._launcher = Launcher()
        self._began = time.monotonic()
        self._continuous: Recorded | None = None
        self._state: StateDiff | None = None
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
        self._launcher.close()
        if not isinstance(error, HarnessError):
            return False
        self._failure = error
        self._diagnosis = judge.crash(error)
        return True

    # -- the steps ---------------------------------------------------------------------------

    def train(self, *, stop: int) -> Recorded:
        """From 0 to ``stop``, uninterrupted."""
        self._continuous = self._phase("continuous", load=None, start=0, stop=stop)
        return self._continuous

    def resume(self, source: Recorded, *, at: int, stop: int) -> Recorded | None:
        """From ``source``'s checkpoint of ``at`` to ``stop``; None if that cannot be loaded."""
        load = self.folder.checkpoints("resumed")
        try:
            self.plan.trainer.rewind(source.phase.save, load, at)
            resumed = self._phase("resumed", load=load, start=at, stop=stop)
        except (CheckpointError, TrainerFailed) as error:
            cause = error.__cause__ if isinstance(error, TrainerFailed) else error
            if not isinstance(cause, CheckpointError):
                raise
            self.checks.append(judge.not_loaded(at, cause))
            return None
        self.checks.append(judge.resumed_there(at, resumed.series))
        return resumed

    def compare_with_golden(self, continuous: Recorded) -> None:
        """The uninterrupted run over 1..N: did training change?"""
        fingerprint = self._fingerprint(continuous)
        self.provenance |= fingerprint
        if self.plan.golden_update:
            return
        with self._timed("checks"):
            verdict = judge.against_golden(self.plan, continuous, fingerprint)
        self.provenance["golden"] = verdict.chosen
        self.checks += verdict.checks

    def compare_with_uninterrupted(self, resumed: Recorded | None, continuous: Recorded) -> None:
        """The resumed run over k+1..N: was anything lost that a curve shows?"""
        if resumed is None:
            return
        with self._timed("checks"):
            self.checks += judge.against_continuous(self.plan, resumed, continuous)

    def compare_saved_state(self, resumed: Recorded | None, continuous: Recorded) -> None:
        """Every tensor, moment, counter and RNG state at N."""
        if resumed is None:
            return
        with self._timed("checks"):
            self._state, checks = judge.saved_state(self.plan, resumed.saved, continuous.saved)
            self.checks += checks

    def record_golden(self) -> None:
        """Approve the uninterrupted run, if that was asked for and resuming it is sound."""
        if not self.plan.golden_update or self._continuous is None:
            return
        unsound = [check for check in self.checks if not check.passed]
        if unsound:
            self.checks.append(judge.golden_refused(unsound))
            return
        run = self._continuous
        change = judge.record(self.plan, run.series, self._fingerprint(run), run.saved)
        self.checks.append(judge.golden_recorded(change))

    def say_what_was_lost(self) -> None:
        """Name the component, if something was lost; a probe separates load from training."""
        failed = [check for check in self.checks if not check.passed]
        if not failed or self.plan.golden_update:
            return
        probe = self._probe() if any(check.against != "golden" for check in failed) else None
        with self._timed("diagnosis"):
            self._diagnosis = judge.what_was_lost(self.checks, self._state, probe)

    def verdict(self) -> Verdict:
        """All of it."""
        from harness.report.verdict import Verdict

        self.timing["total"] = time.monotonic() - self._began
        held = all(check.passed for check in self.checks)
        return Verdict(
            cell=self.plan.cell.id,
            status="error" if self.failure else "passed" if held else "failed",
            checks=tuple(self.checks),
            diagnosis=self._diagnosis,
            timing={name: round(seconds, 3) for name, seconds in self.timing.items()},
            provenance=self.provenance,
            reproduce=self.plan.reproduce,
        )

    # -- how ---------------------------------------------------------------------------------

    def _phase(self, name: PhaseName, *, load: Path | None, start: int, stop: int) -> Recorded:
        from harness.metrics import read_metrics

        plan, hardware = self.plan, self.plan.cell.hardware
        phase = Phase(
            name=name,
            folder=self.folder.phase(name),
            save=self.folder.checkpoints(name),
            load=load,
            start=start,
            stop=stop,
            train_iters=self.n,
            save_interval=plan.save_interval,
        )
        phase.folder.mkdir(parents=True, exist_ok=True)
        phase.save.mkdir(parents=True, exist_ok=True)
        self.observer.phase_started(name, start, stop)
        outcome = self._launcher.run(
            plan.trainer.launch(plan.case, hardware, phase),
            phase=name,
            folder=phase.folder,
            timeout=plan.heartbeat_timeout,
            on_progress=lambda iteration: self.observer.progress(name, iteration),
        )
        self.timing[name] = outcome.seconds
        self.timing[f"{name} start-up"] = outcome.startup_seconds
        self.observer.phase_ended(name, outcome.seconds)
        return Recorded(phase, read_metrics(phase.tensorboard, phase.folder))

    def _probe(self) -> StateDiff | None:
        """Load k and save it again without a step: what differs was lost by that alone."""
        from harness.checkpoints import diff

        if self._continuous is None:
            return None
        source = self._continuous.phase.save
        load = self.folder.checkpoints("probe-source")
        try:
            self.plan.trainer.rewind(source, load, self.k)
            probe = self._phase("probe", load=load, start=self.k, stop=self.k)
            return diff(iter_dir(source, self.k), probe.saved)
        except HarnessError as error:  # the diagnosis then goes without it
            self.observer.note(f"probe: {error}")
            return None

    def _fingerprint(self, run: Recorded) -> dict[str, Any]:
        return {
            **self.plan.trainer.provenance(run.phase.folder),
            "platform": self.plan.platform,
            "deterministic": self.plan.deterministic,
        }

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.timing[what] = self.timing.get(what, 0.0) + time.monotonic() - began
