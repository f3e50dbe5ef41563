"""Ask the trainer: resume from a checkpoint in which something is another, and look what comes of it.

Where nobody can say what a trainer does with an entry of its checkpoint, it is tried: the entry is altered
in a copy, byte by byte, and training goes on from it for a step. If nothing comes out otherwise, bit for bit,
the entry is not taken up. What the trials mean stands in :mod:`harness.diagnosis.trials`.
"""

from __future__ import annotations

import itertools
import math
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.diagnosis.trials import Trial, Trials, leaf
from harness.errors import CheckpointError, HarnessError, MetricsError, TrainerFailed
from harness.protocol import continuation
from harness.protocol.refusal import sentence

if TYPE_CHECKING:
    from harness.ablation import Alterable
    from harness.checkpoints import StateDiff
    from harness.metrics import Series
    from harness.protocol.findings import Recorded
    from harness.protocol.phases import Phases
    from harness.protocol.states import States
    from harness.trainers.base import Phase

#: What a model and its optimizer are made of; nothing trains on from a checkpoint without any of it.
_OF_THE_MODEL = ("weights", "embedding", "experts", "buffers", "optimizer", "unknown")
_PARAMETERS = ("weights", "embedding", "experts")
#: In which order they are tried: where the number of runs is limited, those first that a loss does not show.
_ORDER = (
    "rng", "data-order", "lr-schedule", "grad-scaler", "optimizer", "buffers", "weights", "embedding",
    "experts", "unknown", "iteration",
)  # fmt: skip
#: An alteration of which less than this is left one step later was not taken up: a step moves less than that.
_LEFT = 0.2
#: Seconds that a diagnosis may experiment at least, however quick the runs were.
LEAST_SECONDS = 60.0
#: And no more than so many times what the run took before: a run that is interrupted, resumed and compared.
TIMES = 3.0
#: What may be lost in part.
_IN_PARTS = ("optimizer", "buffers", "rng", "weights", "embedding", "experts", "unknown")
_MOST_GROUPS = 12
_FLOATS = ("float", "bfloat", "Python float")


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


class Experiments:
    """Resumes from altered checkpoints of one cell, and keeps to a budget.

    Args:
        phases, states: of the cell.
        source: whose checkpoint of k is altered.
        resumed: how it went on from the unaltered one.
        continuous: the uninterrupted run, if there is one.
        seconds: how long all of them may take; None: three times what the run took so far, or a minute.
    """

    def __init__(
        self,
        phases: Phases,
        states: States,
        source: Recorded,
        resumed: Recorded,
        continuous: Recorded | None,
        seconds: float | None = None,
    ) -> None:
        self.phases, self.states, self.plan = phases, states, phases.plan
        self.source, self.resumed, self.continuous = source, resumed, continuous
        self.k = resumed.phase.start
        self._began, self._longest = time.monotonic(), 0.0
        so_far = self.phases.timing()["total"]
        self.seconds = max(LEAST_SECONDS, TIMES * so_far) if seconds is None else seconds
        self._numbers = itertools.count(1)

    # -- what there is -------------------------------------------------------------------------

    @cached_property
    def stop(self) -> int:
        """The iteration to go on to: the next one that is logged, where the trainer can be stopped there."""
        known = self.resumed.series
        named = continuation.named(known, self.plan.case.metrics) or known
        steps = [int(step) for line in named.values() for step in line.steps if step >= self.k]
        first = max(self.k + 1, min((s for s in steps if s > self.k), default=self.k + 1))
        if not self.plan.trainer.ends_itself:
            first = math.ceil(first / self.plan.save_interval) * self.plan.save_interval
        return min(first, self.plan.n)

    @cached_property
    def entries(self) -> tuple[Alterable, ...]:
        """What the checkpoint of k holds that can be altered or not.

        Raises:
            CheckpointError: it cannot be read.
        """
        from harness.ablation import alterable

        saved = self.plan.trainer.saved(self.source.phase, self.k)
        return tuple(alterable(saved, self.states.rules))

    def of_component(self) -> dict[str, list[str]]:
        """Names that can be altered, by component, in the order in which they are tried."""
        found: dict[str, list[str]] = {}
        for entry in self.entries:
            if not entry.reason:
                found.setdefault(entry.component, []).append(entry.name)
        return {c: found[c] for c in sorted(found, key=_ORDER.index)}

    @cached_property
    def unaltered(self) -> Went:
        """Resumed from the checkpoint as it is, as far as the trials go."""
        return self._go_on(self._copy(next(self._numbers)))

    @cached_property
    def repeats(self) -> bool:
        """Whether resuming twice from one checkpoint is the same: without that no trial says anything."""
        if self.unaltered.failed or not self.plan.deterministic:
            return False
        return self._first_apart(self.resumed.series, self.unaltered.series)[0] is None

    # -- trials --------------------------------------------------------------------------------

    def time_is_up(self) -> bool:
        """Whether one more run would take longer than the budget."""
        return time.monotonic() - self._began + self._longest > self.seconds

    def trial(
        self, component: str, names: Sequence[str], *, against: Went | None = None, curves: bool = False
    ) -> Trial:
        """Alter these and only these, resume, and compare with the unaltered one.

        Args:
            component: what they belong to.
            names: the entries.
            against: the unaltered one; None: made for this, if there is none yet.
            curves: only what is logged counts, not what is saved.
        """
        from harness.ablation import alter

        named = tuple(names)
        if self.time_is_up():
            return Trial(
                component, named, taken_up=None, seen=f"not tried: {self.seconds:.0f} s were used up"
            )
        like = against or self.unaltered
        number = next(self._numbers)
        load = self._copy(number)
        try:
            alter(self._saved_in(load), named)
        except CheckpointError as error:
            return Trial(component, named, taken_up=None, seen=f"not tried: {error.message}")
        went = self._go_on(load)
        if went.failed:
            return Trial(component, named, taken_up=True, seen=f"it does not go on from it ({went.failed})")
        apart, compared = self._first_apart(like.series, went.series)
        changed = self._changed(like, went)
        kept = () if changed is None else {entry.name for entry in changed.entries}
        dead = tuple(name for name in named if changed is not None and name not in kept)
        used = apart is not None or any(name not in named for name in kept)
        if apart is not None:
            return Trial(component, named, taken_up=True, seen=apart, dead=dead)
        if changed is not None and changed.entries and not curves:
            first = next((e for e in changed.entries if e.name not in named), changed.entries[0])
            seen = f"`{first.name}` is saved otherwise at {self.stop}"
            return Trial(component, named, taken_up=True, seen=seen, dead=dead, used=used)
        if not compared and (curves or changed is None):
            return Trial(
                component, named, taken_up=None, seen=f"not tried: nothing is logged or saved by {self.stop}"
            )
        return Trial(component, named, taken_up=False, dead=named, used=False)

    @cached_property
    def trained_from(self) -> Trial | None:
        """Whether anything that is logged depends on the model that was saved; None where it holds none.

        Raises:
            CheckpointError: the checkpoint cannot be read.
        """
        floats = [
            entry.name
            for entry in self.entries
            if not entry.reason and entry.component in _OF_THE_MODEL and entry.dtype.startswith(_FLOATS)
        ]
        names = floats or [name for names in self.of_component().values() for name in names]
        if not names:
            return None
        like = Went(self.resumed.series, None)
        return self.trial("checkpoint", names, against=like, curves=True)

    def all(self, due: Collection[str] = ()) -> Trials:
        """A component each, within the budget, and what the first step alone has changed.

        Args:
            due: the components to try; empty: all of them.
        """
        found = Trials(self.k, self.stop, again=self._again())
        try:
            groups = self.of_component()
        except HarnessError as error:
            return replace(found, notes=(f"no experiments: {error.message}",))
        if not self.repeats:
            why = self.unaltered.failed or "resumed twice from the same checkpoint, it is not the same twice"
            return replace(found, notes=(f"no experiments: {why}",))
        if not groups:
            reasons = dict.fromkeys(entry.reason for entry in self.entries if entry.reason)
            return replace(found, notes=tuple(f"no experiments: {reason}" for reason in reasons))
        whole = self.trained_from
        found = replace(found, whole=whole, moving=self._moving())
        if found.unread:
            return found
        one_step, further = self._one_step()
        found = replace(found, one_step=one_step, further=further)
        trials: list[Trial] = []
        notes = []
        for component, names in groups.items():
            if due and component not in (*due, "unknown"):
                continue
            one = self.trial(component, self._with_masters(component, names, groups))
            if one.taken_up is None:
                notes.append(f"{component}: {one.seen}")
                continue
            trials.append(self._looked_into(replace(one, names=tuple(names))))
        trials = [self._halved(one) for one in trials]
        return replace(found, of_each=tuple(trials), notes=tuple(notes))

    # -- the pieces ----------------------------------------------------------------------------

    def _with_masters(
        self, component: str, names: Sequence[str], groups: Mapping[str, Sequence[str]]
    ) -> list[str]:
        """Weights that are written over from fp32 masters change nothing by themselves."""
        if component not in _PARAMETERS:
            return list(names)
        words = ("fp32", "master", ".param")
        return [*names, *(n for n in groups.get("optimizer", ()) if any(word in n.lower() for word in words))]

    def _looked_into(self, one: Trial) -> Trial:
        """With those parameters that were altered and are not any more, one step later."""
        if one.component not in (*_PARAMETERS, "buffers") or not one.taken_up or self._last is None:
            return one
        went, load = self._last
        if went.saved is None or self.unaltered.saved is None:
            return one
        apart = self._distances(self.unaltered.saved, went.saved)
        altered = self._distances(self.plan.trainer.saved(self.source.phase, self.k), self._saved_in(load))
        little = [
            name
            for name in one.names
            if name not in one.dead and name in altered and apart.get(name, 0.0) < _LEFT * altered[name]
        ]
        if not little:
            return one
        again = self.trial(one.component, little)
        return replace(one, dead=(*one.dead, *little)) if again.taken_up is False else one

    def _halved(self, one: Trial) -> Trial:
        """With what of it is not taken up, where nothing saved would say so: by kind, then by halves."""
        if not one.taken_up or one.component not in _IN_PARTS or self.unaltered.saved is not None:
            return one
        kinds: dict[str, list[str]] = {}
        for name in one.names:
            kinds.setdefault(leaf(name), []).append(name)
        groups = list(kinds.values()) if len(kinds) > 1 else _halves(one.names)
        dead: list[str] = []
        for group in groups:
            trial = self.trial(one.component, group)
            if trial.taken_up is None:
                break
            if trial.taken_up is False:
                dead += group
            elif len(group) > 1 and len(groups) < _MOST_GROUPS:
                groups += _halves(group)
        return replace(one, dead=tuple(dead))

    def _one_step(self) -> tuple[StateDiff | None, dict[str, float]]:
        """The uninterrupted run and the resumed one at the iteration that the trials go to."""
        if self.unaltered.saved is None or not self.plan.trainer.ends_itself:
            return None, {}
        saved = self._uninterrupted()
        if saved is None:
            return None, {}
        try:
            difference = self.states.diff(saved, self.unaltered.saved, resumed=True)
            apart = self._relative(difference)
            moved = self._distances(self.plan.trainer.saved(self.source.phase, self.k), saved)
        except CheckpointError:
            return None, {}
        further = {name: one / moved[name] for name, one in apart.items() if moved.get(name)}
        return difference, further

    def _uninterrupted(self) -> Path | None:
        if self.time_is_up():
            return None
        if self.continuous is not None:
            try:
                return self.plan.trainer.saved(self.continuous.phase, self.stop, alone=True)
            except CheckpointError:
                pass
        phase = self.phases.made("interrupted", load=None, start=0, stop=self.stop, folder="trial-0")
        return self._run(phase).saved

    def _moving(self) -> frozenset[str] | None:
        """The entries that are others at N than at k; None where nobody knows."""
        if self.continuous is None:
            return None
        try:
            saved = self.plan.trainer.saved(self.source.phase, self.k)
            difference = self.states.diff(saved, self.continuous.saved, resumed=False)
        except CheckpointError:
            return None
        return frozenset(entry.name for entry in difference.entries)

    def _copy(self, number: int) -> Path:
        load = self.phases.folder.checkpoints(f"trial-{number}-from")
        self.plan.trainer.rewind(self.source.phase, load, self.k)
        return load

    def _saved_in(self, load: Path) -> Path:
        return self.plan.trainer.saved(replace(self.source.phase, save=load, load=None, stop=self.k), self.k)

    def _go_on(self, load: Path) -> Went:
        folder = load.name.removesuffix("-from")
        phase = self.phases.made("resumed", load=load, start=self.k, stop=self.stop, folder=folder)
        went = self._run(phase)
        self._last = (went, load)
        return went

    _last: tuple[Went, Path] | None = None

    def _run(self, phase: Phase) -> Went:
        began = time.monotonic()
        try:
            self.phases.launch(phase)
        except TrainerFailed as error:
            return Went({}, None, sentence(error))
        finally:
            self._longest = max(self._longest, time.monotonic() - began)
        try:
            series = continuation.named(self.phases.logged(phase), self.plan.case.metrics)
        except MetricsError:
            series = {}
        try:
            return Went(series, self.plan.trainer.saved(phase, self.stop))
        except CheckpointError:
            return Went(series, None)

    def _first_apart(self, one: Mapping[str, Series], other: Mapping[str, Series]) -> tuple[str | None, int]:
        """The first value that is another, None where all are the same; and how many both have."""
        from harness.metrics.known import about

        found: list[tuple[int, str]] = []
        compared = 0
        for name, line in continuation.named(one, self.plan.case.metrics).items():
            theirs = other.get(name)
            if theirs is None or about(name).cost:
                continue
            values = dict(zip(theirs.steps.tolist(), theirs.values.tolist(), strict=True))
            pairs = zip(line.steps.tolist(), line.values.tolist(), strict=True)
            both = [(int(step), value, values[step]) for step, value in pairs if step in values]
            compared += len(both)
            found += [(step, name) for step, value, other in both if not _same(value, other)][:1]
        step, name = min(found, default=(0, ""))
        return (f"`{name}` of iteration {step} is another" if name else None), compared

    def _changed(self, like: Went, went: Went) -> StateDiff | None:
        if like.saved is None or went.saved is None:
            return None
        try:
            return self.states.diff(like.saved, went.saved, resumed=False)
        except CheckpointError:
            return None

    def _distances(self, a: Path, b: Path) -> Mapping[str, float]:
        try:
            return self._relative(self.states.diff(a, b, resumed=False))
        except CheckpointError:
            return {}

    def _relative(self, difference: StateDiff) -> Mapping[str, float]:
        from harness.checkpoints.distances import distances

        found = distances(difference, self.states.places)
        return {name: apart for name, apart in found.items() if math.isfinite(apart)}

    def _again(self) -> str:
        return f"{self.plan.sensitivity_command} --entry {{}}"

    def tidy(self) -> None:
        """Remove the copies; what was logged stays."""
        for path in self.phases.folder.path.glob("checkpoints/*trial-*"):
            shutil.rmtree(path, ignore_errors=True)


def _halves(names: Sequence[str]) -> list[list[str]]:
    """Two, where there are two."""
    half = len(names) // 2
    return [list(names[:half]), list(names[half:])] if half else []


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
