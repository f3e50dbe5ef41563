"""Ask the trainer: resume from a checkpoint in which something is another, and look what comes of it.

Where nobody can say what a trainer does with an entry of its checkpoint, it is tried: the entry is altered
in a copy, byte by byte, and training goes on from it for a step. If nothing comes out otherwise, bit for bit,
the entry is not taken up. What the trials mean stands in :mod:`harness.diagnosis.trials`.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.diagnosis.trials import Trial, Trials, leaf
from harness.errors import CheckpointError, HarnessError
from harness.protocol import continuation
from harness.protocol.going_on import GoingOn, Went, files_of

if TYPE_CHECKING:
    from harness.ablation import Alterable
    from harness.checkpoints import StateDiff
    from harness.protocol.findings import Recorded
    from harness.protocol.phases import Phases
    from harness.protocol.states import States

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
        self._began = time.monotonic()
        self._last: tuple[Went, Path] | None = None
        self._numbers = itertools.count(1)
        #: The iteration to go on to.
        self.stop = self._logged_first
        so_far = self.phases.timing()["total"]
        self.seconds = max(LEAST_SECONDS, TIMES * so_far) if seconds is None else seconds

    # -- what there is -------------------------------------------------------------------------

    @cached_property
    def _logged_first(self) -> int:
        """The first iteration after k that is logged, and that the trainer can be stopped at."""
        known = self.resumed.series
        named = continuation.named(known, self.plan.case.metrics) or known
        steps = [int(step) for line in named.values() for step in line.steps if step >= self.k]
        first = max(self.k + 1, min((s for s in steps if s > self.k), default=self.k + 1))
        if not self.plan.trainer.ends_itself:
            first = math.ceil(first / self.plan.save_interval) * self.plan.save_interval
        return min(first, self.plan.n)

    @cached_property
    def going_on(self) -> GoingOn:
        """Runs them."""
        return GoingOn(self.phases, self.states, self.source, self.k, self.stop, self._numbers)

    def tidy(self) -> None:
        """Remove the copies; what was logged stays."""
        self.going_on.tidy()

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
            if not entry.reason and (self.moving is None or entry.name in self.moving):
                found.setdefault(entry.component, []).append(entry.name)
        return {c: found[c] for c in sorted(found, key=_ORDER.index)}

    @cached_property
    def unaltered(self) -> Went:
        """Resumed from the checkpoint as it is, as far as the trials go."""
        return self.going_on.from_(self.going_on.copy())

    @cached_property
    def repeats(self) -> bool:
        """Whether resuming twice from one checkpoint is the same: without that no trial says anything."""
        if self.unaltered.failed or not self.plan.deterministic:
            return False
        return self.going_on.first_apart(self.resumed.series, self.unaltered.series)[0] is None

    # -- trials --------------------------------------------------------------------------------

    def time_is_up(self) -> bool:
        """Whether one more run would take longer than the budget."""
        return time.monotonic() - self._began + self.going_on.longest > self.seconds

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
        if self._last is not None:
            self.going_on.forget(self._last[1])
        load = self.going_on.copy()
        try:
            alter(self.going_on.saved_in(load), named)
        except CheckpointError as error:
            return Trial(component, named, taken_up=None, seen=f"not tried: {error.message}")
        went = self.going_on.from_(load)
        self._last = (went, load)
        if went.failed:
            return Trial(component, named, taken_up=True, seen=f"it does not go on from it ({went.failed})")
        begins = continuation.first_of(went.series)
        if begins is not None and begins < self.k - 1:  # it knows that something is wrong with it
            return Trial(component, named, taken_up=True, seen=f"it does not go on from it, but at {begins}")
        apart, compared = self.going_on.first_apart(like.series, went.series)
        changed = self.going_on.changed(like, went)
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
        return self._of_the_whole(Went(self.resumed.series, None), curves=True)

    def _of_the_whole(self, like: Went, *, curves: bool) -> Trial | None:
        """The floats of a model altered at once; if nothing depends on them, all that training changes."""
        moving = [
            entry
            for entry in self.entries
            if not entry.reason
            and entry.component != "iteration"
            and (self.moving is None or entry.name in self.moving)
        ]
        model = [e.name for e in moving if e.component in _OF_THE_MODEL and e.dtype.startswith(_FLOATS)]
        if not model:
            return None
        one = self.trial("checkpoint", model, against=like, curves=curves)
        if one.taken_up is not False or len(model) == len(moving):
            return one
        return self.trial("checkpoint", [entry.name for entry in moving], against=like, curves=curves)

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
        if self.plan.trainer.ends_itself:
            self._go_to(self.k + 1)
        if self.unaltered.saved is None and not self.unaltered.failed:
            self._go_to(self._where_it_shows())
        found = replace(found, stop=self.stop, curves_only=self.unaltered.saved is None)
        if not self.repeats:
            why = self.unaltered.failed or "resumed twice from the same checkpoint, it is not the same twice"
            return replace(found, notes=(f"no experiments: {why}",))
        if not groups:
            reasons = dict.fromkeys(entry.reason for entry in self.entries if entry.reason)
            return replace(found, notes=tuple(f"no experiments: {reason}" for reason in reasons))
        whole = self._of_the_whole(self.unaltered, curves=False)
        found = replace(found, whole=whole, moving=self.moving, untied=self._untied())
        if found.unread:
            return found
        one_step, further = self._one_step()
        found = replace(found, one_step=one_step, further=further)
        trials: list[Trial] = []
        notes, untried = [], []
        for component, names in groups.items():
            if component == "iteration" or (due and component not in (*due, "unknown")):
                continue  # a run that counts otherwise ends elsewhere: where it went on was looked at before
            one = self.trial(component, self._with_masters(component, names, groups))
            if one.taken_up is None:
                notes.append(f"{component}: {one.seen}")
                untried.append(component)
                continue
            trials.append(self._looked_into(replace(one, names=tuple(names))))
        if set(replace(found, of_each=tuple(trials)).lost()) <= {"buffers", "unknown"}:
            trials = [self._halved(one) for one in trials]
        return replace(found, of_each=tuple(trials), untried=tuple(untried), notes=tuple(notes))

    # -- the pieces ----------------------------------------------------------------------------

    def _where_it_shows(self) -> int:
        """Where only what is logged can tell, it must be logged: the first value that is off, or any."""
        theirs = self.continuous.series if self.continuous is not None else {}
        off = self.going_on.first_off(self.resumed.series, theirs)
        return min(max(self._logged_first, off or 0), self.plan.n)

    def _go_to(self, stop: int) -> None:
        if stop == self.stop:
            return
        self.stop = stop
        for made in ("going_on", "unaltered", "repeats"):
            self.__dict__.pop(made, None)

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
        apart = self.going_on.distances(self.unaltered.saved, went.saved)
        altered = self.going_on.distances(
            self.plan.trainer.saved(self.source.phase, self.k), self.going_on.saved_in(load)
        )
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
            apart = self.going_on.relative(difference)
            moved = self.going_on.distances(self.plan.trainer.saved(self.source.phase, self.k), saved)
        except CheckpointError:
            return None, {}
        further = {name: one / moved[name] for name, one in apart.items() if moved.get(name)}
        return difference, further

    def _uninterrupted(self) -> Path | None:
        if self.time_is_up():
            return None
        if self.continuous is not None:
            try:
                found = self.plan.trainer.saved(self.continuous.phase, self.stop, alone=True)
                if files_of(found) != files_of(self.continuous.saved):  # it has kept that one
                    return found
            except CheckpointError:
                pass
        return self.going_on.from_0().saved

    def _untied(self) -> tuple[str, ...]:
        """Entries that are one tensor at k, and are not any more where it went on."""
        from harness.ablation import alterable

        if self.unaltered.saved is None:
            return ()
        there = {entry.name: entry for entry in alterable(self.unaltered.saved, self.states.rules)}
        return next(
            (
                (entry.name, *entry.together)
                for entry in self.entries
                if entry.together
                and all(name in there for name in (entry.name, *entry.together))
                and not there[entry.name].together
            ),
            (),
        )

    @cached_property
    def moving(self) -> frozenset[str] | None:
        """The entries that are others at N than at k; None where nobody knows."""
        end = (self.continuous or self.resumed).saved
        try:
            saved = self.plan.trainer.saved(self.source.phase, self.k)
            difference = self.states.diff(saved, end, resumed=False)
        except CheckpointError:
            return None
        return frozenset(entry.name for entry in difference.entries)

    def _again(self) -> str:
        return f"{self.plan.sensitivity_command} --entry"


def _halves(names: Sequence[str]) -> list[list[str]]:
    """Two, where there are two."""
    half = len(names) // 2
    return [list(names[:half]), list(names[half:])] if half else []
