"""Start the ranks of a phase, watch them, end them all.

A phase runs below a small parent process of its own (:mod:`harness.launch.parent`), which imports
the trainer once and forks every rank of every phase from that. Nothing outlives its reason:

* a rank that dies or gives no sign of life ends its phase, by process group;
* the parent ends its ranks when this process is gone (its socket closes), however it went;
* the kernel kills the ranks when the parent is gone, and what had left their group is found by a
  mark in its environment.

No port is used: ranks meet over a file in a fresh folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from harness import errors
from harness.errors import HarnessError, Raised, TrainerFailed
from harness.trainers.base import Launch

MARK = "HARNESS_LAUNCH"
HEARTBEAT_TIMEOUT = {"fork": 120.0, "exec": 1800.0}  # s; exec: a silent command may be compiling
STARTUP_TIMEOUT = {"fork": 300.0, "exec": 1800.0}  # s; imports from a slow disk, first kernels
_TAIL_LINES, _TAIL_BYTES = 40, 65536

#: One thread a rank: more would change the order of sums, and there is one rank per core already.
#: The NVML check lets torch count GPUs without the driver, which no fork would survive.
_FORK_ENV = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",  # nothing leaves the host
}
#: An outer launcher's variables, which the ranks must not take for their own.
_FOREIGN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Outcome:
    """How long a phase took (s), and how long until every rank had come to its first iteration."""

    seconds: float
    startup_seconds: float


class Launcher:
    """Runs phases, and keeps the warm parent between those that can share it.

    Use it as a context manager; leaving it ends whatever still runs.
    """

    def __init__(self) -> None:
        self._parent: _Parent | None = None

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
        """End the warm parent, and everything below it."""
        parent, self._parent = self._parent, None
        if parent is not None:
            parent.end()

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
    ) -> Outcome:
        """Run one phase to its end.

        Args:
            launch: what to start.
            phase: its name, for messages.
            folder: gets ``logs/rank_<r>.log`` (``logs/trainer.log`` for an executed command).
            timeout: seconds without an iteration after which a rank counts as hung.
            startup_timeout: the same until every rank has come to its first iteration.
            on_progress: told the iteration that every rank has come to.
            on_started: told the process ids of the ranks, in their order.

        Raises:
            TrainerFailed: a rank died, hung or raised; all are ended. Its ``__cause__`` is the
                rank's own error where that was one of :mod:`harness.errors`.
        """
        limit = HEARTBEAT_TIMEOUT[launch.kind] if timeout is None else timeout
        starting = startup_timeout or max(limit, STARTUP_TIMEOUT[launch.kind])
        began = time.monotonic()
        try:
            parent = self._parent_for(launch, phase, starting)
            asked = time.monotonic()
            parent.send(
                kind=launch.kind,
                target=launch.target,
                argv=list(launch.argv),
                world_size=launch.world_size,
                cwd=str(launch.cwd or Path.cwd()),
                folder=str(folder.absolute()),
                timeout=limit,
                startup_timeout=starting,
            )
            for event in parent.events(phase):
                if event["event"] == "progress" and on_progress is not None:
                    on_progress(event["iteration"])
                elif event["event"] == "started" and on_started is not None:
                    on_started(event["pids"])
                elif event["event"] == "done":
                    return Outcome(time.monotonic() - began, asked - began + event["startup"])
                elif event["event"] == "failed":
                    raise _failure(phase, event, launch, folder)  # noqa: TRY301 - the cleanup below is for all others
        except TrainerFailed:
            raise
        except BaseException:
            self.close()  # at once: an interrupt must not leave ranks running for as long as
            raise  # somebody holds on to this object
        raise AssertionError("events() ends with an answer or raises")

    def _parent_for(self, launch: Launch, phase: str, timeout: float) -> _Parent:
        module = launch.target.partition(":")[0] if launch.kind == "fork" else ""
        key = (module, launch.python, tuple(sorted(launch.env.items())))
        if self._parent is not None and (self._parent.key != key or not self._parent.usable()):
            self.close()
        if self._parent is None:
            self._parent = _Parent(key, launch)
            self._parent.wait_ready(phase, timeout)
        return self._parent


class _Parent:
    """This side of the warm parent process."""

    def __init__(self, key: object, launch: Launch) -> None:
        self.key = key
        self.mark = uuid.uuid4().hex
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        ours, theirs = socket.socketpair()
        env = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        env |= _FORK_ENV if launch.kind == "fork" else {}
        env |= launch.env
        env[MARK] = self.mark
        with theirs:
            self._process = subprocess.Popen(
                [
                    launch.python or sys.executable,
                    "-m",
                    "harness.launch.parent",
                    str(theirs.fileno()),
                    str(os.getpid()),
                ],
                pass_fds=[theirs.fileno()],
                env=env,
                # So that -m finds this very package; another environment has its own, and no other of ours.
                cwd=Path(Path.cwd().anchor) if launch.python else Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt from the keyboard is ours to handle
            )
        self._socket = ours
        self._file = ours.makefile("rb")
        here = os.getcwd()
        path = [] if launch.python else [entry or here for entry in sys.path]
        self.send(target=launch.target if launch.kind == "fork" else "", sys_path=path)

    @property
    def pid(self) -> int:
        """Process id of the warm parent."""
        return self._process.pid

    def usable(self) -> bool:
        """Whether it can be asked for another phase."""
        return self._process.poll() is None

    def send(self, **message: Any) -> None:
        """Ask for something; a parent that is gone shows when its answer is read."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def wait_ready(self, phase: str, timeout: float) -> None:
        """Wait until the trainer is imported."""
        ready, _, _ = select.select([self._socket], [], [], timeout)
        if not ready:
            raise self._lost(phase, f"took more than {timeout:.0f} s to import")
        for event in self.events(phase):
            if event["event"] == "ready":
                return

    def events(self, phase: str) -> Iterator[dict[str, Any]]:
        """Its answers, one after the other.

        Raises:
            TrainerFailed: it is gone; so is everything it had started.
        """
        while True:
            try:
                line = self._file.readline()
            except ConnectionResetError:
                line = b""
            if not line:
                raise self._lost(phase, "")
            yield json.loads(line)

    def _lost(self, phase: str, reason: str) -> TrainerFailed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        status = self._process.returncode
        if not reason and status is not None and status < 0:
            reason = f"lost its parent process, killed by {signal.Signals(-status).name}"
        elif not reason:
            reason = "could not be loaded"
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _TAIL_BYTES))
        tail = "\n".join(self._log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])
        last = tail.splitlines()[-1].strip() if tail and "loaded" in reason else ""
        self.end()
        why = f"{reason}: {last}" if last else reason
        return TrainerFailed(phase=phase, rank=None, reason=why, log_tail=tail)

    def end(self) -> None:
        """Close the socket, which ends everything below; then make sure of it."""
        try:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._file.close()
            self._socket.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(3)
        finally:
            self._process.kill()
            self._process.wait()
            self._log.close()
            end_marked(self.mark)


def end_marked(mark: str) -> None:
    """Kill every process that was started below the launch ``mark``, wherever it has moved to."""
    import psutil

    setting = f"{MARK}={mark}".encode()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                environ = Path(f"/proc/{process.pid}/environ").read_bytes()
                if setting in environ.split(b"\0") and process.status() != psutil.STATUS_ZOMBIE:
                    process.kill()
                    found.append(process)
        if not found:
            return
        psutil.wait_procs(found, timeout=1)


def _failure(phase: str, event: dict[str, Any], launch: Launch, folder: Path) -> TrainerFailed:
    from harness.launch import root_cause
    from harness.machine.secrets import Secrets
    from harness.text import one_line

    secrets = Secrets(os.environ, launch.env)
    log, rank, reason = Path(event["log"]), event["rank"], event["reason"]
    tail = _last_lines(log) if log.exists() else ""

    def clean(text: str) -> str:
        return secrets.text(one_line(text))

    raised: Raised | None = None
    evidence: tuple[str, ...] = ()
    killed, status = event.get("signal") or 0, event.get("status") or 0  # of one that hangs, neither
    if launch.kind == "fork" and status and not killed:
        raised, evidence = root_cause.of_rank(log, clean)
    elif launch.kind == "exec" and (killed or status):
        found = root_cause.of_command(folder, log, clean, killed=killed, status=status)
        rank, reason, log = found.rank, found.reason, found.log
        raised, evidence = found.raised, found.evidence
    failure = TrainerFailed(
        phase=phase,
        rank=rank,
        reason=secrets.text(reason),
        log_tail=secrets.text(tail),
        log=str(log),
        raised=raised,
        evidence=evidence,
    )
    error = event["error"]
    cls = getattr(errors, error["class"], None) if error and error["ours"] else None
    if isinstance(cls, type) and issubclass(cls, HarnessError) and cls is not TrainerFailed:
        failure.__cause__ = cls(error["message"], error["advice"])
    return failure


def _last_lines(log: Path) -> str:
    from harness.launch.rank_logs import Reader

    lines = Reader().end(log, _TAIL_BYTES).splitlines()
    return "\n".join(lines[-_TAIL_LINES:])
