"""When a run is killed, and whom: a moment by what is seen from outside, or drawn with a seed."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.launch import victims
from harness.metrics import stdout

if TYPE_CHECKING:
    from harness.protocol.plan import Options, Plan
    from harness.trainers.base import Phase
    from harness.trainers.killed import Saving

_TICK = 0.0005  # s; a small checkpoint is written within a few of them
_LOOKED = 0.25  # s between two looks for who is there
_EARLY = 0.1  # of the random moments, so many come anywhere from the start on, imports included
_A_SAVE = 0.05  # s; the kill comes so long at most behind the beginning of a save
_START = 1.0  # s; to start takes some time, however short the training is
_LATE = 1.5  # of the time that a whole run takes: then it is killed though nothing was seen of it


@dataclass(frozen=True)
class Drawn:
    """What a seed has decided of one kill.

    Args:
        rank: ``all``, or the number of one.
        part: of the time from the first sign of training to the end, or (``early``) from the start.
        early: whether the kill may come before there is any sign of training.
        waits: of several kills, this one waits until there is a checkpoint to go on from.
        save: the iteration whose checkpoint is being saved, or has just been.
        delay: behind what is waited for, as a part of the time between two saves, or of a save.
    """

    rank: str
    part: float
    early: bool
    waits: bool
    save: int
    delay: float


def drawn(plan: Plan, number: int, attempt: int) -> Drawn:
    """Draw the kill ``number`` from the seed that the options have; without one, the first is that of N.

    Args:
        attempt: the kill is tried so often, because it came too late before; then it comes earlier.
    """
    options = plan.options
    draw = random.Random(f"{options.crash_seed}/{number}/{attempt}")  # noqa: S311 - no secret
    rank = options.crash_rank
    if rank == "any":
        rank = draw.choice(["all", *map(str, range(plan.world_size))])
    times = options.crash_times
    # Each has a part of the time to itself, in an order that is drawn, so that none is left out.
    order = random.Random(options.crash_seed).sample(range(times), times)  # noqa: S311 - no secret
    waits = times > 1 and order[number - 1] == times - 1
    part, early = (order[number - 1] + draw.random()) / times, draw.random() < _EARLY and not waits
    if attempt > 1:  # at once; then anywhere before there is any sign
        part, early = (0.0, False) if waits or attempt == 2 else (draw.random() / attempt, True)
    saves = [*range(plan.save_interval, plan.n, plan.save_interval), plan.n]
    between = options.crash_at == "between-steps"
    if number == 1 and not options.crash_seed:
        return Drawn(rank, part, early, waits, plan.k if between else plan.n, 0.0)
    save = draw.choice(saves[:-1] if between else saves)
    return Drawn(rank, part, early, waits, save, draw.random() / attempt)


class Killer:
    """Waits for the moment in a thread of its own, then kills.

    Args:
        options: which moment.
        how: what was drawn.
        phase: the run that is killed.
        saving: what it saves into.
        seconds: how long a whole run takes: from its first iteration on where its ranks say that they have
            come to one, else from its start.
        forked: its ranks are known by their processes, and say how far they are.
        alone: it has one rank.
    """

    def __init__(
        self,
        options: Options,
        how: Drawn,
        phase: Phase,
        saving: Saving,
        *,
        seconds: float,
        forked: bool,
        alone: bool,
    ) -> None:
        self.options, self.how, self.phase, self.saving = options, how, phase, saving
        self.seconds, self.forked, self.alone = seconds, forked, alone
        self.killed: list[int] = []
        #: When it was done, on the clock that only goes on; and how long after the start.
        self.at = self.after = 0.0
        #: Why it could not be done.
        self.problem = ""
        self._began, self._iteration, self._looked = 0.0, -1, 0.0
        self._ranks: list[int] = []
        self._below: list[int] = []
        self._found: dict[int, int] = {}
        self._known: set[int] = set()
        self._sign: float | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._before = frozenset(_outputs(phase))

    def start(self, pids: list[int]) -> None:
        """The ranks are there, or the command is."""
        self._began, self._ranks = time.monotonic(), pids
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def progress(self, iteration: int) -> None:
        """Every rank has come to ``iteration``."""
        self._iteration = iteration

    def stop(self) -> None:
        """The phase is over."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _wait(self) -> None:
        moment = self._moment()
        since: float | None = None
        while not self._over.is_set():
            now = time.monotonic()
            with contextlib.suppress(OSError):
                self._look(now)
                if self._sign is None and self._seen():
                    self._sign = now - self._began
                if since is None and moment(now):
                    since = now
                if since is not None and now - since >= self._delay() and self._kill():
                    return
            # A look into a folder of many files takes longer than a tick; it must not take a processor.
            time.sleep(max(_TICK, 2 * (time.monotonic() - now)))

    def _delay(self) -> float:
        """Seconds."""
        if not self.how.delay or self.options.crash_at == "random":
            return 0.0
        trained = self.seconds if self.forked else max(0.0, self.seconds - (self._sign or 0.0))
        between = trained * self.phase.save_interval / self.phase.train_iters
        if self.options.crash_at == "between-steps":
            return self.how.delay * between / 2
        return self.how.delay * min(_A_SAVE, between / 2)

    def _moment(self) -> Callable[[float], bool]:
        saving, save = self.saving, self.how.save
        if self.options.crash_at == "random":
            return self._by_time
        if self.options.crash_at == "saving":
            return lambda _: saving.begun(save)
        if self.options.crash_at == "before-tracker":
            if not saving.tracker:
                self.problem = "no tracker, link or file is written when the data of a checkpoint are there"
                return lambda _: False
            return lambda _: saving.written(save)
        if self.forked:
            return lambda _: self._iteration > save and saving.named(save)
        return lambda _: saving.named(save)

    def _by_time(self, now: float) -> bool:
        passed = now - self._began
        if self.how.waits and not self.saving.named(self.phase.save_interval):
            return False
        if self.how.early:
            return passed >= self.how.part * max(self.seconds, _START)
        if self._sign is None:
            return not self.forked and passed > _LATE * self.seconds
        left = self.seconds if self.forked else max(0.0, self.seconds - self._sign)
        return passed >= self._sign + self.how.part * left

    def _seen(self) -> bool:
        """Whether there is any sign that it trains."""
        if self.forked:
            return self._iteration >= 0
        return bool(_outputs(self.phase) - self._before)

    def _look(self, now: float) -> None:
        """Who is there, so that nobody has to be looked for when the moment has come."""
        if self.forked or now < self._looked + _LOOKED:
            return
        self._looked = now
        from harness.trainers.command import processes

        root = self._ranks[0]
        self._below = processes.tree(root)
        if self.how.rank != "all":
            self._found = victims.ranks_below(root)
            self._known |= self._found.keys()
            self.problem = "" if int(self.how.rank) in self._known else self.problem

    def _kill(self) -> bool:
        if self.forked:
            pids = self._ranks if self.how.rank == "all" else [self._ranks[int(self.how.rank)]]
            self.killed = victims.kill(pids)
        elif self.how.rank == "all":
            self.killed = victims.kill_everything(self._ranks[0], self._below)
        else:
            self.killed = self._kill_one(int(self.how.rank))
        if self.killed:
            self.at = time.monotonic()
            self.after = self.at - self._began
        return bool(self.killed)

    def _kill_one(self, rank: int) -> list[int]:
        """One rank of what the command has started; a command that starts none is its only rank."""
        root = self._ranks[0]
        found = self._found or victims.ranks_below(root)
        if not found and rank == 0 and self.alone:
            return victims.kill_everything(root, self._below)
        if rank not in found:
            if rank in self._known:  # it has ended by itself
                return []
            self.problem = f"no process below the command says that it is rank {rank}"
            return []
        return victims.kill([found[rank]])


def _outputs(phase: Phase) -> set[str]:
    """Files that a run has written something into: what it logs, and what it saves."""
    found = set[str]()
    for here, folders, names in os.walk(phase.folder):
        if Path(here) == phase.folder and "logs" in folders:
            folders.remove("logs")
        found.update(os.path.join(here, name) for name in names)
    printed = phase.folder / stdout.LOG
    if stdout.is_declared(phase.folder):
        found.add(str(printed))
    for here, _, names in os.walk(phase.save):
        found.update(os.path.join(here, name) for name in names)
    return {path for path in found if os.path.exists(path) and os.path.getsize(path) > 0}
