"""Resume from copies of a checkpoint, and compare how training went on from each."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import CheckpointError, MetricsError, TrainerFailed
from harness.protocol import continuation
from harness.protocol.refusal import sentence

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff
    from harness.metrics import Series
    from harness.protocol.findings import Recorded
    from harness.protocol.phases import Phases
    from harness.protocol.states import States
    from harness.trainers.base import Phase

_FOLDER = "trial-{}"
#: Of a curve that METRICS does not name, those that the model decides tell too.
_TRAINING = ("loss", "gradient", "parameters")


@dataclass(frozen=True)
class Went:
    """How training went on from a checkpoint.

    Args:
        series: what it logged.
        saved: where its state at the end is; None where it saved none there.
        failed: why it did not; empty where it went on.
    """

    series: Mapping[str, Series]
    saved: Path | None
    failed: str = ""


class GoingOn:
    """Resumes from copies of one checkpoint.

    Args:
        phases, states: of the cell.
        source: whose checkpoint of k it is.
        k: the iteration to go on from.
        stop: the one to go on to.
        numbers: of the copies.
    """

    def __init__(
        self, phases: Phases, states: States, source: Recorded, k: int, stop: int, numbers: Iterator[int]
    ) -> None:
        self.phases, self.states, self.plan = phases, states, phases.plan
        self.source, self.k, self.stop, self.numbers = source, k, stop, numbers
        #: Seconds of the run that took longest.
        self.longest = 0.0

    def copy(self) -> Path:
        """One more copy of what the run had left at k; raises CheckpointError."""
        load = self.phases.folder.checkpoints(f"{_FOLDER.format(next(self.numbers))}-from")
        self.plan.trainer.rewind(self.source.phase, load, self.k)
        return load

    def saved_in(self, load: Path) -> Path:
        """The checkpoint of k in a copy; raises CheckpointError."""
        return self.plan.trainer.saved(replace(self.source.phase, save=load, load=None, stop=self.k), self.k)

    def from_(self, load: Path) -> Went:
        """Resume from a copy."""
        folder = load.name.removesuffix("-from")
        phase = self.phases.made("resumed", load=load, start=self.k, stop=self.stop, folder=folder)
        return self.run(phase)

    def from_0(self) -> Went:
        """An uninterrupted run that ends where the others do."""
        folder = _FOLDER.format(0)
        return self.run(self.phases.made("interrupted", load=None, start=0, stop=self.stop, folder=folder))

    def run(self, phase: Phase) -> Went:
        """A phase, however it ends."""
        began, before = time.monotonic(), files_of(phase.load)
        try:
            self.phases.launch(phase)
        except TrainerFailed as error:
            return Went({}, None, sentence(error))
        finally:
            self.longest = max(self.longest, time.monotonic() - began)
        try:
            series = self.phases.logged(phase)
        except MetricsError:
            series = {}
        try:
            saved = self.plan.trainer.saved(phase, self.stop)
        except CheckpointError:
            return Went(series, None)
        # What stands in the folder that it was resumed from may be all that there is.
        made = files_of(saved).items() - before.items()
        return Went(series, saved if made else None)

    def first_apart(self, one: Mapping[str, Series], other: Mapping[str, Series]) -> tuple[str | None, int]:
        """The first value that is another, None where all are the same; and how many both have."""
        found, compared = self._compared(one, other)
        step, name = min(found, default=(0, ""))
        return (f"`{name}` of iteration {step} is another" if name else None), compared

    def first_off(self, one: Mapping[str, Series], other: Mapping[str, Series]) -> int | None:
        """The iteration of the first value that is another; None where there is none."""
        return min((step for step, _ in self._compared(one, other)[0]), default=None)

    def _compared(
        self, one: Mapping[str, Series], other: Mapping[str, Series]
    ) -> tuple[list[tuple[int, str]], int]:
        """Of each metric the first value that is another; and how many values both have."""
        from harness.diagnosis.curves import kind_of
        from harness.metrics.known import about

        found: list[tuple[int, str]] = []
        compared = 0
        named = continuation.named(one, self.plan.case.metrics)
        for name, line in one.items():
            theirs = other.get(name)
            if theirs is None or about(name).cost or not (name in named or kind_of(name) in _TRAINING):
                continue
            values = dict(zip(theirs.steps.tolist(), theirs.values.tolist(), strict=True))
            pairs = zip(line.steps.tolist(), line.values.tolist(), strict=True)
            both = [(int(step), value, values[step]) for step, value in pairs if step in values]
            compared += len(both)
            found += [(step, name) for step, value, right in both if not _same(value, right)][:1]
        return found, compared

    def changed(self, like: Went, went: Went) -> StateDiff | None:
        """What was saved otherwise at the end; None where one of them saved nothing there."""
        if like.saved is None or went.saved is None:
            return None
        try:
            return self.states.diff(like.saved, went.saved, resumed=False)
        except CheckpointError:
            return None

    def distances(self, a: Path, b: Path) -> Mapping[str, float]:
        """How far float tensors of two states are apart, relative to the first; none where unreadable."""
        try:
            return self.relative(self.states.diff(a, b, resumed=False))
        except CheckpointError:
            return {}

    def relative(self, difference: StateDiff) -> Mapping[str, float]:
        """The same of what differs."""
        from harness.checkpoints.distances import distances

        found = distances(difference, self.states.places)
        return {name: apart for name, apart in found.items() if math.isfinite(apart)}

    def forget(self, load: Path) -> None:
        """Remove a copy, and what was saved by the run that went on from it: a checkpoint may be large."""
        name = load.name.removesuffix("-from")
        for path in load.parent.glob(f"*{name}*"):
            if path.name.strip(".").split(".")[0] in (name, load.name):
                shutil.rmtree(path, ignore_errors=True)

    def tidy(self) -> None:
        """Remove the copies; what was logged stays."""
        for path in self.phases.folder.path.glob(f"checkpoints/*{_FOLDER.format('*')}"):
            shutil.rmtree(path, ignore_errors=True)


def files_of(folder: Path | None) -> dict[Path, tuple[int, int]]:
    """Size and time of the files in a folder, links followed; of a file, of that."""
    if folder is None:
        return {}
    found = [folder] if folder.is_file() else [path for path in folder.rglob("*") if path.is_file()]
    about = {path.resolve(): path.stat() for path in found}
    return {path: (of.st_size, of.st_mtime_ns) for path, of in about.items()}


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
