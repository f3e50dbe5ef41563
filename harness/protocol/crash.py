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

from harness.checkpoints import iter_dir, latest, verify
from harness.errors import CheckpointError, TrainerFailed, UsageError
from harness.protocol import judge
from harness.protocol.phases import Recorded

if TYPE_CHECKING:
    from harness.protocol.plan import Plan
    from harness.protocol.run import Run

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


def kill_on_the_way(run: Run) -> tuple[Recorded | None, int]:
    """Train towards N and kill with SIGKILL at the moment that the options name.

    Returns:
        What is left on disk and the iteration that its tracker names; (None, 0) when there is
        nothing to resume from, which is then a failed check.

    """
    options = run.plan.options
    phase = run.phases.made("interrupted", load=None, start=0, stop=run.n)
    killer = _Killer(_moment(options.crash_at, phase.save, run), options.crash_rank)
    try:
        run.phases.launch(phase, on_started=killer.start, on_progress=killer.progress)
    except TrainerFailed as failure:
        if not killer.killed:
            raise
        run.observer.note(f"killed {options.crash_at}: {failure.message}")
    else:
        message = f"the run ended before it could be killed ({options.crash_at}); nothing was tried"
        run.checks.append(judge.present("crash: was killed", "state", passed=False, message=message))
        return None, 0
    finally:
        killer.stop()
    at = _what_is_left(run, phase.save)
    return (Recorded(phase, {}, iter_dir(phase.save, at)), at) if at is not None else (None, 0)


def _what_is_left(run: Run, save: Path) -> int | None:
    """The iteration that the tracker names, if its checkpoint is whole."""
    name = "crash: what is left can be resumed from"
    try:
        at = latest(save)
        if at is not None:
            verify(iter_dir(save, at), hashes=True)
    except CheckpointError as error:
        run.checks.append(judge.present(name, "state", passed=False, message=str(error)))
        return None
    if at is None:
        message = f"there is no tracker in {save}, though the checkpoint of {run.k} had been saved"
        run.checks.append(judge.present(name, "state", passed=False, message=message))
        return None
    message = f"the tracker names iteration {at}, and its checkpoint is whole"
    run.checks.append(judge.present(name, "state", passed=True, message=message))
    return at


def _moment(name: str, save: Path, run: Run) -> Callable[[int], bool]:
    """Whether it is time, given the iteration that every rank has come to."""
    last = iter_dir(save, run.n)
    if name == "between-steps":
        return lambda iteration: iteration >= (run.k + run.n) // 2
    if name == "saving":
        return lambda _: last.is_dir() and any(last.iterdir())
    return lambda _: _is_written(last)


def _is_written(folder: Path) -> bool:
    """Whether the manifest, which comes after all data, is there."""
    return (folder / "manifest.json").exists()


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
