"""From what failed to the component that was lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.diagnosis import contradictions, curves, differences, sentences
from harness.diagnosis.curves import Deviation
from harness.diagnosis.result import PARAMETERS, Diagnosis, Finding
from harness.diagnosis.training import training_changed
from harness.errors import CheckpointError, HarnessError, TrainerFailed

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff
    from harness.checks import Check
    from harness.metrics import Series

#: So many unrelated parts of a training state do not get lost one by one.
_PARTLY_LOADED = 3
#: A difference no larger than this (relative) is one of rounding, not of something lost.
_ROUNDING = 1e-6
#: Where nothing else decides.
_ORDER = (
    "checkpoint", "iteration", "data-order", "lr-schedule", "grad-scaler", "rng", "buffers", "experts",
    "embedding", "weights", "optimizer", "unknown",
)  # fmt: skip


def diagnose(
    checks: Sequence[Check],
    *,
    continuous: Mapping[str, Series],
    resumed: Mapping[str, Series] | None,
    k: int,
    n: int,
    state: StateDiff | None,
    probe: StateDiff | None,
    deterministic: bool,
    golden_only: bool = False,
    arguments: Mapping[str, Any] | None = None,
    stops_otherwise: bool | None = None,
) -> Diagnosis | None:
    """Name what was lost.

    Args:
        checks: all of a verdict's.
        continuous: the uninterrupted run's series.
        resumed: the resumed run's; None where there was none, or it could not load.
        k, n: the iteration resumed after, and the last one.
        state: continuous against resumed at N; the probe itself where states at N cannot be compared.
        probe: the checkpoint of k against itself, loaded and saved at once.
        deterministic: the same run is expected to have the same bits.
        golden_only: resuming is sound, only the golden is another.
        arguments: the trainer's, which say what its checkpoints should hold.
        stops_otherwise: where the interrupted run was not the uninterrupted one's beginning: it comes out the
            same way when it is run again; None where that was not tried.

    Returns:
        None where no check failed, or none that says anything of training.
    """
    failed = [check for check in checks if not check.passed]
    if not failed:
        return None
    if golden_only:
        sound = any(c.passed and c.against == "continuous" and c.metric for c in checks)
        return training_changed(failed, deterministic=deterministic, repeats=sound)
    return _Resume(
        failed, continuous, resumed, k, n, state, probe, deterministic, arguments, stops_otherwise
    ).diagnosis()


def crash(error: HarnessError) -> Diagnosis:
    """What ended the run before it could be judged."""
    cause = error.__cause__ if isinstance(error, TrainerFailed) else error
    said = [error.message]
    if isinstance(cause, CheckpointError):
        return Diagnosis("checkpoint", tuple(dict.fromkeys([cause.message, *said])))
    if isinstance(error, TrainerFailed) and error.log_tail.strip():
        said.append(f"its log ends with: {error.log_tail.strip().splitlines()[-1].strip()}")
    return Diagnosis("crash", tuple(said))


@dataclass(frozen=True)
class _Resume:
    failed: Sequence[Check]
    continuous: Mapping[str, Series]
    resumed: Mapping[str, Series] | None
    k: int
    n: int
    state: StateDiff | None
    probe: StateDiff | None
    deterministic: bool
    arguments: Mapping[str, Any] | None = None
    stops_otherwise: bool | None = None
    _empty: Mapping[str, Series] = field(default_factory=dict)

    def diagnosis(self) -> Diagnosis:
        """The first that applies: runs that differ of themselves, nothing loaded, something lost."""
        for answer in (self._never_the_same, self._not_loaded, self._elsewhere, self._partly_loaded):
            found = answer()
            if found is not None:
                return found
        component, said = self._lost()
        return Diagnosis(component, tuple(dict.fromkeys((*said, *self._in_passing()))))

    # -- before any comparison counts -----------------------------------------------------------

    def _never_the_same(self) -> Diagnosis | None:
        """Two runs of the same steps, neither of them resumed, must be one run."""
        apart = [c for c in self.failed if c.against == "continuous" and c.name.startswith("interrupted:")]
        if not apart:
            return None
        found = curves.deviations(apart)
        if not found:
            return Diagnosis("nondeterminism", (apart[0].message,))
        first = found[0]
        said = (
            f"`{first.metric}` differs from iteration {first.step} on between two runs from 0, before "
            "anything was resumed"
        )
        if not self.stops_otherwise:
            return Diagnosis("nondeterminism", (f"{said}: training does not repeat itself",))
        said += f": {first.values}" if first.expected is not None else ""
        why = (
            f"run again, the one that stops at {self.k} comes out the same way: it trains otherwise because "
            "it is told to stop there (${EXIT_ITERS}); its schedule must see the whole (${TRAIN_ITERS})"
        )
        return Diagnosis("lr-schedule" if first.kind == "rate" else "unknown", (said, why))

    def _not_loaded(self) -> Diagnosis | None:
        if self.resumed is not None and curves.first_step(self.resumed) is not None:
            return None
        said = [c.message for c in self.failed if (c.kind, c.against) == ("present", "state")]
        if said:
            return Diagnosis("checkpoint", tuple(said))
        changed = training_changed(self.failed, deterministic=self.deterministic, repeats=False)
        return changed or Diagnosis("unknown", tuple(c.message for c in self.failed[:3]))

    def _elsewhere(self) -> Diagnosis | None:
        """The resumed run went on at another iteration than k+1."""
        assert self.resumed is not None
        first = curves.first_step(self.resumed)
        where = [c for c in self.failed if c.name.startswith("resume: first step is") and c.worst is not None]
        if first is None or not where or where[0].worst is None:
            return None
        expected = int(float(where[0].worst.expected or 0))
        said = [f"the resumed run's first iteration is {first}, expected {expected}"]
        said += [c.message for c in self.failed if c.kind == "present" and "tracker" in c.message]
        if self._same_from(first):
            what = (
                "nothing was loaded, training started again"
                if first <= 1
                else f"it loaded {'an older' if first < expected else 'a later'} checkpoint"
            )
            said.insert(
                1,
                f"from there on it repeats the uninterrupted run's iterations from {first} on: {what}",
            )
            return Diagnosis("checkpoint", tuple(said))
        taken_up = self._same_as_from(first, expected)
        if taken_up:
            said.insert(
                1,
                f"its `{taken_up}` from iteration {first} on is that of the uninterrupted run from "
                f"{expected} on: only the iteration's number was lost",
            )
            return Diagnosis("iteration", tuple(said))
        lost = differences.not_carried_over(self.probe) if self.probe else {}
        if "iteration" in lost and len(lost) < _PARTLY_LOADED:
            return Diagnosis("iteration", (*said, *differences.sentences(lost, "iteration", self._probed)))
        return Diagnosis("checkpoint", (*said, "and its curves are no part of the uninterrupted run's"))

    def _same_from(self, first: int) -> bool:
        """Whether the resumed run's values are those of the same iterations, from ``first`` on."""
        assert self.resumed is not None
        alike = [
            curves.same_at_common_steps(line, self.continuous[metric], first)
            for metric, line in self.resumed.items()
            if curves.kind_of(metric) in ("loss", "data", "gradient") and metric in self.continuous
        ]
        return True in alike and False not in alike

    def _same_as_from(self, first: int, expected: int) -> str | None:
        assert self.resumed is not None
        for metric, line in self.resumed.items():
            other = self.continuous.get(metric)
            if curves.kind_of(metric) == "loss" and other is not None:
                at = curves.same_as(line, other, first)
                if at == expected:
                    return metric
        return None

    def _partly_loaded(self) -> Diagnosis | None:
        """Several parts that have nothing to do with each other are gone: the checkpoint is not whole."""
        groups = self._changed
        kinds = {"weights" if c in PARAMETERS else c for c in groups}
        if len(kinds) < _PARTLY_LOADED:
            return None
        said = [
            f"of the checkpoint of iteration {self.k}, {', '.join(sorted(kinds))} were not taken up: it was "
            "loaded in part, as a torn or foreign one would be"
        ]
        for component in sorted(groups, key=_ORDER.index):
            said += differences.sentences(groups, component, self._probed)
        return Diagnosis("checkpoint", tuple(said))

    # -- something was lost ---------------------------------------------------------------------

    @property
    def _probed(self) -> str:
        return f"loaded at {self.k} and saved at once"

    @cached_property
    def _changed(self) -> differences.Groups:
        return differences.not_carried_over(self.probe) if self.probe is not None else {}

    @cached_property
    def _off(self) -> list[Deviation]:
        against = [c for c in self.failed if c.against == "continuous"]
        return curves.deviations(against, self.continuous, self.resumed or self._empty)

    @property
    def _first(self) -> Deviation | None:
        return self._off[0] if self._off else None

    @cached_property
    def _findings(self) -> dict[str, list[str]]:
        """Sentences by component, of what is seen at k: nothing that training could have moved since."""
        found: dict[str, list[str]] = {}
        moved = differences.misplaced(self.probe, self._changed) if self.probe is not None else None
        if moved is not None:
            found[moved.component] = [moved.sentence]
        for component in self._changed:
            if moved is None or component not in PARAMETERS:
                found.setdefault(component, []).extend(
                    differences.sentences(self._changed, component, self._probed)
                )
        source = self.probe or self.state
        seen: list[Finding] = differences.gaps(self.probe, self.state)
        seen += contradictions.faults(Path(source.a), self.arguments) if source is not None else []
        for finding in seen:
            found.setdefault(finding.component, []).append(finding.sentence)
        return found

    @cached_property
    def _later(self) -> dict[str, list[str]]:
        """Sentences by component, of the states at N, as far as they speak of anything but training."""
        if self.state is None or self.state is self.probe:
            return {}
        trained_alike = all(d.kind in ("validation", "scale") for d in self._off)
        if trained_alike:
            groups = differences.components(self.state.entries)
        else:
            groups = differences.apart_from_weights(self.state)
        return {c: differences.sentences(groups, c, f"at {self.n}") for c in groups}

    def _lost(self) -> tuple[str, list[str]]:
        said = sentences.of_curves(self._off, self.continuous, self.resumed or self._empty, self.k, self.n)
        for candidates in (self._findings, self._later):
            component = self._choose(candidates)
            if component is not None:
                told = [*self._findings.get(component, ()), *self._later.get(component, ())]
                return component, [*said, *told]
        component, why = self._by_elimination()
        return component, [*said, *why]

    def _choose(self, candidates: Mapping[str, Sequence[str]]) -> str | None:
        """What the curves and the states agree on; else the first in the order of cause."""
        if not candidates:
            return None
        first = self._first
        implied = curves.IMPLIED[first.kind] if first is not None else ()
        for component in implied:
            if component in candidates:
                return component
        if first is not None and first.kind == "data":
            return "data-order"  # seen in the batches themselves, whatever else was lost
        return min(candidates, key=_ORDER.index)

    def _by_elimination(self) -> tuple[str, list[str]]:
        """Nothing in the states: the first series that is off, and what it leaves over."""
        first = self._first
        if first is None:
            return "unknown", [c.message for c in self.failed[:3]]
        if first.kind in ("data", "rate", "scale"):
            return curves.IMPLIED[first.kind][0], []
        if first.relative is not None and first.relative < _ROUNDING:
            return "nondeterminism", [
                f"it begins with a difference of rounding size ({first.relative:.1g} relative) and no state "
                "is lost: see whether the uninterrupted run repeats itself"
            ]
        if curves.first_step(self.continuous, after=self.k) != self.k + 1:
            return "unknown", [
                f"iteration {self.k + 1} was not logged, so it cannot tell what was lost: log every one"
            ]
        return sentences.left_over(first, self.k, self.state, self.probe, self._off)

    def _in_passing(self) -> list[str]:
        """What else a reader should know."""
        said = []
        last = curves.last_step(self.resumed or self._empty)
        if last is not None and last < self.n:
            said.append(f"the resumed run ended after iteration {last} of {self.n}, without an error")
        golden = curves.deviations(c for c in self.failed if c.against == "golden")
        if golden:
            said.append(
                f"the uninterrupted run is not the golden's either, from iteration {golden[0].step} on "
                f"(`{golden[0].metric}`)"
            )
        return said
