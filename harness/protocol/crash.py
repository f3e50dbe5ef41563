"""Kill a run at a chosen moment, and let it be resumed from what is left; again and again.

What stands on the disk decides where it goes on, and the trainer reads that, not the harness. Where it went
on is learned from what it logs, and must be where a whole checkpoint is.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import CheckpointError, HarnessError, NothingLogged, TrainerFailed, UsageError
from harness.protocol import continuation, judge
from harness.protocol.findings import Found, Killed, NotResumed, Recorded
from harness.protocol.leftovers import gone_on_from
from harness.protocol.moments import Drawn, Killer, drawn
from harness.trainers.killed import UNNUMBERED, Left

if TYPE_CHECKING:
    from harness.protocol.plan import Plan
    from harness.protocol.steps import Steps
    from harness.trainers.base import Phase

_ATTEMPTS = 4
_SHOWN = 3
_LEFT = "crash: what is left can be resumed from"
_TORN = "crash: no torn save is taken for whole"
_WHERE = "crash: it goes on from a whole checkpoint"


def check_crash(plan: Plan) -> None:
    """Refuse what cannot be killed.

    Raises:
        UsageError: there is no such rank, or nothing of its own is resumed.
    """
    if not plan.resumes or plan.case.test_type == "frozen-resume":
        raise UsageError(
            f"{plan.case.name}: protocol crash: it resumes nothing of its own", "take --protocol full"
        )
    rank, world = plan.options.crash_rank, plan.world_size
    if rank not in ("all", "any") and int(rank) >= world:
        said = "" if plan.trainer.name != "command" else "HARNESS: world_size says how many a command has"
        raise UsageError(f"--crash-rank {rank}: the world has {world} rank{'s' if world > 1 else ''}", said)


def kills(steps: Steps, continuous: Recorded, once: Callable[[Kill], Iterator[Found]]) -> Iterator[Found]:
    """As many as the options ask for, and what they have found.

    Args:
        continuous: the uninterrupted run.
        once: kills, lets resume and compares.
    """
    kept = resumed = False
    times = steps.plan.options.crash_times
    for number in range(1, times + 1):
        kill = Kill(steps, continuous, number, folder=f"-{number}" if kept else "")
        yield from kill.told(once(kill))
        resumed = resumed or kill.resumed or kill.failed
        if not kill.failed:
            kill.forget()
        kept = kept or kill.failed  # what it has left stays under the names that all reports look for
    if times > 1 and not resumed:
        said = f"in none of {times} kills was there a checkpoint to go on from: take more, or another moment"
        yield Found(checks=(judge.present("crash: resumed", "continuous", passed=False, message=said),))


class Kill:
    """One of them: the run is killed, and resumed.

    Args:
        steps: of the cell.
        continuous: the uninterrupted run.
        number: from 1 on.
        folder: what the folders of its phases end with.
    """

    def __init__(self, steps: Steps, continuous: Recorded, number: int, *, folder: str) -> None:
        self.steps, self.phases, self.plan = steps, steps.phases, steps.plan
        self.continuous, self.number, self._folder = continuous, number, folder
        self.failed = False
        #: Whether it came too late, as often as it was tried.
        self.late = False
        #: Whether it went on from a checkpoint.
        self.resumed = False
        self._told: list[str] = []
        self._left = Left()
        self._source: Phase | None = None
        self._last: Recorded | None = None
        self._attempt = 0

    @property
    def name(self) -> str:
        """For people."""
        times = self.plan.options.crash_times
        return f"crash {self.number} of {times}" if times > 1 else "crash"

    def told(self, found: Iterable[Found]) -> Iterator[Found]:
        """What one kill has found: all of it where it is the only one, or has failed, or is the first.

        Of several, each has a check of its own.
        """
        if self.plan.options.crash_times == 1:
            yield from found
            return
        gathered: list[Found] = []
        problem = ""
        try:
            gathered.extend(found)
        except HarnessError as error:
            problem = error.message
        bad = [check for one in gathered for check in one.checks if not check.passed]
        if self.late and not problem:  # one of several: the others tell
            bad, gathered = [], []
            self._told = [f"{_ATTEMPTS} times it came too late: nothing was tried"]
        self.failed = bool(problem or bad)
        count = sum(len(one.checks) for one in gathered)
        said = "; ".join(self._told)
        if self.failed:
            names = [f"{check.name} ({check.message})" for check in bad[:_SHOWN]]
            names += [problem] if problem else []
            more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
            said += f"; failed: {'; '.join(names)}{more}"
        else:
            said += f"; {count} checks held"
        name = f"{self.name}: goes on as if nothing had been"
        yield Found(checks=(judge.present(name, "state", passed=not self.failed, message=said),))
        if self._folder == "" and (self.failed or self.number == self.plan.options.crash_times):
            yield from gathered

    def forget(self) -> None:
        """Free the disk: nothing of it is looked at again."""
        if self.number == self.plan.options.crash_times:
            return
        for attempt in range(1, _ATTEMPTS + 1):
            name = self._called("interrupted", attempt)
            shutil.rmtree(self.phases.folder.checkpoints(name), ignore_errors=True)
            shutil.rmtree(self.phases.folder.phase(name), ignore_errors=True)
        for name in ("resumed", "resumed-from"):
            shutil.rmtree(self.phases.folder.checkpoints(f"{name}{self._folder}"), ignore_errors=True)
        shutil.rmtree(self.phases.folder.phase(f"resumed{self._folder}"), ignore_errors=True)

    def _called(self, name: str, attempt: int) -> str:
        return f"{name}{self._folder}" + (f"-{attempt}" if attempt > 1 else "")

    # -- killing -----------------------------------------------------------------------------

    def interrupt(self) -> Killed:
        """Train towards N and kill with SIGKILL at the moment that the options name.

        On a busy machine the kill may come when the last checkpoint is complete. That says nothing of
        resuming, so it is tried again, and said; one that never comes in time is a failed check.
        """
        killed: Killed | None = None
        while self._attempt < _ATTEMPTS:
            self._attempt += 1
            killed = self._kill(self._attempt)
            self.late = killed.late or killed.at == self.plan.n
            if not self.late:
                return killed
            if self._attempt < _ATTEMPTS:
                self.phases.observer.note(f"the kill came too late; {self._attempt + 1} of {_ATTEMPTS}")
        self.late = True
        return killed or Killed(at=self.plan.n, left=self._last)

    def _kill(self, attempt: int) -> Killed:
        plan, options, folder = self.plan, self.plan.options, self._called("interrupted", attempt)
        for stale in (self.phases.folder.checkpoints(folder), self.phases.folder.phase(folder)):
            shutil.rmtree(stale, ignore_errors=True)  # of a kill before: it would be gone on from
        phase = self.phases.made("interrupted", load=None, start=0, stop=plan.n, folder=folder)
        like = self.continuous.phase
        forked = plan.trainer.launch(phase).kind == "fork"
        seconds = self.phases.seconds_of(like.folder.name)
        how = drawn(plan, self.number, attempt)
        saving = plan.trainer.saving(phase, like)
        killer = Killer(
            options, how, phase, saving, seconds=seconds, forked=forked, alone=plan.world_size == 1
        )
        try:
            self.phases.launch(phase, on_started=killer.start, on_progress=killer.progress)
        except TrainerFailed as failure:
            killer.stop()
            if not killer.killed:
                raise
            return self._killed(phase, killer, how, failure)
        finally:
            killer.stop()
        why = killer.problem or "the run ended before it could be killed"
        message = f"{why} ({options.crash_at}, rank {how.rank}); nothing was tried"
        check = judge.present("crash: was killed", "state", passed=False, message=message)
        return Killed(checks=(check,), late=not killer.problem)

    def _killed(self, phase: Phase, killer: Killer, how: Drawn, failure: TrainerFailed) -> Killed:
        noticed = time.monotonic() - killer.at
        self.phases.took(f"{phase.folder.name}: until it ended", noticed)
        self._source = phase
        self._left = left = self.plan.trainer.left(phase, self.continuous.phase)
        who = "all ranks" if how.rank == "all" else f"rank {how.rank}"
        self._told = [f"{who} killed {killer.after:.2f} s after the start ({self.plan.options.crash_at})"]
        self._told.append(f"left: {left.sentence()}")
        self.phases.observer.note(f"{self._told[0]}: {failure.message}; {self._told[1]}")
        self._last = source = Recorded(phase=phase, series={}, saved=phase.save)
        at = left.committed
        said = "; ".join(self._told)
        if UNNUMBERED in left.whole and self._came_to_the_end(phase):
            at = self.plan.n
        return Killed(checks=(judge.present(_LEFT, "state", passed=True, message=said),), left=source, at=at)

    def _came_to_the_end(self, phase: Phase) -> bool:
        """Whether a run that was killed had logged its last step."""
        from harness.errors import MetricsError
        from harness.metrics import read_metrics

        try:
            mine = read_metrics(phase.tensorboard, phase.folder, killed=True)
        except MetricsError:
            return False
        last = continuation.last_of
        return last(mine) is not None and last(mine) == last(self.continuous.series)

    # -- resuming ----------------------------------------------------------------------------

    def resume(self, killed: Killed) -> Recorded | NotResumed | None:
        """From what is left, wherever that is; the folder is as the kill has left it.

        Returns:
            None where nothing was left to do: what it found was the checkpoint of N, and whole.
        """
        assert killed.left is not None
        trainer, left, n = self.plan.trainer, self._left, self.plan.n
        folder = f"resumed{self._folder}"
        load = self.phases.folder.checkpoints(f"resumed-from{self._folder}")
        shutil.rmtree(load, ignore_errors=True)
        for stale in (self.phases.folder.checkpoints(folder), self.phases.folder.phase(folder)):
            shutil.rmtree(stale, ignore_errors=True)
        load.mkdir(parents=True)
        trainer.take_over(killed.left.phase, load)
        begun = left.files or trainer.can_rewind  # where nothing was saved, nobody says resume
        try:
            resumed = self.phases.run(
                "resumed", load=load if begun else None, start=killed.at, stop=n, folder=folder
            )
        except (CheckpointError, TrainerFailed) as error:
            return self._refused(error, killed, str(load))
        except NothingLogged:
            said = [(lost, words) for lost, words in self._last_words(folder) if lost]
            if not said:
                return self._nothing_to_do()
            lost, words = said[-1]
            ended = CheckpointError(f"it ended without an error and without a step; its log says: {words}")
            return NotResumed(checks=(judge.not_loaded(killed.at, ended),), component=lost or "checkpoint")
        if not any(len(line) for line in resumed.series.values()):
            return self._nothing_to_do()
        return self._went_on(resumed)

    def _nothing_to_do(self) -> NotResumed | None:
        """It ended well, and trained nothing: it took what it found for the end of training.

        Raises:
            NothingLogged: there was nothing that it could take for that.
        """
        left, n = self._left, self.plan.n
        key = UNNUMBERED if left.unnumbered else n
        if why := left.torn.get(key) or left.odd.get(key):
            said = f"it has taken the checkpoint of {n} for whole, and trained nothing: {why}"
            return NotResumed(checks=(judge.present(_TORN, "state", passed=False, message=said),))
        if key in left.whole:
            return None
        raise NothingLogged(f"the resumed run has logged nothing, and no checkpoint of {n} was there")

    def _last_words(self, folder: str) -> list[tuple[str | None, str]]:
        from harness.diagnosis import said_unable

        return [(said_unable(words), words) for words in self.phases.last_words("resumed", folder)]

    def _refused(self, error: CheckpointError | TrainerFailed, killed: Killed, load: str) -> NotResumed:
        """It could not load what is left, and says so; that is well only where nothing whole is left."""
        from harness.diagnosis import could_not_load, said_unable

        cause = error.__cause__ if isinstance(error, TrainerFailed) else error
        if isinstance(cause, CheckpointError):
            lost: str | None = "checkpoint"
        elif not isinstance(error, TrainerFailed) or self.phases.trained(
            "resumed", behind=killed.at, folder=f"resumed{self._folder}"
        ):
            raise error
        elif error.raised is None and error.reason.startswith("exited"):
            lost = said_unable(error.reason)
        else:
            lost = could_not_load(error.raised, load)
        by_itself = isinstance(error, TrainerFailed) and (error.raised is not None or lost is not None)
        if by_itself and not self._left.whole:
            said = f"nothing whole was left, and it says so: {error.message}"
            self._told.append(said)
            return NotResumed(checks=(judge.present(_WHERE, "state", passed=True, message=said),))
        if lost is None:
            raise error
        return NotResumed(checks=(judge.not_loaded(killed.at, error),), component=lost)

    def _went_on(self, resumed: Recorded) -> Recorded | NotResumed:
        """Find out where it went on, and whether it may."""
        left = self._left
        judged = continuation.named(resumed.series, self.plan.case.metrics)
        like = continuation.named(self.continuous.series, self.plan.case.metrics)
        at, went_on = gone_on_from(judged, left, like, n=self.plan.n, interval=self.plan.save_interval)
        if at in left.torn or (left.unnumbered and at > 0 and UNNUMBERED in left.torn):
            why = left.torn.get(at, left.torn.get(UNNUMBERED, ""))
            said = f"it went on from iteration {at}, whose checkpoint is torn: {why}"
            return NotResumed(checks=(judge.present(_TORN, "state", passed=False, message=said),))
        series = {**resumed.series, **went_on.series}
        phase = replace(resumed.phase, start=at)
        checks = (*resumed.checks, went_on.check)
        if at:
            said = f"it went on from iteration {at}"
        else:
            named = (
                "nothing that is whole is named" if left.whole - left.odd.keys() else "nothing whole was left"
            )
            said = f"it began anew at 0: {named}"
        self.resumed = at > 0
        if went_on.check.passed:
            self._told.append(said)
            checks = (*checks, judge.present(_WHERE, "state", passed=True, message=said))
        return replace(resumed, phase=phase, series=series, checks=checks)

    # -- judging -----------------------------------------------------------------------------

    def judged(self, resumed: Recorded, comparisons: Iterable[Found]) -> Iterator[Found]:
        """What comparing has found; where the save that it went on from explains that, this alone.

        Args:
            resumed: the run.
            comparisons: of it with the uninterrupted one.
        """
        found: list[Found] = [resumed]
        try:
            for one in comparisons:
                found.append(one)  # noqa: PERF402 - what was found before an error counts
        except HarnessError:
            yield from found
            raise
        failed = [check for one in found for check in one.checks if not check.passed]
        why = self._not_that_of_the_uninterrupted(resumed.phase.start) if failed else ""
        if not why:
            yield from found
            return
        said = f"it went on from iteration {resumed.phase.start}, and otherwise ({failed[0].message}): {why}"
        yield NotResumed(checks=(judge.present(_TORN, "state", passed=False, message=said),))

    def _not_that_of_the_uninterrupted(self, at: int) -> str:
        """What is wrong with the checkpoint of ``at`` that the killed run has left; "" where nothing is."""
        left, source = self._left, self._source
        if at == 0 or source is None:
            return ""
        if why := left.odd.get(UNNUMBERED if left.unnumbered else at):
            return why
        if left.unnumbered or not self.plan.deterministic:
            return ""
        from harness.checkpoints.circumstances import circumstances

        like = self.continuous.phase
        try:
            mine = self.plan.trainer.saved_before(source, at, like)
            other = self.plan.trainer.saved_before(like, at, like)
            difference = self.steps.states.diff(other, mine, resumed=False)
        except CheckpointError:
            return ""  # the uninterrupted run has kept none of that iteration
        _, rest = circumstances(difference, at, lists=True, floats=True)
        if not rest:
            return ""
        names = ", ".join(entry.name for entry in rest[:_SHOWN])
        return f"what was saved there is not what the uninterrupted run has saved: {names}"
