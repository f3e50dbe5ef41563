"""Kill a run at a chosen moment, and find what a user would resume from."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.checkpoints import MANIFEST, TRACKER, iter_dir, latest, verify
from harness.errors import CheckpointError, TrainerFailed, UsageError
from harness.protocol import judge
from harness.protocol.findings import Killed, Recorded

if TYPE_CHECKING:
    from harness.protocol.phases import Phases
    from harness.protocol.plan import Plan
    from harness.trainers.base import Phase

_ATTEMPTS = 4
_TICK = 0.0005  # s; a small checkpoint is written within a few of them


def check_crash(plan: Plan) -> None:
    """Refuse what cannot be killed at a moment.

    Raises:
        UsageError: this trainer's ranks or moments cannot be told from outside, or there is no such rank.
    """
    if not plan.resumes:
        raise UsageError(f"{plan.case.name}: protocol crash: it resumes nothing", "take --protocol full")
    if plan.trainer.name != "native":
        raise UsageError(
            f"protocol crash: ranks and saves of the trainer {plan.trainer.name} cannot be told from outside",
            "take --protocol full",
        )
    rank = plan.options.crash_rank
    if rank != "all" and int(rank) >= plan.world_size:
        raise UsageError(f"--crash-rank {rank}: the world has {plan.world_size} ranks")


def kill_on_the_way(phases: Phases) -> Killed:
    """Train towards N and kill with SIGKILL at the moment that the options name.

    On a busy machine the kill may come when the last checkpoint is complete. That says nothing of resuming,
    so it is tried again, and said; a rank that is never killed in time is a failed check of the protocol's.
    """
    killed = _kill(phases, "interrupted")
    for attempt in range(2, _ATTEMPTS + 1):
        if not (killed.late or killed.at == phases.plan.n):
            break
        phases.observer.note(f"the kill came too late; {attempt} of {_ATTEMPTS}")
        killed = _kill(phases, f"interrupted-{attempt}")
    return killed


def _kill(phases: Phases, folder: str) -> Killed:
    plan, options = phases.plan, phases.plan.options
    phase = phases.made("interrupted", load=None, start=0, stop=plan.n, folder=folder)
    killer = _Killer(_moment(options.crash_at, phase.save, plan), options.crash_rank)
    try:
        phases.launch(phase, on_started=killer.start, on_progress=killer.progress)
    except TrainerFailed as failure:
        if not killer.killed:
            raise
        phases.observer.note(f"killed {options.crash_at}: {failure.message}")
    else:
        message = f"the run ended before it could be killed ({options.crash_at}); nothing was tried"
        check = judge.present("crash: was killed", "state", passed=False, message=message)
        return Killed(checks=(check,), late=True)
    finally:
        killer.stop()
    return _what_is_left(phase, plan.k)


def _what_is_left(phase: Phase, k: int) -> Killed:
    """The iteration that the tracker names, if its checkpoint is whole."""
    name = "crash: what is left can be resumed from"
    try:
        at = latest(phase.save)
        if at is not None:
            verify(iter_dir(phase.save, at), hashes=True)
    except CheckpointError as error:
        return Killed(checks=(judge.present(name, "state", passed=False, message=str(error)),))
    if at is None:
        message = f"there is no tracker in {phase.save}, though the checkpoint of {k} had been saved"
        return Killed(checks=(judge.present(name, "state", passed=False, message=message),))
    message = f"the tracker names iteration {at}, and its checkpoint is whole"
    check = judge.present(name, "state", passed=True, message=message)
    left = Recorded(phase=phase, series={}, saved=iter_dir(phase.save, at))
    return Killed(checks=(check,), left=left, at=at)


def _moment(name: str, save: Path, plan: Plan) -> Callable[[int], bool]:
    """Whether it is time, given the iteration that every rank has come to."""
    last = iter_dir(save, plan.n)
    if name == "between-steps":
        return lambda iteration: iteration > plan.k and _named(save) >= plan.k
    if name == "saving":
        return lambda _: last.is_dir() and any(last.iterdir())
    return lambda _: _is_written(last)


def _named(save: Path) -> int:
    """The iteration that the tracker names by now; -1 before there is one."""
    text = (save / TRACKER).read_text()
    return int(text) if text.isascii() and text.isdigit() else -1


def _is_written(folder: Path) -> bool:
    """Whether the manifest, which comes after all data, is there."""
    return (folder / MANIFEST).exists()


class _Killer:
    """Waits for the moment in a thread of its own, then kills."""

    def __init__(self, moment: Callable[[int], bool], rank: str) -> None:
        self.killed = False
        self._moment, self._rank, self._iteration = moment, rank, -1
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, pids: list[int]) -> None:
        """The ranks are there."""
        victims = pids if self._rank == "all" else [pids[int(self._rank)]]
        self._thread = threading.Thread(target=self._wait, args=(victims,), daemon=True)
        self._thread.start()

    def progress(self, iteration: int) -> None:
        """Every rank has come to ``iteration``."""
        self._iteration = iteration

    def stop(self) -> None:
        """The phase is over."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _wait(self, victims: list[int]) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                if self._moment(self._iteration):
                    self.killed = True
                    for pid in victims:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    return
            time.sleep(_TICK)
