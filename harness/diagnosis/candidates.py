"""Where no state names what was lost: what the first series off can be due to, with both sides of it.

A component is ruled out by what was compared and is right: a curve of its own, a loss that is made with it,
its saved entries. What is left is named where it is one, and listed where it is several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from harness.diagnosis import holdings
from harness.diagnosis.curves import IMPLIED, Compared, Deviation
from harness.diagnosis.result import PARAMETERS, Candidate
from harness.metrics.known import Tells, about

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff

#: Where nothing else tells which of them is likelier.
LIKELIEST = (
    "nondeterminism", "optimizer", "weights", "data-order", "rng", "lr-schedule", "grad-scaler", "buffers",
    "embedding", "experts", "iteration", "checkpoint",
)  # fmt: skip
_TRAINING: tuple[Tells, ...] = ("loss", "gradient", "parameters")
_OWN_CURVE: Mapping[str, Tells] = {"data-order": "data", "lr-schedule": "rate", "grad-scaler": "scale"}
_IN_THE_LOSS = ("weights", "rng", "data-order", "buffers", "embedding", "experts")
_NOT_OF_THE_MODEL = ("rng", "data-order")
_IN_THE_UPDATE = ("optimizer", "lr-schedule", "grad-scaler")
#: Many a trainer has none of these, so something must say that this one has.
_ASKED_FOR: Mapping[str, str] = {"grad-scaler": "--fp16", "experts": "--num-experts", "embedding": ""}
#: What a checkpoint of anybody's would have a word for.
_HAS_A_WORD = ("rng", "data-order", "lr-schedule", "grad-scaler", "optimizer", "buffers")
#: Said where a state names nothing and rules out all that it holds.
KEPT = "all that is saved and decides this came back: what is left is in no checkpoint"
#: Differences no larger than this (relative) are those of rounding.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Known:
    """All that was compared.

    Args:
        first: the first series that is off, with both its values.
        k, end: the iteration resumed after, and the one of the states at the end.
        every: iteration k+1 was logged.
        lines: the curves that were compared.
        state: continuous against resumed at the end; None where they were not compared.
        probe: the checkpoint of k against itself, loaded and saved at once; None where that was not made.
        repeats: two runs that were not resumed had the same bits up to k.
        seen: sentences that speak for a component, by component.
        arguments: the trainer's.
        others: why the batches or the random numbers are others, and not the model; empty: nothing says so.
    """

    first: Deviation
    k: int
    end: int
    every: bool
    lines: Sequence[Compared]
    state: StateDiff | None
    probe: StateDiff | None
    repeats: bool
    seen: Mapping[str, Sequence[str]]
    arguments: Mapping[str, object] = field(default_factory=dict)
    others: str = ""

    def right(self, kind: Tells, first: int, last: int) -> str | None:
        """A metric of a kind that has values in ``first..last`` and is right, as all of its kind are."""
        lines = [line for line in self.lines if line.kind == kind]
        if any(line.off is not None and line.off <= last for line in lines):
            return None
        # A digest says more of the data than a count does.
        lines.sort(key=lambda line: about(line.metric).data != "digest")
        return next((line.metric for line in lines if line.right(first, last)), None)

    @cached_property
    def held_at_the_end(self) -> Mapping[str, int] | None:
        """The same of the uninterrupted run's state at the end."""
        return holdings.held(self.state)

    @cached_property
    def held(self) -> Mapping[str, int] | None:
        """How many names of each component the checkpoint holds; None where it cannot be read."""
        return holdings.held(self.probe or self.state)

    def has(self, component: str) -> bool:
        """Whether there is any sign of such a thing in this training."""
        if component not in _ASKED_FOR or component in self.seen or (self.held or {}).get(component):
            return True
        if component == "grad-scaler" and any(line.kind == "scale" for line in self.lines):
            return True
        return bool(self.arguments.get(_ASKED_FOR[component]))


@dataclass(frozen=True)
class Weighed:
    """A candidate.

    Args:
        candidate: with both sides.
        out: whether what speaks against it rules it out.
        signs: how much speaks for it, beside that it takes part in what is off.
        used: whether that was seen at work, and not only kept: a position that came back may be ignored.
    """

    candidate: Candidate
    out: bool
    signs: int
    used: bool = True

    @property
    def rank(self) -> tuple[int, int]:
        """The likeliest first."""
        return len(self.candidate.against) - self.signs, LIKELIEST.index(self.candidate.component)


@dataclass(frozen=True)
class Judged:
    """What elimination leaves.

    Args:
        component: its name, where it is one; else ``unknown``.
        evidence: why.
        candidates: where it is several, or none.
    """

    component: str
    evidence: tuple[str, ...]
    candidates: tuple[Candidate, ...] = ()


def judged(known: Known) -> Judged:
    """What the first series that is off can be due to."""
    weighed = sorted((_Weighing(known, one).weighed() for one in _pool(known)), key=lambda one: one.rank)
    weighed = _of_the_same_model(known, weighed)
    left = [one.candidate for one in weighed if not one.out]
    ruled_out = [one.candidate for one in weighed if one.out]
    said = [f"not {one.component}: {'; '.join(one.against)}" for one in ruled_out]
    certain = known.every and known.first.kind in _TRAINING
    if certain and len(left) == 1 and left[0].component not in ("buffers", "nondeterminism"):
        return Judged(left[0].component, (*left[0].speaks_for, *left[0].against, *said))
    ignored = _ignored(known, weighed)
    if ignored:
        said = [KEPT, *(one for one in said if not one.startswith("not data-order"))]
        return Judged("unknown", tuple(said), ignored)
    if known.first.kind == "other":
        said.append(f"what `{known.first.metric}` tells of training, its name does not say")
    if not known.every:
        said.append(f"iteration {known.k + 1} was not logged, so it cannot tell what was lost: log every one")
    if len(left) > 1 or not ruled_out:
        return Judged("unknown", tuple(said), tuple(left))
    what = "only a buffer that is in no checkpoint" if left else "nothing that is known by name"
    said.insert(0, f"what was compared leaves {what}")
    return Judged("unknown", tuple(said), (*left, *ruled_out))


def _of_the_same_model(known: Known, weighed: Sequence[Weighed]) -> list[Weighed]:
    """Without what makes the model, where the loss is that of the same one and something else is left."""
    at_once = (known.first.kind, known.first.step) == ("loss", known.k + 1)
    left = any(one.candidate.component in _NOT_OF_THE_MODEL and not one.out for one in weighed)
    if not (known.others and at_once and left):
        return list(weighed)
    return [
        replace(
            one, candidate=replace(one.candidate, against=(*one.candidate.against, known.others)), out=True
        )
        if one.candidate.component in (*PARAMETERS, "buffers") and one.candidate.component not in known.seen
        else one
        for one in weighed
    ]


def _ignored(known: Known, weighed: Sequence[Weighed]) -> tuple[Candidate, ...]:
    """The place in the data, where all that is saved is right, and its being kept is all that is known of it.

    A loader that was given the right place may still have begun elsewhere. Nothing where that is not so.
    """
    place = next((one for one in weighed if one.candidate.component == "data-order" and not one.used), None)
    left = [one for one in weighed if one is not place and not one.out]
    if place is None or any(one.candidate.component != "buffers" for one in left):
        return ()
    if known.first.kind == "validation":
        kept = known.state is not None and not known.state.entries
    else:
        kept = known.every and (known.first.kind, known.first.step) == ("loss", known.k + 1) and place.out
    said = "its place came back, and no digest of the batches tells that the loader went on from there"
    found = Candidate("data-order", (said, *place.candidate.speaks_for), place.candidate.against)
    return (found, *(one.candidate for one in left)) if kept else ()


def listed(seen: Mapping[str, Sequence[str]], order: Sequence[str]) -> tuple[Candidate, ...]:
    """Components that each have something to speak for them, and nothing that decides between them."""
    return tuple(Candidate(one, tuple(seen[one])) for one in sorted(seen, key=order.index))


def due_to(known: Known) -> list[str]:
    """The components that decide the first series that is off."""
    first, k = known.first, known.k
    found = [*IMPLIED[first.kind]]
    right_there = first.kind in _TRAINING[1:] and known.right("loss", first.step, first.step)
    if first.kind in _TRAINING:
        for cause in _TRAINING[: _TRAINING.index(first.kind)]:
            if not known.right(cause, first.step, first.step):
                found += IMPLIED[cause]
    if first.kind in _TRAINING and not right_there and first.step > k + 1:
        found += (*IMPLIED["loss"], *_IN_THE_UPDATE)  # an update since k may have been another
    return list(dict.fromkeys(found))


def _pool(known: Known) -> list[str]:
    """The same and those that something else speaks for, as far as this training has them."""
    first, found = known.first, [*due_to(known), *known.seen]
    if first.relative is not None and first.relative < ROUNDING:
        found.append("nondeterminism")
    kept = [one for one in dict.fromkeys(found) if known.has(one)]
    # That it went on at the right iteration was looked at before.
    return [one for one in kept if one != "iteration" or one in known.seen]


class _Weighing:
    """What speaks for and against one component.

    Args:
        known: all that was compared.
        component: which.
    """

    def __init__(self, known: Known, component: str) -> None:
        self.known, self.component = known, component
        self.against: list[str] = []
        self.out = False
        self.used = component != "data-order"

    def weighed(self) -> Weighed:
        """With the sentences of both sides."""
        self._curve()
        self._loss()
        self._state()
        self._probe()
        if self.component == "nondeterminism" and self.known.repeats:
            self.against.append(f"two runs that were not resumed had the same bits up to {self.known.k}")
        seen, lacking = self.known.seen.get(self.component, ()), self._lacking()
        # What differs in a state was lost or moved, whatever the curves say.
        out = self.out and self.component not in self.known.seen
        # A model without buffers is no wonder.
        signs = 2 * bool(seen) + (bool(lacking) and self.component != "buffers")
        one = Candidate(self.component, (*seen, *lacking, *self._role()), tuple(self.against))
        return Weighed(one, out, signs, self.used)

    # -- for ---------------------------------------------------------------------------------

    def _role(self) -> list[str]:
        """What it has to do with the series that is off."""
        first = self.known.first
        if self.component == "nondeterminism":
            return [f"it begins with a difference of rounding size ({first.relative:.1g} relative)"]
        if self.component in _IN_THE_UPDATE:
            return self._part_in_the_update()
        if first.kind == "validation":
            later = [line.metric for line in self.known.lines if line.kind in _TRAINING and line.off]
            if later:
                return [f"validation is off before any curve of training is (`{later[0]}`)"]
            return ["validation is off and no curve of training is, of those that were compared"]
        if self.component in _IN_THE_LOSS:
            return [f"`{first.metric}`, the first that is off, depends on it"]
        return []

    def _part_in_the_update(self) -> list[str]:
        known, first = self.known, self.known.first
        if self._accumulated:
            loss = known.right("loss", first.step, first.step)
            return [
                f"`{loss}` of iteration {first.step} is right and its gradient is not: what had been "
                "accumulated was lost, or a part of it was discarded"
            ]
        step = first.step if first.kind in ("gradient", "parameters") else first.step - 1
        if step <= known.k:
            return []  # nothing was updated before
        loss = known.right("loss", step, step)
        if loss is not None:
            return [f"`{loss}` of iteration {step} is right and the update is not, in which it takes part"]
        return [f"it decides an update before `{first.metric}` is off"]

    def _lacking(self) -> list[str]:
        held = self.known.held
        if held is None or self.component not in _HAS_A_WORD or held.get(self.component):
            return []
        return [f"the checkpoint holds nothing whose name speaks of {self.component}"]

    # -- against -----------------------------------------------------------------------------

    @property
    def _accumulated(self) -> bool:
        """The gradient is the first that is off, of a loss that is right: no moment decides that."""
        first = self.known.first
        if self.component != "optimizer" or first.kind != "gradient":
            return False
        return self.known.right("loss", first.step, first.step) is not None

    def _curve(self) -> None:
        """A curve that tells just this."""
        known, kind = self.known, _OWN_CURVE.get(self.component)
        if kind is None or known.first.kind == "validation":
            return
        right = known.right(kind, known.k + 1, known.first.step)
        if right is None:
            return
        self.against.append(f"`{right}` is right up to iteration {known.first.step}")
        if kind == "data":  # a count is right also where the order is another
            at = known.first.step
            self.used = about(right).data == "digest" and known.right(kind, at, at) is not None
            self.out |= self.used
        else:
            self.out = True

    def _loss(self) -> None:
        """A loss that is made with it, since the resume."""
        known, first = self.known, self.known.first
        decided = self.component in (_IN_THE_LOSS if first.step > known.k + 1 else ())
        if first.kind in _TRAINING[1:] and self.component in _IN_THE_LOSS:
            loss = known.right("loss", first.step, first.step)
            if loss is not None:
                self.against.append(f"`{loss}` of iteration {first.step} depends on it and is right")
                self.out = True
                return
        start = known.k + 1
        if self.component in _IN_THE_UPDATE and first.step > start + 1:
            start, decided = start + 1, not self._accumulated
        loss = known.right("loss", start, first.step - 1) if decided and first.kind != "validation" else None
        if loss is None:
            return
        self.against.append(f"`{loss}` depends on it and is right up to iteration {first.step - 1}")
        # Later than that it may be used rarely, or be too small to be logged at first.
        self.out |= first.step == known.k + 2 and self.component != "data-order"

    def _state(self) -> None:
        """Entries of its that are equal at the end, where it would have moved them."""
        known = self.known
        equal = _unchanged(known.state, self.component)
        if not equal or self._accumulated or (known.first.kind == "validation" and self.component == "rng"):
            return
        held = (known.held_at_the_end or {}).get(self.component, equal)
        held -= known.state.as_allowed.get(self.component, 0) if known.state is not None else 0
        of = f"{equal} of its {held} entries" if held > equal else _all(equal)
        self.against.append(f"{of} {'is' if equal == 1 else 'are'} equal at {known.end}")
        whole = held <= equal and known.first.kind != "validation"
        counted = self.component == "data-order" and holdings.counts_only(known.state)
        self.out |= whole and self.component != "buffers" and not counted

    def _probe(self) -> None:
        """Entries of its that came back as they were saved."""
        known = self.known
        equal = _unchanged(known.probe, self.component)
        if not equal or self._accumulated:
            return
        self.against.append(f"loaded at {known.k} and saved at once, {_all(equal)} came back as saved")
        self.out |= known.first.kind != "validation" and self.component != "buffers"


def _unchanged(diff: StateDiff | None, component: str) -> int:
    """How many names of a component were compared; 0 where any of them differs."""
    if diff is None or any(_component(entry.component) == _component(component) for entry in diff.entries):
        return 0
    return diff.names.get(component, 0)


def _component(name: str) -> str:
    """Weights of several kinds are weights."""
    return "weights" if name in PARAMETERS else name


def _all(number: int) -> str:
    return "its only entry" if number == 1 else f"all {number} of its entries"
