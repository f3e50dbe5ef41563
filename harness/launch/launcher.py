"""Start the ranks of a phase, watch them, end them all.

An engine (:mod:`harness.engines`) starts a small parent process on each node, which imports the trainer once
and forks every rank from that (:mod:`harness.launch.parent`, :mod:`harness.launch.agent`). A rank that dies
or gives no sign of life ends its phase, by process group; what ends the parents is told there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from harness import errors
from harness.engines.base import Agents, Engine, Gone
from harness.engines.local import Local
from harness.errors import HarnessError, Raised, TrainerFailed
from harness.launch.blame import BEAT, Failures, Found
from harness.launch.place import Place
from harness.trainers.base import Launch

if TYPE_CHECKING:
    from harness.machine.secrets import Secrets

HEARTBEAT_TIMEOUT = {"fork": 120.0, "exec": 1800.0}  # s; exec: a silent command may be compiling
STARTUP_TIMEOUT = {"fork": 300.0, "exec": 1800.0}  # s; imports from a slow disk, first kernels
_TAIL_LINES, _TAIL_BYTES = 40, 65536
_LOG = 10.0  # s that a log on another node's side of a shared folder is waited for
_NOT_SHARED = "a folder that all nodes share must hold --results; is this one on a disk of each node?"


@dataclass(frozen=True)
class Outcome:
    """How long a phase took (s), and how long until every rank had come to its first iteration."""

    seconds: float
    startup_seconds: float


class Launcher:
    """Runs phases by an engine, which may keep what several of them can share.

    Use it as a context manager; leaving it ends whatever still runs.

    Args:
        engine: where; None: on this machine.
        note: told what is waited for, a sentence each.
    """

    def __init__(self, engine: Engine | None = None, note: Callable[[str], object] | None = None) -> None:
        self.engine: Engine = engine or Local()
        self._note = note

    def __enter__(self) -> Launcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all that was started."""
        self.engine.close()

    def run(
        self,
        launch: Launch,
        *,
        phase: str,
        folder: Path,
        timeout: float | None = None,
        startup_timeout: float | None = None,
        on_progress: Callable[[int], None] | None = None,
        on_started: Callable[[list[int]], None] | None = None,
        reads: Path | None = None,
        writes: Path | None = None,
    ) -> Outcome:
        """Run one phase to its end.

        Args:
            launch: what to start.
            phase: its name, for messages.
            folder: gets ``logs/rank_<r>.log`` (``logs/trainer.log`` for an executed command, and
                ``logs/trainer_<n>.log`` of the nodes behind the first).
            timeout: seconds without an iteration after which a rank counts as hung.
            startup_timeout: the same until every rank has come to its first iteration.
            on_progress: told the iteration that every rank has come to.
            on_started: told the process ids of the ranks, in their order; where they are on this machine.
            reads, writes: folders, beside ``folder``, that other machines must see as this one does.

        Raises:
            TrainerFailed: a rank died, hung or raised, or its node is gone; all are ended. Its ``__cause__``
                is the rank's own error where that was one of :mod:`harness.errors`.
            NotRun: the nodes were taken away.
        """
        limit = HEARTBEAT_TIMEOUT[launch.kind] if timeout is None else timeout
        starting = startup_timeout or max(limit, STARTUP_TIMEOUT[launch.kind])
        began = time.monotonic()
        try:
            agents = self.engine.agents(launch, phase, starting, self._note)
            asked = time.monotonic()
            agents.send(
                kind=launch.kind,
                target=launch.target,
                argv=list(launch.argv),
                world_size=launch.world_size,
                cwd=str(launch.cwd or Path.cwd()),
                folder=str(folder.absolute()),
                timeout=limit,
                startup_timeout=starting,
                **_shared(agents, reads),
            )
            try:
                watch = _Watch(agents, on_progress, on_started if agents.hosts == ("",) else None)
                failure = watch.to_the_end()
                if failure is not None:
                    raise _failure(phase, failure, launch, folder, agents)
                watch.see(phase, [path.absolute() for path in (folder, writes) if path is not None])
            except Gone as gone:
                raise TrainerFailed(phase=phase, rank=None, reason=gone.reason, log_tail=gone.tail) from None
            finally:
                self.engine.release(agents)
            return Outcome(time.monotonic() - began, asked - began + watch.startup)
        except TrainerFailed:
            raise
        except BaseException:
            self.close()  # at once: an interrupt must not leave ranks running for as long as
            raise  # somebody holds on to this object


def _shared(agents: Agents, reads: Path | None) -> dict[str, Any]:
    """What agents on other machines are told of their places and of what they share with this one."""
    if agents.hosts == ("",):
        return {}
    from harness.launch.shared import listing

    read = [str(reads.absolute())] if reads is not None else []
    return {"hosts": list(agents.hosts), "reads": read, "expects": listing(read)}


class _Watch:
    """Hears what the agents of one phase say, until all are done or one has failed."""

    def __init__(
        self,
        agents: Agents,
        on_progress: Callable[[int], None] | None,
        on_started: Callable[[list[int]], None] | None,
    ) -> None:
        self._agents, self._on_progress, self._on_started = agents, on_progress, on_started
        count = len(agents.hosts)
        #: Seconds from the request until every rank had come to its first iteration.
        self.startup = 0.0
        self._failures = Failures(count)
        self._done: set[int] = set()
        self._iterations: dict[int, int] = {}
        self._told: int | None = None
        self._heard = [time.monotonic()] * count
        self._asked = False
        self._pinged = time.monotonic()

    def see(self, phase: str, folders: list[Path]) -> None:
        """Wait until this machine sees all that the nodes see now; raises TrainerFailed and Gone."""
        from harness.launch.shared import together, wait_for

        silence = self._agents.silence
        if not silence:
            return
        self._agents.send(event="list", folders=[str(path) for path in folders])
        files: dict[int, dict[str, int]] = {}
        heard = [time.monotonic()] * len(self._heard)
        while len(files) < len(heard):
            found, now = self._agents.hear(1.0), time.monotonic()
            self._ping(now)
            if found is not None:
                heard[found[0]] = now
                if found[1]["event"] == "listed":
                    files[found[0]] = found[1]["files"]
            for node, last in enumerate(heard):
                if node not in files and now - last > silence:
                    host = self._agents.hosts[node]
                    raise Gone(
                        f"lost its node {host} when it had ended: nothing was heard of it for {silence:.0f} s"
                    )
        left = wait_for(together(files.values()), folders, meanwhile=lambda: self._ping(time.monotonic()))
        if left:
            more = f", and {len(left) - 1} more" if len(left) > 1 else ""
            said = f"ended well, and its files are not visible from this node: {left[0]}{more}"
            raise TrainerFailed(phase=phase, rank=None, reason=said, evidence=(_NOT_SHARED,))

    def _ping(self, now: float) -> None:
        if now - self._pinged >= BEAT:
            self._pinged = now
            self._agents.send(event="ping")

    def to_the_end(self) -> Found | None:
        """None: every rank has returned; else how it failed. Raises Gone."""
        silence = self._agents.silence
        while True:
            try:
                heard = self._agents.hear(1.0 if silence else None)
            except Gone:
                # Where all only tell of another's end, the engine knows better what that was.
                if self._failures and self._failures.certain():
                    return self._failures.blame()
                raise
            now = time.monotonic()
            if heard is not None:
                self._heard[heard[0]] = now
                self._take(*heard, now)
            if len(self._done) == len(self._heard):
                return None
            if silence:
                self._ping(now)
            for node, last in enumerate(self._heard):
                if silence and now - last > silence and self._failures.waits_for(node):
                    self._failures.gone(node, last)
            if self._failures and not self._asked and silence:
                self._asked = True
                self._agents.send(event="report")
            if self._failures.decided():
                return self._failures.blame()

    def _take(self, node: int, event: dict[str, Any], now: float) -> None:
        kind = event["event"]
        if kind == "progress":
            self._iterations[node] = event["iteration"]
            least = min(self._iterations.values())
            if len(self._iterations) == len(self._heard) and least != self._told:
                self._told = least
                if self._on_progress is not None:
                    self._on_progress(least)
        elif kind == "started" and self._on_started is not None:
            self._on_started(event["pids"])
        elif kind == "bound":
            self._agents.send(event="store", address=event["address"], port=event["port"])
        elif kind == "done":
            self._done.add(node)
            self._failures.done(node)
            self.startup = max(self.startup, event["startup"])
        elif kind == "failed":
            self._failures.add(node, event, now)


def _failure(phase: str, found: Found, launch: Launch, folder: Path, agents: Agents) -> TrainerFailed:
    from harness.machine.secrets import Secrets

    secrets = Secrets(os.environ, launch.env)
    host, nodes = agents.hosts[found.node], len(agents.hosts)
    if found.answer is None:
        return _of_node(phase, found, agents, secrets)
    if launch.kind == "exec" and found.others:
        return min(
            (
                _of_answer(phase, answer, launch, folder, secrets, Place(node, nodes), agents.hosts[node])
                for node, answer in {found.node: found.answer, **found.others}.items()
            ),
            key=lambda one: one[0],
        )[1]
    return _of_answer(phase, found.answer, launch, folder, secrets, Place(found.node, nodes), host)[1]


def _of_node(phase: str, found: Found, agents: Agents, secrets: Secrets) -> TrainerFailed:
    """A node that is gone, and what the others have seen of it."""
    host = agents.hosts[found.node]
    reason = f"lost its node {host}: nothing was heard of it for {agents.silence:.0f} s"
    evidence = [said for said in (agents.about(found.node),) if said]
    for node, answer in found.others.items():
        who = "the trainer" if answer["rank"] is None else f"rank {answer['rank']}"
        evidence.append(secrets.text(f"{agents.hosts[node]}: {who} {answer['reason']}"))
    return TrainerFailed(
        phase=phase, rank=None, reason=reason, log_tail=secrets.text(agents.tail), evidence=tuple(evidence)
    )


def _of_answer(
    phase: str,
    event: dict[str, Any],
    launch: Launch,
    folder: Path,
    secrets: Secrets,
    place: Place,
    host: str,
) -> tuple[int, TrainerFailed]:
    """A failure, and how likely it only tells of another's end."""
    from harness.launch import root_cause
    from harness.text import one_line

    log, rank, reason = Path(event["log"]), event["rank"], event["reason"]
    if host and event.get("log_size"):
        from harness.launch.shared import wait_for

        wait_for({str(log): event["log_size"]}, [log.parent], seconds=_LOG)
    tail = _last_lines(log) if log.is_file() else ""

    def clean(text: str) -> str:
        return secrets.text(one_line(text))

    raised: Raised | None = None
    evidence: tuple[str, ...] = ()
    weight = int(event.get("suspicion", 0))
    killed, status = event.get("signal") or 0, event.get("status") or 0  # of one that hangs, neither
    if launch.kind == "fork" and status and not killed:
        raised, evidence = root_cause.of_rank(log, clean)
    elif launch.kind == "exec" and (killed or status):
        kept = place.logs(folder)
        first = place.node * launch.world_size // place.nodes
        found = root_cause.of_command(
            kept if kept.is_dir() else folder, log, clean, killed=killed, status=status, first=first
        )
        rank, reason, log = found.rank, found.reason, found.log
        raised, evidence, weight = found.raised, found.evidence, found.weight
    failure = TrainerFailed(
        phase=phase,
        rank=rank,
        reason=secrets.text(f"{reason}, on {host}" if host else reason),
        log_tail=secrets.text(tail),
        log=str(log),
        raised=raised,
        evidence=evidence,
    )
    error = event["error"]
    cls = getattr(errors, error["class"], None) if error and error["ours"] else None
    if isinstance(cls, type) and issubclass(cls, HarnessError) and cls is not TrainerFailed:
        failure.__cause__ = cls(error["message"], error["advice"])
    return weight, failure


def _last_lines(log: Path) -> str:
    from harness.launch.rank_logs import Reader

    lines = Reader().end(log, _TAIL_BYTES).splitlines()
    return "\n".join(lines[-_TAIL_LINES:])
