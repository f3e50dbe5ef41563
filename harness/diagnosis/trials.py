"""What resuming from an altered checkpoint says: an entry that changes nothing is not taken up.

The trials are made by :mod:`harness.protocol.experiments`; here is what they mean.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.diagnosis.result import CAUSES, PARAMETERS, Candidate

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff

#: Entries that a trainer may save and compute anew all the same: they count only where all of a kind is dead.
_COMPUTED_ANEW = ("lr", "initial_lr", "_last_lr", "_step_count", "_initial_step")
#: What a step decides of itself, whatever the weights are: it differs after one step only where it was lost.
UNMIXED = ("data-order", "lr-schedule", "grad-scaler", "rng", "iteration")
#: A tensor that is so many times further off than one step moves it was another one before the step.
_FURTHER = 10.0
_SHOWN = 3
#: More steps than that mix everything with everything.
_SOON = 2
#: Averages and statistics that no loss of training is made with.
_NO_PART = re.compile(r"running_(?:mean|var)|num_batches_tracked|(?:^|[./:_])ema(?:[./:_]|$)|averag|shadow")
#: An average of the weights, a statistic: no loss of training need depend on it.
_BESIDE = ("buffers", "unknown")
#: What somebody must go on from, beside handing it on.
_PLACES = ("data-order",)


@dataclass(frozen=True)
class Trial:
    """Some entries of the checkpoint of k were altered, and training was resumed from it for a few steps.

    Args:
        component: what they belong to.
        names: the entries that were altered.
        taken_up: whether anything came out otherwise; None where that was not tried.
        seen: where it was seen, or why it was not tried.
        dead: those of ``names`` that were saved again as without the alteration.
        used: whether anything else came out otherwise: a value that is only handed on may be ignored.
    """

    component: str
    names: tuple[str, ...]
    taken_up: bool | None
    seen: str = ""
    dead: tuple[str, ...] = ()
    used: bool = True


@dataclass(frozen=True)
class Trials:
    """All that was tried.

    Args:
        k, stop: the iteration resumed after, and the one that it was resumed to.
        of_each: a component each, or a part of one.
        whole: everything that a model and its optimizer are, altered at once; None where that was not tried.
        moving: entries that training changes; losing any other one loses nothing.
        one_step: the uninterrupted run and the resumed one at ``stop``, where they were saved there.
        further: how many times further apart than training moves them tensors are at ``stop``, by name.
        curves_only: nothing is saved at ``stop``: what no loss depends on is never seen to be taken up.
        untied: what was one tensor where nothing was resumed, and is several in the resumed run.
        again: the command that tries an entry again, without its name.
        untried: components that there was no time for, or no way.
        notes: what could not be tried, and why.
    """

    k: int
    stop: int
    of_each: tuple[Trial, ...] = ()
    whole: Trial | None = None
    moving: frozenset[str] | None = None
    one_step: StateDiff | None = None
    further: Mapping[str, float] = field(default_factory=dict)
    curves_only: bool = False
    untied: tuple[str, ...] = ()
    again: str = ""
    untried: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    # -- what is not taken up ------------------------------------------------------------------

    @property
    def unread(self) -> str:
        """That nothing of the checkpoint is trained from; empty where something is, or it was not tried."""
        if self.whole is None or self.whole.taken_up is not False:
            return ""
        return (
            f"{_of(self.whole.names)} altered in the checkpoint of {self.k}, all at once, and resumed to "
            f"{self.stop}: nothing comes out otherwise: it does not train from what it was given"
        )

    def lost(self) -> dict[str, str]:
        """A sentence for each component that is saved, moves, and is not taken up as a whole."""
        return {
            trial.component: self._sentence(trial.names)
            for trial in self.of_each
            if trial.taken_up is False and self._moves(trial.names)
        }

    def lost_in_part(self) -> dict[str, tuple[str, ...]]:
        """Entries by component that are not taken up, though others of it are."""
        found: dict[str, tuple[str, ...]] = {}
        for trial in self.of_each:
            if trial.taken_up:
                dead = [n for n in trial.dead if self._moves([n]) and leaf(n) not in _COMPUTED_ANEW]
                if dead:
                    found[trial.component] = tuple(dead)
        return found

    def ignored(self) -> dict[str, str]:
        """Places in the data that are handed on at most: nothing else depends on them."""
        return {
            trial.component: (
                f"{_of(trial.names)} altered in the checkpoint of {self.k}, and resumed to {self.stop}: "
                "nothing else comes out otherwise: nobody goes on from there"
            )
            for trial in self.of_each
            if trial.taken_up is not None and not trial.used and trial.component in _PLACES
        }

    @property
    def _nothing_of_the_data(self) -> bool:
        return self.one_step is None or not self.one_step.names.get("data-order")

    def _without_part(self, component: str) -> bool:
        names = [name for trial in self.of_each if trial.component == component for name in trial.names]
        return component == "buffers" and all(map(_NO_PART.search, names))

    def _moves(self, names: Collection[str]) -> bool:
        return self.moving is None or any(name in self.moving for name in names)

    def _sentence(self, names: Sequence[str]) -> str:
        again = f" (try it: `{self.again} {shlex.quote(names[0])}`)" if self.again and names else ""
        return (
            f"{_of(names)} altered in the checkpoint of {self.k}, and resumed to {self.stop}: nothing comes "
            f"out otherwise: {'it is' if len(names) == 1 else 'they are'} not taken up{again}"
        )

    def _sentence_in_part(self, names: Sequence[str]) -> str:
        return (
            f"{_of(names)} altered in the checkpoint of {self.k}, and resumed to {self.stop}: saved again as "
            "if nothing had been altered: not taken up"
        )

    # -- after one step ------------------------------------------------------------------------

    def apart(self) -> dict[str, str]:
        """What differs after so few steps, and no weights decide: a sentence by component."""
        if self.one_step is None:
            return {}
        return {
            component: f"at {self.stop}, {self.stop - self.k} after the resume: {entries[0].sentence()}"
            for component, entries in self.one_step.by_component().items()
            if component in UNMIXED
        }

    def already_apart(self) -> dict[str, str]:
        """Tensors that are further off than the steps since k can have brought them."""
        if self.one_step is None or self.stop - self.k > _SOON:
            return {}
        found: dict[str, tuple[float, str]] = {}
        for entry in self.one_step.entries:
            times = self.further.get(entry.name, 0.0)
            if (
                entry.component in PARAMETERS
                and times > _FURTHER
                and times > found.get(entry.component, (0.0, ""))[0]
            ):
                said = (
                    f"at {self.stop}, `{entry.name}` is {times:.3g} times further off than it moves from "
                    f"{self.k} to {self.stop}: it was another one before"
                )
                found[entry.component] = (times, said)
        return {component: said for component, (_, said) in found.items()}

    # -- what follows --------------------------------------------------------------------------

    def named(self, due: Collection[str], *, loss_is_right: bool) -> tuple[str, tuple[str, ...]] | None:
        """The one component that the trials leave, and the sentences for it; None where they leave several.

        Args:
            due: the components that decide what is off; empty where nothing says so.
            loss_is_right: the loss of the first iteration after k is.
        """
        if self.unread:
            return "checkpoint", (self.unread,)
        if self.untied:
            apart = (
                f"{_of(self.untied)} are one tensor in the uninterrupted run, and several in the resumed one"
            )
            return "embedding", (apart,)
        lost, in_part = self._evidence(loss_is_right=loss_is_right)
        seen = {c: said for c, said in lost.items() if not (self.curves_only and c in _BESIDE)}
        for found in (seen, in_part, lost):
            said = self._one_of(found, due, loss_is_right=loss_is_right)
            if said is not None:
                return said
        for found in (self.apart(), self.already_apart()):
            within = {c: said for c, said in found.items() if not due or c in due}
            if [*within] == ["rng"] and self._nothing_of_the_data and "data-order" in due:
                continue  # a loader that begins anew draws from the streams too
            if len(kinds := _kinds(within)) == 1:
                first = min(within, key=CAUSES.index)
                return (first if len(within) == 1 else kinds[0]), tuple(within.values())
        left = self._by_elimination(loss_is_right=loss_is_right)
        if left is not None or not due:
            return left
        ignored = {c: said for c, said in self.ignored().items() if c in due}
        return next(((c, (said,)) for c, said in ignored.items() if len(ignored) == 1), None)

    def _evidence(self, *, loss_is_right: bool) -> tuple[dict[str, str], dict[str, str]]:
        """What is not taken up as a whole, and in part: a sentence by component."""
        part = self.lost_in_part()
        in_part = {c: self._sentence_in_part(names) for c, names in part.items()}
        lost = self.lost()
        if not loss_is_right:  # no average and no statistic makes it another
            lost = {c: said for c, said in lost.items() if not self._without_part(c)}
            in_part = {c: said for c, said in in_part.items() if not all(map(_NO_PART.search, part[c]))}
        return lost, in_part

    def _one_of(
        self, found: Mapping[str, str], due: Collection[str], *, loss_is_right: bool
    ) -> tuple[str, tuple[str, ...]] | None:
        within = {c: said for c, said in found.items() if not due or c in due or c == "unknown"}
        differ = self.apart()
        if self.one_step is not None:  # what is right all the same, one step later, was made anew
            within = {c: said for c, said in within.items() if c not in UNMIXED or c in differ}
        if len(within) > 1 and loss_is_right:
            within = {c: said for c, said in within.items() if c not in PARAMETERS}
        kinds = _kinds(within)
        if len(kinds) != 1 or kinds[0] == "unknown":
            return None
        component = next(iter(within)) if len(within) == 1 else kinds[0]
        if component == "data-order" and self.curves_only and any(c in due for c in self.untried):
            return None  # a count that is made anew is not taken up either, and does no harm
        told = (*within.values(), *([differ[component]] if component in differ else ()))
        return component, told

    def _by_elimination(self, *, loss_is_right: bool) -> tuple[str, tuple[str, ...]] | None:
        """After one step whose loss is right, what differs beside what every update changes."""
        if self.one_step is None or not loss_is_right or self.stop != self.k + 1:
            return None
        groups = self.one_step.by_component()
        for component in ("optimizer", "buffers"):
            others = {c for c in groups if c not in ("optimizer", "buffers", *PARAMETERS, "unknown")}
            if (
                component in groups
                and not others
                and (component == "optimizer" or set(groups) == {component})
            ):
                first = groups[component][0]
                return component, (
                    f"at {self.stop}, one step after the resume, with the right loss: {first.sentence()}",
                )
        return None

    def told(self) -> tuple[str, ...]:
        """What else was seen, for whoever reads the evidence."""
        said = [
            f"{trial.component} altered in the checkpoint of {self.k}: {trial.seen}: it is taken up"
            for trial in self.of_each
            if trial.taken_up
        ]
        return (*said, *self.notes)

    def candidates(self, *, loss_is_right: bool) -> tuple[Candidate, ...]:
        """What is not taken up, where it is several."""
        lost, in_part = self._evidence(loss_is_right=loss_is_right)
        found = {**in_part, **lost}
        return tuple(Candidate(c, (found[c],)) for c in sorted(found, key=CAUSES.index))


def _kinds(found: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys("weights" if c in PARAMETERS else c for c in found))


def leaf(name: str) -> str:
    """What kind of entry it is: the last word of its name, as ``exp_avg``."""
    parts = [part for part in name.split(".") if not part.isdigit()]
    return parts[-1] if parts else name


def _of(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
