"""The phases of a cell: each launched, timed, and kept with what it left behind."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import CheckpointError, MetricsError, NothingLogged
from harness.launch.launcher import Launcher
from harness.matrix import CASE_FILE
from harness.protocol import continuation
from harness.protocol.findings import Recorded
from harness.protocol.observer import Observer
from harness.protocol.plan import Plan
from harness.protocol.results import ResultsFolder
from harness.trainers.base import Phase, PhaseName

if TYPE_CHECKING:
    from harness.metrics import Series


def ended(series: Mapping[str, Series], start: int, n: int) -> int | None:
    """The iteration that a run's curves end at, where that is clearly before ``n``; None where it is not.

    Not every step is logged, and steps are counted from 0 by some: only where one more value of the metric
    that is logged most often had its place before ``n``, the run ended early.

    Args:
        start: the iteration that the run began behind.
    """
    line = max(series.values(), key=len, default=None)
    if line is None or len(line) < 2:
        return None
    steps = sorted({int(step) for step in line.steps})
    pauses = sorted(after - before for before, after in itertools.pairwise(steps))
    if not pauses:
        return None
    from_zero = steps[0] in (0, start)  # the first step of such a run has the number of those before it
    last, pause = steps[-1] + from_zero, pauses[len(pauses) // 2]
    return last if last + pause <= n else None


class Phases:
    """Runs the phases of one cell, one after the other, through one launcher.

    A context manager: no process outlives it.

    Args:
        plan: what to run.
        folder: the cell's results.
        observer: told of the progress.
        devices: set in the environment of every rank, on top of everything else.
        launcher: whose warm parent is used, and kept for the next cell; None: one for this cell.
    """

    def __init__(
        self,
        plan: Plan,
        folder: ResultsFolder,
        observer: Observer,
        devices: Mapping[str, str],
        launcher: Launcher | None = None,
    ) -> None:
        self.plan, self.folder, self.observer = plan, folder, observer
        self._devices = devices
        self._launcher, self._lent = launcher or Launcher(), launcher is not None
        #: What a person should know of the case and of how it is started; said once a cell.
        self.notes: tuple[str, ...] = ()
        self._timing: dict[str, float] = {}
        self._began = time.monotonic()

    def __enter__(self) -> Phases:
        return self

    def __exit__(self, *_: object) -> None:
        # The parent of a launcher that was lent stays: no rank is below it.
        if not self._lent:
            self._launcher.close()

    def run(self, name: PhaseName, *, load: Path | None, start: int, stop: int, folder: str = "") -> Recorded:
        """Launch a phase, wait for its end, and read what it logged.

        Args:
            name: which phase.
            load: the folder that it resumes from; None: from scratch.
            start, stop: iterations.
            folder: what it is called where one name is not enough, as for repeats.

        Raises:
            TrainerFailed: a rank failed, or hangs.
            MetricsError: what it logged cannot be read.
            NothingLogged: nothing is there to be read.
        """
        phase = self.made(name, load=load, start=start, stop=stop, folder=folder)
        self.launch(phase)
        series = {} if name == "probe" else self.logged(phase)
        if name == "interrupted" and not self.plan.trainer.can_rewind:
            # A script that is ended at its checkpoint of k has gone on meanwhile; it is resumed from k.
            series = dict(continuation.before(series, stop))
        judged = continuation.named(series, self.plan.case.metrics)
        end = min(stop, ended(judged, start, self.plan.n) or stop)
        try:
            saved, of = self.plan.trainer.saved(phase, stop), stop
        except CheckpointError:
            if end == stop:
                raise
            saved, of = self.plan.trainer.saved(phase, end), end
        return Recorded(phase=phase, series=series, saved=saved, end=end, saved_at=of)

    def trained(self, name: PhaseName, *, behind: int, folder: str = "") -> bool:
        """Whether a phase that has failed had logged a step by then.

        Args:
            name: which.
            behind: the iteration that it was to go on from; some count it as the first.
            folder: what it is called where one name is not enough.
        """
        from harness.metrics import read_metrics

        phase = self.made(name, load=None, start=behind, stop=self.plan.n, folder=folder)
        try:
            series = read_metrics(phase.tensorboard, phase.folder)
        except MetricsError:
            return False
        return any((line.steps >= behind).any() for line in series.values())

    def last_words(self, name: PhaseName, called: str = "") -> list[str]:
        """The last lines of a phase's logs."""
        from harness.launch.root_cause import words_at_the_end
        from harness.machine.secrets import Secrets

        secrets, folder = Secrets(os.environ), self.folder.phase(called or name)
        return words_at_the_end(folder, folder / "logs" / "trainer.log", secrets.text)

    def logged(self, phase: Phase) -> Mapping[str, Series]:
        """What a phase logged; raises MetricsError."""
        from harness.metrics import stdout
        from harness.metrics.known import about

        trainer, said = self.plan.trainer, list[str]()
        ended_by_us = phase.name == "interrupted" and not trainer.ends_itself
        try:
            series = self._read(phase, said, killed=ended_by_us)
            if not trainer.measures:
                series = {name: line for name, line in series.items() if not about(name).cost}
        except NothingLogged as error:
            if trainer.name != "command":
                raise
            if not ended_by_us:
                raise NothingLogged(error.message, stdout.advice(phase.folder, error.advice)) from error
            series = {}
        if ended_by_us and not series:  # what it had in its buffers went with it
            said = [f"{phase.name}: nothing of its metrics was written when it was ended: not compared"]
        for text in said:
            self.say(text)
        # A part of a run may be too short for a line that is printed now and then; a whole one is not.
        whole = phase.name in ("continuous", "repeat") and stdout.is_declared(phase.folder)
        if whole and (unmatched := stdout.unmatched(phase.folder)):
            raise NothingLogged(
                f"{phase.folder / stdout.LOG}: no line matches HARNESS.metrics.stdout {unmatched[0]!r}",
                stdout.advice(phase.folder),
            )
        return series

    def _read(self, phase: Phase, notes: list[str], *, killed: bool) -> dict[str, Series]:
        """What there is, in whichever form; raises MetricsError."""
        from harness.metrics import read_metrics, trainer_state

        try:
            return read_metrics(phase.tensorboard, phase.folder, killed=killed, notes=notes)
        except NothingLogged:
            if self.plan.trainer.name != "command":
                raise
            trainer_state.take(phase.folder, (phase.save, *([phase.load] if phase.load else [])))
            return read_metrics(phase.tensorboard, phase.folder, killed=killed, notes=notes)

    def say(self, text: str) -> None:
        """Say something once a cell, and in the verdict."""
        if text not in self.notes:
            self.notes = (*self.notes, text)
            self.observer.note(text)

    def made(self, name: PhaseName, *, load: Path | None, start: int, stop: int, folder: str = "") -> Phase:
        """A phase with its folders made."""
        phase = Phase(
            name=name,
            folder=self.folder.phase(folder or name),
            save=self.folder.checkpoints(folder or name),
            load=load,
            start=start,
            stop=stop,
            train_iters=self.plan.n,
            save_interval=self.plan.save_interval,
        )
        phase.folder.mkdir(parents=True, exist_ok=True)
        phase.save.mkdir(parents=True, exist_ok=True)
        if self.plan.trainer.name == "command" and (printed := self.plan.case.harness.metrics.stdout):
            from harness.metrics import stdout

            stdout.declare(phase.folder, printed)
        return phase

    def launch(
        self,
        phase: Phase,
        *,
        on_started: Callable[[list[int]], None] | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        """Run a phase to its end, and time it.

        Args:
            phase: which.
            on_started: told the process ids of the ranks.
            on_progress: told the iteration that every rank has come to.

        Raises:
            TrainerFailed: a rank failed, or hangs.
        """
        plan, name = self.plan, phase.folder.name

        def progress(iteration: int) -> None:
            self.observer.progress(name, iteration)
            if on_progress is not None:
                on_progress(iteration)

        self.observer.phase_started(name, phase.start, phase.stop)
        launch = plan.trainer.launch(phase)
        if not self._timing:
            file = plan.case.directory / CASE_FILE
            warned = (f"warning: {file}: {said}" for said in plan.case.warnings)
            self.notes = (*warned, *launch.notes)
            for said in self.notes:
                self.observer.note(said)
        outcome = self._launcher.run(
            replace(launch, env={**launch.env, **self._devices}),
            phase=name,
            folder=phase.folder,
            timeout=plan.options.heartbeat_timeout,
            on_progress=progress,
            on_started=on_started,
            reads=phase.load,
            writes=phase.save,
        )
        self._timing[name] = outcome.seconds
        self._timing[f"{name} start-up"] = outcome.startup_seconds
        self.observer.phase_ended(name, outcome.seconds)

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of what the ranks ran on, where that is on other machines."""
        return self._launcher.engine.devices

    @property
    def where(self) -> Mapping[str, object]:
        """On which nodes they ran; empty for this machine."""
        return self._launcher.engine.provenance

    # -- time --------------------------------------------------------------------------------

    def timing(self) -> dict[str, float]:
        """Seconds of each phase and of what was timed; ``total`` is since the beginning."""
        return {**self._timing, "total": time.monotonic() - self._began}

    def took(self, what: str, seconds: float) -> None:
        """Note how long something has taken."""
        self._timing[what] = seconds

    def seconds_of(self, name: str) -> float:
        """How long a phase has trained that has run to its end; at least a moment."""
        return max(0.05, self._timing.get(name, 0.0) - self._timing.get(f"{name} start-up", 0.0))

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the time of a block to ``what``."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._timing[what] = self._timing.get(what, 0.0) + time.monotonic() - began
