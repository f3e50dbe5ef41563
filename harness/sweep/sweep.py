"""A sweep: environments, then the arrays, then what each task has left, until none is in the queue.

This process asks one question every few seconds, of all tasks together, and reads the verdict of a task when
it has left the queue: what it does and holds does not grow with the cells.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from harness.engines.slurm import programs
from harness.engines.slurm.allocation import MARK, cancel, comment
from harness.errors import EXIT_FAILED, EXIT_NOTHING, EXIT_PASSED, UsageError
from harness.launch.shared import patience
from harness.night.outcome import Outcome, read_outcome
from harness.report.summary import Line, summary_of
from harness.sweep import endings
from harness.sweep.asked import Array, Asked, Wish, arrays
from harness.sweep.board import Board
from harness.sweep.environments import LATE, Kind, Made, Making
from harness.sweep.folder import Folder
from harness.sweep.queue import ENDED, Key, Queue, look
from harness.sweep.queue import endings as endings_of
from harness.text import count
from harness.verdict.sweep import leave

_LOOK: Final = 3.0  # s between two questions
_STAY: Final = "--no-rotation"  # means nothing to a cell that runs as on any machine
_SILENT: Final = 600.0  # s for which the controller may not answer, as while it is started anew


@dataclass(frozen=True)
class How:
    """What a command line says of all cells.

    Args:
        cases, goldens, results: folders that the nodes see too.
        at_most: tasks of an array that run at a time; None: as many as there is room for.
        minutes: that a task may take.
        options: more words for sbatch.
        requeue: whether Slurm may start a task again.
        prefix: words before the command of a cell.
        words: more words for ``harness run``.
        here: whether environments are made on this machine.
        nodes: that each phase runs on, where ``words`` say it; None: as the case says.
    """

    cases: Path
    goldens: Path
    results: Path
    at_most: int | None = None
    minutes: int = 60
    options: tuple[str, ...] = ()
    requeue: bool = False
    prefix: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    here: bool = False
    nodes: int | None = None


@dataclass
class _Seat:
    """Where a cell is: task ``task`` of array ``array``; since when it has been out of the queue."""

    array: int
    task: int
    wish: Wish
    out: float = 0.0


class Sweep:
    """All cells of a command line, run by Slurm.

    Args:
        asked: which.
        how: how.
        console: where it is shown.
    """

    def __init__(self, asked: Asked, how: How, console: Console) -> None:
        self.asked, self.how = asked, how
        self.name = f"{MARK}{uuid.uuid4().hex[:12]}"
        self._console = console
        self._board = Board(console, len(asked.wishes))
        self._folder = Folder(how.results, self.name)
        self._open: dict[Key, _Seat] = {}
        self._codes: set[int] = set()
        #: Whether Slurm was asked for a job, and how many it has taken.
        self._submitting, self._jobs = False, 0
        self._heard = time.monotonic()
        #: Whether jobs are in the queue that could not be cancelled.
        self.left = False

    def run(self) -> int:
        """Run them; the exit status is as of ``harness run`` with several cells.

        Raises:
            UsageError: Slurm takes none of the jobs, or does not answer any more.
            KeyboardInterrupt: all are cancelled.
        """
        try:
            with self._board:
                self._submit(self._environments())
                while self._open:
                    self._collect(self._queue())
        except BaseException:
            self._end()
            raise
        cells = [one.cell for one in self.asked.wishes]
        summary_of(self.how.results, cells, self._console)
        bad = self._codes - {EXIT_PASSED, EXIT_NOTHING}
        if self._codes == {EXIT_PASSED}:
            self._folder.remove()
        else:
            self._board.say(f"what their jobs said: {self._folder.path}")
        if not bad:
            return EXIT_PASSED if EXIT_PASSED in self._codes else EXIT_NOTHING
        return bad.pop() if len(bad) == 1 else EXIT_FAILED

    def _end(self) -> None:
        self.left = self._submitting
        with undisturbed():
            if self._submitting:
                self.left = not cancel(self.name)
            if not self._jobs:
                self._folder.remove()  # nothing stands there that anybody has run

    # -- before ------------------------------------------------------------------------------

    def _environments(self) -> dict[Kind, Made]:
        """By hardware and track; those that could not be made too."""
        making = Making(self._folder, self.asked.sessions, self.how.prefix)
        kinds = ((one.cell.hardware, one.cell.track) for one in self.asked.wishes)
        made, rest = making.needed(kinds)
        jobs: dict[Kind, int] = {}
        for kind in rest:
            where = "on this machine" if self.how.here else "by a job of its own"
            self._board.say(f"environment of {'/'.join(kind)}: is made {where}")
            if self.how.here:
                made[kind] = making.here(kind)
            else:
                gpus = 0 if kind[0] == "cpu" else 1
                words = [*_room(1, 1, gpus), f"--output={self._folder.log(making.name(kind))}"]
                jobs[kind] = self._sbatch(words, making.script(kind))
        waiting = set(jobs.values())
        while waiting:
            queue = self._queue()
            waiting = {job for job in waiting if (job, -1) in queue}
        made |= {kind: making.found(kind) for kind in jobs}
        return made

    def _submit(self, made: dict[Kind, Made]) -> None:
        jobs = 0
        for number, array in enumerate(arrays(self.asked.wishes)):
            environment = made[array.hardware, array.track]
            if not environment.python:
                for wish in array.wishes:
                    leave(wish.cell, "refused", environment.why, self.how.results, again=self._again(wish))
                    self._ended(read_outcome(wish.cell, endings.place(self.how.results, wish.cell)), "")
                continue
            job = self._sbatch(self._array(array, number), self._write(array, number, environment.python))
            for task, wish in enumerate(array.wishes):
                self._open[job, task] = _Seat(number, task, wish)
            jobs += 1
        if self._open:
            cells, made_of = count(len(self._open), "cell"), count(jobs, "job array")
            self._board.say(f"{cells} in {made_of}, named {self.name}")

    def _write(self, array: Array, number: int, python: str) -> Path:
        cells = [
            {
                "cell": one.cell.id,
                "folder": str(endings.place(self.how.results, one.cell).absolute()),
                "words": self._words(one),
            }
            for one in array.wishes
        ]
        content = {"python": python, "prefix": list(self.how.prefix), "engine": array.engine}
        return self._folder.array(number, {**content, "cells": cells})

    def _array(self, array: Array, number: int) -> list[str]:
        """The words of sbatch that are an array's own."""
        slots = "" if self.how.at_most is None else f"%{self.how.at_most}"
        gpus = 0 if array.hardware == "cpu" else -(-array.ranks // array.nodes)
        # One more than a phase has: no rank is resumed on the node that it was saved on.
        spare = 1 if array.engine and _STAY not in self.how.words else 0
        words = _room(array.nodes + spare, array.ranks, gpus, whole=array.engine)
        return [*words, f"--array=0-{len(array.wishes) - 1}{slots}",
                f"--output={self._folder.log(f'{number}-%a')}", "--open-mode=append"]  # fmt: skip

    def _sbatch(self, words: Sequence[str], script: Path) -> int:
        how = self.how
        every = ["sbatch", "--parsable", f"--job-name={self.name}", f"--comment={comment()}"]
        every += [f"--time={how.minutes}", "--requeue" if how.requeue else "--no-requeue"]
        every += [f"--chdir={os.getcwd()}", *words, *how.options, str(script)]
        with undisturbed():  # what is half submitted could not be cancelled
            self._submitting = True
            said = programs.ask(*every)
            self._jobs += 1
        number = said.strip().partition(";")[0]
        if not number.isdigit():
            raise UsageError(f"sbatch: found {said.strip()!r}, expected the number of a job")
        return int(number)

    def _words(self, wish: Wish) -> list[str]:
        how, cell = self.how, wish.cell
        words = ["run", wish.asked, "--hardware", cell.hardware, "--track", cell.track]
        words += ["--cases", str(how.cases), "--goldens", str(how.goldens), "--results", str(how.results)]
        if wish.engine:
            return [*words, "--engine", "slurm", "--time-limit", str(how.minutes), *how.words]
        return [*words, *(word for word in how.words if word != _STAY)]

    def _again(self, wish: Wish) -> str:
        return shlex.join(["harness", *self._words(wish)])

    # -- while -------------------------------------------------------------------------------

    def _queue(self) -> Queue:
        """The queue after a while; a controller that is started anew is waited for."""
        time.sleep(_LOOK)
        while True:
            try:
                found = look(self.name)
            except UsageError:
                if time.monotonic() > self._heard + _SILENT:
                    raise
                time.sleep(_LOOK)
                continue
            self._heard = time.monotonic()
            return found

    def _collect(self, queue: Queue) -> None:
        """Take what has ended: its verdict, or Slurm's word once none can come any more."""
        now = time.monotonic()
        ask: dict[Key, Outcome | None] = {}
        for key, seat in list(self._open.items()):
            if key in queue:
                seat.out = 0.0
                continue
            seat.out = seat.out or now
            record = self._folder.record(seat.array, seat.task)
            found = endings.left_by(self.how.results, seat.wish.cell, record, key)
            if found is not None and found.state != "error":
                self._close(key, found, record.host if record is not None else "")
            elif found is not None or now > seat.out + LATE:
                ask[key] = found  # ranks that others have ended may look like ranks that died
        if ask:
            self._ask(ask)
        names = {key: seat.wish.cell.id for key, seat in self._open.items() if key in queue}
        self._board.look(queue, names)

    def _ask(self, ask: dict[Key, Outcome | None]) -> None:
        try:
            said = endings_of(ask)
        except UsageError:  # it is asked again, as long as the queue is
            return
        now = time.monotonic()
        for key, left in ask.items():
            found, seat, task = left, self._open[key], said.get(key)
            if task is not None and task.state not in ENDED:
                seat.out = 0.0  # it was started again
                continue
            if (
                found is None
                and task is not None
                and task.state in _BY_ITSELF
                and now < seat.out + patience()
            ):
                continue  # what it has left may not be seen from here yet
            record = self._folder.record(seat.array, seat.task)
            if found is None and endings.taken_over(self.how.results, seat.wish.cell, record, key):
                folder = endings.place(self.how.results, seat.wish.cell)
                found = Outcome(seat.wish.cell, folder, None, _TAKEN_OVER, expected=True)
            elif found is None or endings.taken(task):
                endings.write(
                    self.how.results, seat.wish.cell, task=task, record=record, words=self._words(seat.wish),
                    last=self._folder.last_words(f"{seat.array}-{seat.task}"),
                )  # fmt: skip
                found = read_outcome(seat.wish.cell, endings.place(self.how.results, seat.wish.cell))
            host = record.host if record is not None else task.host if task is not None else ""
            self._close(key, found, host)

    def _close(self, key: Key, found: Outcome, host: str) -> None:
        del self._open[key]
        self._ended(found, host)

    def _ended(self, found: Outcome, host: str) -> None:
        self._codes.add(EXIT_FAILED if found.verdict is None else found.verdict.exit_code)
        self._board.ended(Line.of(found), host)


#: How a task ends that nobody has ended: it leaves a verdict, as a rule.
_BY_ITSELF = ("COMPLETED", "FAILED")
_TAKEN_OVER = "no verdict: another job has taken its folder"


def _room(nodes: int, ranks: int, gpus: int, *, whole: bool = False) -> list[str]:
    """The words of sbatch that say what a task needs; ``whole``: all of each of its nodes."""
    if whole:
        words = [f"--nodes={nodes}", "--ntasks-per-node=1", "--exclusive", "--mem=0", "--no-kill"]
    else:
        words = ["--nodes=1", "--ntasks=1", f"--cpus-per-task={ranks}"]
    return [*words, *([f"--gpus-per-node={gpus}"] if gpus else [])]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let an interrupt wait until the block has ended; programs that are started in it get none either."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
