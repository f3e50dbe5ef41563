"""From what failed to the component that was lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.diagnosis import candidates, cause, contradictions, curves, differences, doubts, sentences
from harness.diagnosis.candidates import Judged
from harness.diagnosis.curves import Compared, Deviation
from harness.diagnosis.elsewhere import elsewhere
from harness.diagnosis.endings import trained_on
from harness.diagnosis.levels import other_batches
from harness.diagnosis.recipes import STOP_AT_K
from harness.diagnosis.recorded import no_longer_saved
from harness.diagnosis.result import CAUSES, PARAMETERS, Diagnosis, Finding
from harness.diagnosis.training import training_changed

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff
    from harness.checks import Check
    from harness.diagnosis.trials import Trials

    Experiment = Callable[[Collection[str]], Trials | None]
    from harness.metrics import Series

_FEW = 3  # sentences of what is not the decisive one
#: So many unrelated parts of a training state do not get lost one by one.
_PARTLY_LOADED = 3
_AGAIN = {None: "it was not tried again", False: "training does not repeat itself"}


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
    not_loaded: str = "checkpoint",
    experiment: Experiment | None = None,
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
        not_loaded: what the resumed run could not load, where it says that it could not.
        experiment: resumes from altered checkpoints; given the components that may be it, all where none is.

    Returns:
        None where no check failed, or none that says anything of training.
    """
    # That there is no golden says nothing of training.
    checks = [c for c in checks if (c.kind, c.against, c.metric) != ("present", "golden", None)]
    if all(check.passed for check in checks):
        return None
    if golden_only:
        same = [c for c in checks if c.metric and c.kind == "exact" and c.against == "continuous"]
        sound = bool(same) and all(check.passed for check in same)
        return training_changed(checks, continuous, deterministic=deterministic, repeats=sound)
    return _Resume(
        checks, continuous, resumed, k, n, state, probe, deterministic, arguments, stops_otherwise,
        not_loaded, experiment,
    ).diagnosis()  # fmt: skip


@dataclass(frozen=True)
class _Resume:
    checks: Sequence[Check]
    continuous: Mapping[str, Series]
    resumed: Mapping[str, Series] | None
    k: int
    n: int
    state: StateDiff | None
    probe: StateDiff | None
    deterministic: bool
    arguments: Mapping[str, Any] | None = None
    stops_otherwise: bool | None = None
    not_loaded: str = "checkpoint"
    experiment: Experiment | None = None
    _empty: Mapping[str, Series] = field(default_factory=dict)

    @cached_property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]

    def diagnosis(self) -> Diagnosis:
        """What was lost, with the entry of the state that says most of it."""
        found = self._diagnosed()
        entries = (
            *(one.entry for one in [self._moved] if one is not None and one.component == found.component),
            cause.entry_of(found.component, self._changed),
            *(one.entry for one in self._gaps if one.component == found.component),
            cause.entry_of(found.component, self._at_the_end),
        )
        return replace(found, entry=next(filter(None, entries), ""))

    def _diagnosed(self) -> Diagnosis:
        """The first that applies: runs that differ of themselves, nothing loaded, something lost."""
        first = (self._never_the_same, self._not_loaded, self._elsewhere, self._trained_on)
        for answer in (*first, self._partly_loaded):
            found = answer()
            if found is not None:
                return found
        lost = self._lost()
        said = dict.fromkeys((*self._told(), *lost.evidence, *self._in_passing()))
        return Diagnosis(lost.component, tuple(said), lost.candidates)

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
            return Diagnosis("nondeterminism", (f"{said}: {_AGAIN[self.stops_otherwise]}",))
        said += f": {first.values}" if first.expected is not None else ""
        why = (
            f"run again, the one that stops at {self.k} comes out the same way: it trains otherwise because "
            "it is told to stop there (${EXIT_ITERS}); its schedule must see the whole (${TRAIN_ITERS})"
        )
        component = "lr-schedule" if first.kind == "rate" else "unknown"
        return Diagnosis(component, (said, why), recipes=(STOP_AT_K,))

    def _not_loaded(self) -> Diagnosis | None:
        if self.resumed is not None and curves.first_step(self.resumed) is not None:
            return None
        said = [c.message for c in self.failed if (c.kind, c.against) == ("present", "state")]
        if said:
            return Diagnosis(self.not_loaded, tuple(said))
        changed = training_changed(
            self.checks, self.continuous, deterministic=self.deterministic, repeats=False
        )
        return changed or Diagnosis("unknown", self._messages())

    def _messages(self) -> tuple[str, ...]:
        of_resume = [check.message for check in self.failed if check.against != "golden"]
        return tuple(dict.fromkeys(of_resume or [check.message for check in self.failed]))[:_FEW]

    def _elsewhere(self) -> Diagnosis | None:
        lost = differences.not_carried_over(self.probe) if self.probe else {}
        number: tuple[str, ...] = ()
        if "iteration" in lost and len(lost) < _PARTLY_LOADED:
            number = tuple(differences.sentences(lost, "iteration", self._probed))
        return elsewhere(self.failed, self.continuous, self.resumed or self._empty, number)

    def _trained_on(self) -> Diagnosis | None:
        return trained_on(self.failed, self.continuous, self.resumed or self._empty)

    def _partly_loaded(self) -> Diagnosis | None:
        """Several parts that have nothing to do with each other are gone: the checkpoint is not whole."""
        groups = self._changed
        kinds = {"weights" if c in PARAMETERS else c for c in groups if c != "unknown"}
        if len(kinds) < _PARTLY_LOADED:
            return None
        said = [
            f"of the checkpoint of iteration {self.k}, {', '.join(sorted(kinds))} were not taken up: it was "
            "loaded in part, as a torn or foreign one would be"
        ]
        for component in sorted(groups, key=CAUSES.index):
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
    def _moved(self) -> Finding | None:
        return differences.misplaced(self.probe, self._changed) if self.probe is not None else None

    @cached_property
    def _gaps(self) -> list[Finding]:
        return differences.gaps(self.probe, self.state)

    @cached_property
    def _off(self) -> list[Deviation]:
        against = [c for c in self.failed if c.against == "continuous"]
        found = curves.deviations(against, self.continuous, self.resumed or self._empty)
        # What was not logged is told, and says less than any value.
        return sorted(found, key=lambda deviation: not deviation.known)

    @cached_property
    def _lines(self) -> list[Compared]:
        against = [c for c in self.checks if c.against == "continuous"]
        return curves.compared(against, self._off, self.continuous, self.resumed or self._empty)

    @cached_property
    def _end(self) -> int:
        """The iteration of the states at the end."""
        last = curves.last_step(self.continuous)
        return self.n if last is None else min(last, self.n)

    @property
    def _first(self) -> Deviation | None:
        return self._off[0] if self._off and self._off[0].known else None

    @cached_property
    def _findings(self) -> dict[str, list[str]]:
        """Sentences by component, of what is seen at k: nothing that training could have moved since."""
        found: dict[str, list[str]] = {}
        moved = self._moved
        if moved is not None:
            found[moved.component] = [moved.sentence]
        for component in self._changed:
            if moved is None or component not in PARAMETERS:
                found.setdefault(component, []).extend(
                    differences.sentences(self._changed, component, self._probed)
                )
        source = self.probe or self.state
        told = contradictions.faults(Path(source.a), self.arguments) if source is not None else []
        for finding in (*self._gaps, *told, *no_longer_saved(self.checks)):
            found.setdefault(finding.component, []).append(finding.sentence)
        return found

    @cached_property
    def _at_the_end(self) -> differences.Groups:
        """What differs between the states at N, as far as it speaks of anything but training."""
        if self.state is None or self.state is self.probe:
            return {}
        trained_alike = bool(self._lines) and all(d.kind in ("validation", "scale") for d in self._off)
        if trained_alike:
            return differences.components(self.state.entries)
        return differences.apart_from_weights(self.state)

    @cached_property
    def _later(self) -> dict[str, list[str]]:
        """Sentences of that by component."""
        return {c: differences.sentences(self._at_the_end, c, f"at {self._end}") for c in self._at_the_end}

    def _told(self) -> list[str]:
        actual = self.resumed or self._empty
        k = curves.number_of(self.k, self.continuous)
        return sentences.of_curves(self._off, self._lines, self.continuous, actual, k)

    def _lost(self) -> Judged:
        """What the states name, and the curves agree with; else what is left."""
        at_k = self._named(self._findings)
        if at_k is not None:
            also = [said for c in self._findings if c != at_k for said in self._findings[c]]
            told = (*self._findings[at_k], *self._later.get(at_k, ()), *also[:_FEW])
            return Judged(at_k, told)
        seen = {c: [*self._findings.get(c, ()), *self._later.get(c, ())]
                for c in dict.fromkeys((*self._findings, *self._later))}  # fmt: skip
        return self._tried(seen) or self._untried(seen)

    def _untried(self, seen: Mapping[str, Sequence[str]]) -> Judged:
        """What the states and the curves leave."""
        first = self._first
        if first is None:
            if len(seen) == 1:
                component, said = next(iter(seen.items()))
                return Judged(component, tuple(said))
            if not seen and not self._off and (said := sentences.of_trackers(self.failed)):
                return Judged("checkpoint", tuple(said))
            why = () if seen or self._off else self._messages()
            return Judged("unknown", why, candidates.listed(seen, CAUSES))
        known = self._known(first, seen)
        if first.kind in ("data", "rate", "scale"):
            component = curves.IMPLIED[first.kind][0]
            if first.kind == "rate" and differences.began_anew(self._at_the_end):
                return Judged("optimizer", (*seen["optimizer"], *seen.get("lr-schedule", ())))
            if first.kind == "rate" and self._moves_in_step(first):
                lost = doubts.rate_of_the_optimizer(known)
                component = "optimizer" if lost else component
                return Judged(component, lost or tuple(seen.get(component, ())))
            return Judged(component, tuple(seen.get(component, ())))
        due = [component for component in candidates.due_to(known) if component in seen]
        if len(due) == 1 and (either := doubts.explains_it_too(known, due[0])):
            return Judged("unknown", (), either)
        if len(due) == 1:
            also = [said for component in seen if component not in due for said in seen[component]]
            return Judged(due[0], (*seen[due[0]], *also[:_FEW]))
        return candidates.judged(known)

    def _tried(self, seen: Mapping[str, Sequence[str]]) -> Judged | None:
        """What resuming from altered checkpoints leaves, where that is one."""
        if self.experiment is None:
            return None
        first = self._first
        known = self._known(first, seen) if first is not None else None
        if first is None or known is None:
            due = list(seen)
        elif first.kind in ("data", "rate", "scale"):
            due = list(curves.IMPLIED[first.kind])
        else:
            due = candidates.due_to(known)
        trials = self.experiment(due)
        if trials is None:
            return None
        after = curves.number_of(self.k, self.continuous) + 1
        right = known is None or known.right("loss", after, after) is not None
        right &= first is None or first.kind != "gradient"
        component, said = trials.named(due, loss_is_right=right) or ("", ())
        rest = self._untried(seen)
        implied = first is not None and first.kind in ("data", "rate", "scale") and not trials.unread
        if component and not implied:  # such a curve tells it by itself
            return Judged(component, (*said, *seen.get(component, ()), *trials.told()))
        found = trials.candidates(loss_is_right=right) if rest.component == "unknown" else ()
        also = tuple(one for one in rest.candidates if one.component not in {c.component for c in found})
        return replace(rest, evidence=(*rest.evidence, *trials.told()), candidates=(*found, *also))

    def _moves_in_step(self, first: Deviation) -> bool:
        theirs, mine = self.continuous.get(first.metric), (self.resumed or self._empty).get(first.metric)
        if theirs is None or mine is None:
            return False
        return curves.moves(theirs, first.step) and curves.in_step(mine, theirs, first.step)

    def _named(self, found: Mapping[str, Sequence[str]]) -> str | None:
        """Of what was lost at k: what the curves agree with, or the only one."""
        first = self._first
        if first is not None and first.kind == "rate" and differences.began_anew(self._changed):
            return "optimizer"  # the rate lies in its groups
        for component in curves.IMPLIED[first.kind] if first is not None else ():
            if component in found:
                return component
        if found and first is not None and first.kind == "data":
            return None  # seen in the batches themselves, whatever else was lost
        return next(iter(found)) if len(found) == 1 else None

    def _known(self, first: Deviation, seen: Mapping[str, Sequence[str]]) -> candidates.Known:
        repeated = [c for c in self.checks if c.metric and c.name.startswith("interrupted:")]
        return candidates.Known(
            first=first,
            k=(k := curves.number_of(self.k, self.continuous)),
            end=self._end,
            every=curves.first_step(self.continuous, after=k) == k + 1,
            lines=self._lines,
            state=self.state if self.state is not self.probe else None,
            probe=self.probe,
            repeats=bool(repeated) and all(c.passed and c.kind == "exact" for c in repeated),
            seen=seen,
            arguments=self.arguments or {},
            others=other_batches(first.metric, self.continuous, self.resumed or self._empty),
        )

    def _in_passing(self) -> list[str]:
        """What else a reader should know."""
        last = curves.last_step(self.resumed or self._empty)
        early = last if last is not None and last < self._end else None
        return sentences.in_passing(self.failed, early, self.n)
