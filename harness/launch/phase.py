"""One set of ranks, in the warm parent: forked, watched, judged when one fails, ended.

Standard library only, and psutil when there is something to end.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.launch.blame import HANGS, KILLED, MIXED, OWN, PEER, WAITS, WELL
from harness.launch.place import Place
from harness.launch.rank import RETURNED, STACK_SIGNAL, Board, become_rank, run_rank

_TICK = 0.05  # s; how late a hang or a step's progress is noticed; a death wakes us at once
_STACKS = 0.4  # s; time for the ranks to write their stacks before a hung phase is ended
_LISTED = 1.0  # s between two looks for what an executed command has written
_SETTLE = 1.0  # s; how long the root of a broken connection may take to show itself
_SETTLE_EXEC = 10.0  # s; the same, of a launcher that ends its ranks first
#: In the path of a frame: this rank waits for others.
_COLLECTIVES = ("torch/distributed", "harness/trainers/native/comm")


class Channel(Protocol):
    """The way back to the harness."""

    def fileno(self) -> int:
        """For ``select``; readable when the harness has something to say, or is gone."""

    def send(self, **message: Any) -> None:
        """Tell the harness."""

    def during(self) -> dict[str, Any] | None:
        """What the harness says while ranks run; None: nothing. Raises EOFError when it is gone."""

    def beat(self) -> None:
        """A sign of life, while something takes long."""

    def close(self) -> None:
        """Forget it (in a rank: only the parent speaks)."""


@dataclass(frozen=True)
class Ending:
    """How one rank ended: by a signal, or with a status, or with an exception it noted itself."""

    rank: int
    when: float
    signal: int
    status: int
    error: dict[str, Any] | None

    @property
    def suspicion(self) -> int:
        """KILLED: this is where the phase failed; higher: more likely told of it by a peer's end.

        A rank killed from outside says nothing itself, and its peers' exceptions come first. An
        abort is what NCCL's watchdog and gloo's threads do when a *peer* has gone.
        """
        if self.error is not None:
            return (OWN, MIXED, PEER)[self.error["peer"]]
        if self.signal:
            return MIXED if self.signal == signal.SIGABRT else KILLED
        return OWN


class Phase:
    """One set of ranks, from the fork to the last one's end; counted from 0 here, whichever they are.

    Args:
        request: what the harness asks.
        wake: readable when a child has ended.
        channel: to the harness.
        place: where among the nodes these ranks are.
    """

    def __init__(
        self, request: dict[str, Any], wake: int, channel: Channel, place: Place | None = None
    ) -> None:
        self.request = request
        self.place = place or Place()
        self.everybody = int(request["world_size"])
        here = self.everybody // self.place.nodes
        self.first = self.place.node * here
        self.world_size = here if request["kind"] == "fork" else 1
        self.board = Board(self.world_size)
        self.folder = Path(request["folder"])
        self.wake = wake
        self.channel = channel
        self.pids: list[int] = []
        self.endings: dict[int, Ending] = {}
        self.scratch = tempfile.mkdtemp(prefix="harness-rendezvous-")
        self.began = self.looked = time.monotonic()
        self.slack = self.listed = 0.0
        self.seen, self.changed = (0.0, 0), self.began
        #: When the harness asked what is known here, because something has failed on another node.
        self.asked: float | None = None
        self.all_up: float | None = None

    def log(self, rank: int) -> Path:
        """Where ``rank``'s output goes; an executed command has one log for all it starts."""
        if self.request["kind"] == "fork":
            return self.folder / "logs" / f"rank_{self.first + rank}.log"
        return self.folder / "logs" / (f"trainer_{self.place.node}.log" if self.place.node else "trainer.log")

    # -- start -------------------------------------------------------------------------------

    def start(self) -> None:
        """Fork all ranks into one process group of their own."""
        self.log(0).parent.mkdir(parents=True, exist_ok=True)
        for rank in range(self.world_size):
            self.log(rank).unlink(missing_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        gc.freeze()  # no collection in a rank writes to the pages that all of them share
        parent = os.getpid()
        for rank in range(self.world_size):
            group = self.pids[0] if self.pids else 0
            pid = os.fork()
            if pid == 0:
                self._in_child(rank, parent, group)
            with contextlib.suppress(OSError):  # both sides do it, so neither has to wait
                os.setpgid(pid, group or pid)
            self.pids.append(pid)
        self.channel.send(event="started", group=self.pids[0], pids=self.pids)

    def _in_child(self, rank: int, parent: int, group: int) -> None:
        status = 1
        try:
            request = self.request
            become_rank(parent=parent, group=group, log=self.log(rank), cwd=request["cwd"])
            self.channel.close()
            if request["kind"] == "exec":
                os.environ.update(self.place.variables(self.folder))
                _execute(request["argv"])
            status = run_rank(
                request["target"],
                request["argv"],
                rank=self.first + rank,
                local_rank=rank,
                world_size=self.everybody,
                folder=request["folder"],
                rendezvous=self.place.rendezvous(os.path.join(self.scratch, "store")),
                board=self.board,
            )
        except BaseException:  # noqa: BLE001 - nothing may come back out of a forked rank
            traceback.print_exc()
            status = 127
        finally:
            os._exit(status)

    # -- watch -------------------------------------------------------------------------------

    def watch(self) -> dict[str, Any]:
        """Wait until every rank has returned, or one has failed; the answer to the harness."""
        told = None
        first_bad: float | None = None
        while True:
            self._look()
            bad = [e for e in self.endings.values() if not self._well(e)]
            if self.asked is not None and not bad and self._settled():
                return self._answer(0, "was running", None, WELL)  # what has failed is on another node
            if bad:
                now = time.monotonic()
                first_bad = first_bad if first_bad is not None else now
                # The one to blame may not have been buried yet: its peers can notice it first.
                certain = min(e.suspicion for e in bad)
                if now - first_bad >= (0.0, 0.05, _SETTLE, _SETTLE)[certain] or not self._alive():
                    return self._failed(bad)
            elif not self._alive():
                up = self.all_up or time.monotonic()
                return {"event": "done", "startup": up - self.began}
            else:
                hung = self._hung()
                if hung is not None:
                    return hung
            told = self._tell(told)
            self._sleep(0.01 if bad else _TICK)

    def _settled(self) -> bool:
        """Whether what has failed on another node would have come through to here by now."""
        waited = time.monotonic() - (self.asked or 0.0)
        return waited > (_SETTLE if self.request["kind"] == "fork" else _SETTLE_EXEC)

    def _alive(self) -> list[int]:
        return [rank for rank in range(len(self.pids)) if rank not in self.endings]

    def _well(self, ending: Ending) -> bool:
        returned = self.request["kind"] == "exec" or self.board.state(ending.rank) == RETURNED
        return returned and ending.status == 0 and not ending.signal

    def _look(self) -> None:
        """Note who has ended. Nobody is buried yet, so that the group's number stays ours."""
        now = time.monotonic()
        # This process was stopped, or the whole machine was: no rank can be blamed for that.
        self.slack += max(0.0, now - self.looked - 20 * _TICK)
        self.looked = now
        for rank in self._alive():
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            found = os.waitid(os.P_PID, self.pids[rank], flags)
            if found is None:
                continue
            killed = found.si_code != os.CLD_EXITED
            noted = self.board.error(rank)
            self.endings[rank] = Ending(
                rank=rank,
                when=noted[0] if noted else now,
                signal=found.si_status if killed else 0,
                status=0 if killed else found.si_status,
                error=noted[1] if noted else None,
            )

    def _sleep(self, seconds: float) -> None:
        ready, _, _ = select.select([self.channel.fileno(), self.wake], [], [], seconds)
        if self.wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake, 4096)
        if self.channel.fileno() in ready or self.place.nodes > 1:
            said = self.channel.during()
            if said is not None and said.get("event") == "report" and self.asked is None:
                self.asked = time.monotonic()

    def _tell(self, told: int | None) -> int | None:
        if self.request["kind"] == "exec":
            return None
        iteration = min(self.board.iteration(rank) for rank in range(self.world_size))
        if iteration >= 0 and self.all_up is None:
            self.all_up = time.monotonic()
        if iteration >= 0 and iteration != told:
            self.channel.send(event="progress", iteration=iteration)
            return iteration
        return told

    # -- judge -------------------------------------------------------------------------------

    def _failed(self, bad: list[Ending]) -> dict[str, Any]:
        first = min(bad, key=lambda e: (e.suspicion, e.when, e.rank))
        return {
            **self._answer(first.rank, self._reason(first), first.error, first.suspicion),
            "signal": first.signal,
            "status": first.status,
            "ago": max(0.0, time.monotonic() - first.when),
        }

    def _answer(self, rank: int, reason: str, error: dict[str, Any] | None, suspicion: int) -> dict[str, Any]:
        exec_ = self.request["kind"] == "exec"
        return {
            "event": "failed",
            "rank": None if exec_ else self.first + rank,
            "reason": reason,
            "log": str(self.log(rank)),
            "error": error,
            "suspicion": suspicion,
            "iteration": self.board.iteration(rank),
        }

    def _reason(self, ending: Ending) -> str:
        iteration = self.board.iteration(ending.rank)
        where = f"after iteration {iteration}" if iteration >= 0 else "before the first iteration"
        if self.request["kind"] == "exec":
            where = ""
        if ending.error is not None:
            error = ending.error
            what = error["message"] if error["ours"] else f"{error['class']}: {error['message']}"
            reason = f"failed {where}: {what.removesuffix(': ')}"
        elif ending.signal:
            reason = f"was killed by {signal.Signals(ending.signal).name} {where}"
        else:
            early = " although its work was not done" if ending.status == 0 else ""
            reason = f"exited with status {ending.status} {where}{early}"
        return reason.strip()

    def _hung(self) -> dict[str, Any] | None:
        if self.request["kind"] == "exec":
            quiet = self._quiet()
        else:
            beats = {r: self.board.last_beat(r) for r in self._alive()}
            quiet = time.monotonic() - self.slack - max(self.began, min(beats.values()))
            # until all are up, the ones that wait for the others are not late
        limit = self.request["startup_timeout" if self.all_up is None else "timeout"]
        if quiet <= limit:
            return None
        rank, waits = self._find_hung() if self.request["kind"] == "fork" else (0, True)
        last = self.board.iteration(rank)
        where = f"last iteration {last}" if last >= 0 else "it never came to an iteration"
        where = "" if self.request["kind"] == "exec" else f" ({where})"
        said = f"gave no sign of life for {quiet:.0f} s{where}"
        from harness.launch import victims

        if self.request["kind"] == "exec" and (stopped := victims.stopped_below(self.pids[0])) is not None:
            said = f"is stopped, and gave no sign of life for {quiet:.0f} s"
            return {**self._answer(0, said, None, HANGS), "rank": stopped}
        return self._answer(rank, said, None, WAITS if waits else HANGS)

    def _quiet(self) -> float:
        """Seconds since an executed command last wrote to its log or to its folder.

        Looked for once a second: a folder may hold a cache of many files.
        """
        self.all_up = self.all_up or self.began
        if time.monotonic() < self.listed + _LISTED:
            return 0.0
        self.listed = time.monotonic()
        newest, size = 0.0, 0
        # os.walk: unlike rglob, it minds no folder that is removed meanwhile.
        for here, _, files in os.walk(self.folder):
            self.channel.beat()
            for path in (here, *(os.path.join(here, name) for name in files)):
                with contextlib.suppress(OSError):
                    found = os.stat(path)
                    newest, size = max(newest, found.st_mtime), size + found.st_size
        # Not by the clock: the times of a shared folder are another machine's.
        if (newest, size) != self.seen:
            self.seen, self.changed = (newest, size), time.monotonic()
        return time.monotonic() - self.changed - self.slack

    def _find_hung(self) -> tuple[int, bool]:
        """Which rank the others wait for: the furthest behind whose stack is not in a collective.

        Whether it waits for others too: then who they all wait for is on another node.

        Every rank is asked for its stacks, which go to its log; one that is stopped or stuck in
        the kernel does not answer, and that says it too.
        """
        before = {rank: self._size(rank) for rank in self._alive()}
        for rank in before:
            os.kill(self.pids[rank], STACK_SIGNAL)
        time.sleep(_STACKS)
        behind = min(self.board.iteration(rank) for rank in before)
        candidates = [rank for rank in before if self.board.iteration(rank) == behind]
        for rank in candidates:
            with self.log(rank).open("rb") as log:
                log.seek(before[rank])
                stacks = log.read().decode(errors="replace")
            waits = any(mark in line for line in _innermost(stacks) for mark in _COLLECTIVES)
            if not waits:
                return rank, False
        return min(candidates, key=lambda r: (self.board.last_beat(r), r)), True

    def _size(self, rank: int) -> int:
        try:
            return self.log(rank).stat().st_size
        except OSError:
            return 0

    # -- end ---------------------------------------------------------------------------------

    def end(self) -> None:
        """Kill whatever is left of the phase, bury everyone, remove the rendezvous."""
        if self.pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pids[0], signal.SIGKILL)
        for pid in self.pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        # Orphans that had opened a group of their own have become our children.
        _end_children()
        shutil.rmtree(self.scratch, ignore_errors=True)


def _execute(argv: list[str]) -> None:
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)  # what a shell says


def _innermost(stacks: str) -> list[str]:
    """The innermost frames of the main thread, which faulthandler writes last."""
    return stacks.rsplit("hread 0x", 1)[-1].splitlines()[1:7]


def _end_children() -> None:
    import psutil

    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        children = psutil.Process().children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not children:
            return
        time.sleep(0.005)
