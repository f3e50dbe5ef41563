"""Stop and resume at other iterations than k, and again and again; where one fails, find the least that does.

``full`` is resumed once, from the checkpoint in the middle. :class:`Stops` tries a chain of stops as ``full``
tries k: each resumed run is compared with the uninterrupted one, its curves and what it saves. The second
resume of a chain starts from what the first resumed run has saved. Runs that chains have in common are made
once.
"""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.checkpoints.folders import iter_dir
from harness.errors import HarnessError, NotAllocated, NotRun, UsageError
from harness.metrics import join
from harness.protocol import continuation
from harness.protocol.findings import Found, NotResumed, Recorded, SavedState
from harness.protocol.plan import refuse_stop
from harness.protocol.shrinking import Chain
from harness.protocol.steps import Steps

if TYPE_CHECKING:
    from harness.protocol.plan import Plan
    from harness.trainers.base import PhaseName


def check_stops(plan: Plan) -> None:
    """Refuse what cannot be stopped there.

    Raises:
        UsageError: nothing is resumed, or there is no checkpoint to resume from.
    """
    options = plan.options
    if not plan.resumes:
        said = f"{plan.case.name}: protocol {options.protocol}: it resumes nothing"
        raise UsageError(said, "take --protocol full")
    for stop in options.stops:
        refuse_stop(stop, plan.trainer, plan.n, plan.save_interval, "--stops")
    if options.protocol == "chain" and not options.stops and len(candidates(plan)) < 2:
        every = f"it saves every {plan.save_interval} of {plan.n} iterations"
        raise UsageError(
            f"{plan.case.name}: protocol chain: {every}, and a chain needs two checkpoints before the end",
            "lower --save-interval, or name --stops" if plan.trainer.ends_itself else "lower --save-interval",
        )


def candidates(plan: Plan) -> list[int]:
    """The iterations between 0 and N that a run saves at."""
    return list(range(plan.save_interval, plan.n, plan.save_interval))


def suffix_of(before: Chain, until: int | None = None) -> str:
    """What the folders of the last resumed run of ``before`` are called, behind what they hold."""
    return f"-{'-'.join(map(str, before))}" + ("" if until is None else f"-to-{until}")


def named(stops: Chain) -> str:
    """``4, 8``."""
    return ", ".join(map(str, stops))


@dataclass(frozen=True)
class Tried:
    """A chain of stops, resumed at each of them up to the first that fails.

    Args:
        stops: all of them.
        steps: those of the last resumed run that was made, with its k.
        found: what was found of it.
        failed: the place of the stop that it failed behind; None where everything held.
        error: what kept the last run from being made or read.
    """

    stops: Chain
    steps: StepsAt
    found: tuple[Found, ...]
    failed: int | None = None
    error: HarnessError | None = None

    @property
    def checks(self) -> int:
        """How many were made of the last run."""
        return sum(len(found.checks) for found in self.found)

    def why(self) -> str:
        """The first thing that did not hold."""
        if self.error is not None:
            return self.error.message
        failed = [check for found in self.found for check in found.checks if not check.passed]
        first = min(failed, key=lambda check: (check.first_bad_step is None, check.first_bad_step or 0))
        return f"{first.name}: {first.message}"


class StepsAt(Steps):
    """The steps of one cell for a resume at another iteration, in folders of its own.

    Args:
        steps: those of the cell; its uninterrupted run is this one's too.
        k: the iteration to resume after.
        until: where the resumed run is stopped; N for its end.
        suffix: of the names of folders.
        repeat: the cell's uninterrupted run of a number from 1 on, beside the first.
    """

    def __init__(
        self, steps: Steps, k: int, until: int, suffix: str, repeat: Callable[[int], Recorded]
    ) -> None:
        phases = copy.copy(steps.phases)  # the launcher, the observer and the times are shared
        phases.plan = replace(steps.plan, k=k)
        phases.folder = replace(steps.phases.folder, suffix=suffix)
        super().__init__(phases)
        self._uninterrupted = steps.train()
        self.until, self._repeat = until, repeat
        self.states.observed = steps.states.observed

    def repeat(self) -> Recorded:
        """As the cell's; those that were made for another stop serve this one too."""
        self._repeats += 1
        return self._repeat(self._repeats)

    def _phase(
        self, name: PhaseName, *, load: Path | None, start: int, stop: int, folder: str = ""
    ) -> Recorded:
        if name == "resumed" and self.until < stop:  # it is interrupted in its turn
            return super()._phase("interrupted", load=load, start=start, stop=self.until, folder="resumed")
        return super()._phase(name, load=load, start=start, stop=stop, folder=folder)

    def compare_part(self, resumed: Recorded, continuous: Recorded, source: Recorded) -> Found:
        """A resumed run that was stopped again beside the same part of the uninterrupted one's curves.

        At the steps that both have: what it had in its buffers when it was stopped went with it.
        """
        k, n, until = resumed.phase.start, self.plan.n, self.until
        known = continuation.before(self._named(source.series), k)
        last = continuation.last_known(self._named(continuous.series), known, k, n)
        expected = continuation.behind(continuous.series, resumed.series, last)
        end = continuation.last_before(continuous.series, until)
        expected = {metric: line.kept(line.steps <= end) for metric, line in expected.items()}
        expected, actual = continuation.common(expected, resumed.series)
        with self.phases.timed("checks"):
            return Found(checks=tuple(self._curves(expected, actual) if expected else ()))

    def compare_part_saved(self, resumed: Recorded, continuous: Recorded) -> SavedState | None:
        """What it saved where it was stopped again.

        None where the uninterrupted run's cannot be had, or differs in its last bits by itself.
        """
        trainer, plan, until = self.plan.trainer, self.plan, self.until
        there = iter_dir(continuous.phase.save, until)
        if not (trainer.can_rewind and plan.deterministic and there.is_dir()) or plan.layouts_differ:
            return None
        saved = trainer.saved(continuous.phase, until)
        return self.states.at_the_end(resumed, replace(continuous, saved=saved, saved_at=until), None)


@dataclass
class Stops:
    """Tries chains of stops of one cell.

    Args:
        steps: of the cell.
        continuous: its uninterrupted run.
        tried: what has been, in that order.
        untried: what there was no time for.
    """

    steps: Steps
    continuous: Recorded
    tried: dict[Chain, Tried] = field(default_factory=dict)
    _links: dict[tuple[Chain, int], Tried] = field(default_factory=dict)
    _sources: dict[int, tuple[Found, ...]] = field(default_factory=dict)
    untried: set[Chain] = field(default_factory=set)
    _repeated: list[Recorded] = field(default_factory=list)
    _slowest: float = 0.0

    # -- time --------------------------------------------------------------------------------

    def has_time_for(self, stops: Chain) -> bool:
        """Whether it would come to its end within the budget, if it is as slow as the slowest so far."""
        budget, plan = self.steps.plan.options.budget, self.steps.plan
        if budget is None or not self.tried:
            return True
        spent = self.steps.phases.timing()["total"]
        return spent + self._slowest * (plan.n - stops[0]) <= budget

    def fails(self, stops: Chain) -> bool | None:
        """Whether a chain fails; None where there is no time to try it."""
        if stops not in self.tried and not self.has_time_for(stops):
            self.untried.add(stops)
            return None
        return self.try_(stops).failed is not None

    # -- trying ------------------------------------------------------------------------------

    def try_(self, stops: Chain) -> Tried:
        """Resume at each of the stops in turn."""
        if stops not in self.tried:
            began = self.steps.phases.timing()["total"]
            found = self._try(stops)
            spent = self.steps.phases.timing()["total"] - began
            self._slowest = max(self._slowest, spent / (self.steps.plan.n - stops[0]))
            self.tried[stops] = found
            self._tell(found)
            if found.failed is None and len(self.tried) > 1:  # the first one is shown where all hold
                self._clear(found.steps)
        return self.tried[stops]

    def _try(self, stops: Chain) -> Tried:
        source, tried = None, None
        for place in range(len(stops)):
            until = stops[place + 1] if place + 1 < len(stops) else self.steps.plan.n
            tried = self._link(stops[: place + 1], until, source)
            if tried.failed is not None:
                return replace(tried, stops=stops, failed=place)
            source = next(found for found in tried.found if _is_resumed(found, tried.steps))
        assert tried is not None
        return replace(tried, stops=stops)

    def _link(self, before: Chain, until: int, source: Found | None) -> Tried:
        """The last resumed run of ``before``, to ``until``; made once."""
        key = (before, until)
        if key not in self._links:
            whole, k = until == self.steps.plan.n, before[-1]
            steps = StepsAt(self.steps, k, until, suffix_of(before, None if whole else until), self._again)
            found: list[Found] = []
            error: HarnessError | None = None
            try:
                for one in self._resumed(steps, source):
                    found.append(one)  # noqa: PERF402 - what was found before an error counts
            except (NotRun, NotAllocated):
                raise
            except HarnessError as raised:
                error = raised
            self.steps.phases.notes = steps.phases.notes
            self.steps.states.observed = steps.states.observed
            held = error is None and all(one.held for one in found)
            self._links[key] = Tried(before, steps, tuple(found), None if held else 0, error)
        return self._links[key]

    def _resumed(self, steps: StepsAt, source: Found | None) -> Iterator[Found]:
        """As ``full`` has it; up to where it is stopped again."""
        k, continuous = steps.plan.k, self.continuous
        if source is None:
            first = self._source(k)
            yield from (one for one in first if one is not continuous)
            source = first[0]
        elif isinstance(source, Recorded):
            yield source
            before = continuation.before(continuous.series, source.phase.start)
            source = replace(source, series=join(before, source.series))
        assert isinstance(source, Recorded)
        yield (resumed := steps.resume(source, like=continuous.series))
        if isinstance(resumed, NotResumed):
            return
        if steps.until < steps.plan.n:
            yield (curves := steps.compare_part(resumed, continuous, source))
            if (saved := steps.compare_part_saved(resumed, continuous)) is not None:
                yield saved
            return
        yield steps.came_to_the_end(resumed, continuous)
        yield (curves := steps.compare_with_uninterrupted(resumed, continuous, source))
        yield steps.compare_saved_state(resumed, continuous, source, curves)

    def _source(self, k: int) -> tuple[Found, ...]:
        """What is resumed from at ``k``: the uninterrupted run; or one that stopped there, and its checks."""
        if k in self.steps.plan.trainer.kept(self.continuous.phase):
            return (self.continuous,)
        if k not in self._sources:
            steps = StepsAt(self.steps, k, self.steps.plan.n, suffix_of((k,)), self._again)
            interrupted = steps.interrupt()
            self._sources[k] = (interrupted, steps.compare_before(interrupted, self.continuous))
            self.steps.states.observed = steps.states.observed
        return self._sources[k]

    def _again(self, count: int) -> Recorded:
        while len(self._repeated) < count:
            self._repeated.append(self.steps.repeat())
        return self._repeated[count - 1]

    def _tell(self, tried: Tried) -> None:
        said = "holds" if tried.failed is None else f"fails: {tried.why()}"
        self.steps.phases.observer.note(f"resumed at {named(tried.stops)}: {said}")

    def _clear(self, steps: StepsAt) -> None:
        """Free the disk of a run that nobody asks for any more."""
        if self.steps.plan.options.keep_checkpoints:
            return
        for name in ("resumed", "resumed-from", "probe", "probe-from"):
            folder = steps.phases.folder.checkpoints(name)
            for path in (folder, *folder.parent.glob(f".{folder.name}.*")):
                shutil.rmtree(path, ignore_errors=True)


def _is_resumed(found: Found, steps: StepsAt) -> bool:
    return isinstance(found, Recorded) and found.phase.load is not None and found.phase.start == steps.plan.k


# -- what is shown ------------------------------------------------------------------------------


def shown(tried: Tried) -> Iterator[Found]:
    """What was found of a chain's last run, in the words of ``full``; its folders get their names too."""
    for found in tried.found:
        if isinstance(found, Recorded):
            name: PhaseName = "resumed" if _is_resumed(found, tried.steps) else found.phase.name
            _link_to(found.phase.folder, name)
            yield replace(found, phase=replace(found.phase, name=name))
        else:
            yield found


def _link_to(folder: Path, name: str) -> None:
    link = folder.with_name(name)
    with contextlib.suppress(OSError):
        if not os.path.lexists(link):
            link.symlink_to(folder.name)
