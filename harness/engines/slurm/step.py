"""A step: one agent on each node of a phase, and lines in and out by srun's own stdin and stdout."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, Any, Final

from harness.engines.base import Gone
from harness.engines.environment import FOREIGN, FORK_ENV
from harness.engines.lines import Unpacker, packed
from harness.engines.slurm import programs
from harness.engines.slurm.allocation import Allocation
from harness.errors import HardwareMissing, NotRun, TrainerFailed, UsageError
from harness.text import one_line
from harness.trainers.base import Launch

#: Seconds without a word after which an agent counts as gone. It beats every 5 s.
SILENCE: Final = 15.0
BEAT: Final = 5.0  # s
_SILENCE_VARIABLE: Final = "HARNESS_NODE_SILENCE"
_ENDING: Final = 10.0  # s that agents have to end their ranks, and srun to notice
_CANCELLED: Final = 30.0  # s from the end of a step to that of its job
_TAIL: Final = 40  # lines


class Step:
    """The agents of a phase; see :class:`harness.engines.base.Agents`.

    Args:
        allocation: which it is a step of.
        nodes: in the order of their ranks.
        launch: what is going to be asked for.
        hardware: on what.
        gpus: of each node.
    """

    def __init__(
        self, allocation: Allocation, nodes: tuple[str, ...], launch: Launch, hardware: str, gpus: int
    ) -> None:
        self.hosts = nodes
        self.silence = _silence()
        self._allocation = allocation
        self._name = f"phase-{os.urandom(4).hex()}"
        #: The place of each task among the nodes; srun numbers its tasks by the names of theirs.
        self._place: dict[int, int] = {}
        self._unpackers: dict[int, Unpacker] = {}
        #: Names of what the nodes have.
        self.devices: set[str] = set()
        self._to_say: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._said: deque[str] = deque(maxlen=_TAIL)
        words = ["srun", f"--jobid={allocation.job}", f"--job-name={self._name}", f"--nodes={len(nodes)}"]
        words += [f"--nodelist={','.join(nodes)}", f"--ntasks={len(nodes)}", "--ntasks-per-node=1"]
        # Each has all of its node. Whether one has ended well, it says itself.
        words += ["--cpu-bind=none", "--mem=0", "--kill-on-bad-exit=0", "--no-kill", "--wait=0", "--mpi=none"]
        words += ["--overlap", "--input=all", "--label", f"--chdir={Path(__file__).parents[3]}"]
        if gpus:
            words.append(f"--gpus-per-node={gpus}")
        words += [launch.python or sys.executable, "-m", "harness.launch.agent"]
        env = programs.environment()
        env = {name: value for name, value in env.items() if name not in FOREIGN}
        if launch.kind == "fork":
            env |= FORK_ENV
            if "GLOO_SOCKET_IFNAME" not in os.environ and len(nodes) > 1:
                del env["GLOO_SOCKET_IFNAME"]  # by the node's name, which the others know it by
        env |= launch.env
        self._process = subprocess.Popen(
            words,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # an interrupt from the keyboard is ours to handle
        )
        self._stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdout is not None
        assert stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(stdout,), daemon=True),
            threading.Thread(target=self._keep, args=(stderr,), daemon=True),
            threading.Thread(target=self._say, daemon=True),
        ]
        for one in self._readers:
            one.start()
        here = os.getcwd()
        path = [] if launch.python else [entry or here for entry in sys.path]
        target = launch.target if launch.kind == "fork" else ""
        self.send(target=target, sys_path=path, hardware=hardware)

    # -- lines -------------------------------------------------------------------------------

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._lines.put(line.decode(errors="replace").rstrip("\n"))
        self._lines.put(None)

    def _keep(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._said.append(line.decode(errors="replace").rstrip("\n"))

    def _say(self) -> None:
        """Of a thread of its own: srun takes nothing while it waits for a node."""
        assert self._stdin is not None
        with contextlib.suppress(OSError, ValueError):
            while (data := self._to_say.get()) is not None:
                self._stdin.write(data)
                self._stdin.flush()
        with contextlib.suppress(OSError, ValueError):
            self._stdin.close()

    def send(self, **message: Any) -> None:
        """Tell all agents; as Agents."""
        self._to_say.put(packed(message))

    def wait_ready(self, phase: str, timeout: float) -> None:
        """Wait until all have imported the trainer.

        Raises:
            TrainerFailed: one has not, in time.
            NotRun, HardwareMissing: as for hearing; a node has not what it should.
        """
        end = time.monotonic() + timeout
        hosts: dict[int, str] = {}
        pinged = time.monotonic()
        while len(hosts) < len(self.hosts):
            left = end - time.monotonic()
            try:
                found = self._heard(min(left, 1.0)) if left > 0 else None
            except Gone as gone:
                missing = ", ".join(sorted(set(self.hosts) - set(hosts.values())))
                reason = f"could not be started on {missing}: {gone.reason}"
                raise TrainerFailed(phase=phase, rank=None, reason=reason, log_tail=gone.tail) from None
            if left <= 0:
                missing = ", ".join(sorted(set(self.hosts) - set(hosts.values())))
                reason = f"took more than {timeout:.0f} s to import on {missing}"
                raise TrainerFailed(phase=phase, rank=None, reason=reason, log_tail=self.tail)
            if time.monotonic() - pinged > BEAT:
                pinged = time.monotonic()
                self.send(event="ping")
            if found is None or found[1].get("event") != "ready":
                continue
            task, event = found
            if unable := event.get("unable"):
                reason = f"could not be loaded on {event['host']}: {one_line(unable)}"
                raise TrainerFailed(phase=phase, rank=None, reason=reason, log_tail=self.tail)
            if absent := event.get("missing"):
                raise HardwareMissing(
                    f"{event['host']}: {absent}", "--slurm-option=--partition names other nodes"
                )
            if event["host"] not in self.hosts:
                said = f"an agent runs on {event['host']}, expected one of {', '.join(self.hosts)}"
                raise TrainerFailed(phase=phase, rank=None, reason=said, log_tail=self.tail)
            hosts[task] = event["host"]
            self.devices.add(event["device"])
        self._place = {task: self.hosts.index(name) for task, name in hosts.items()}

    def hear(self, seconds: float | None) -> tuple[int, dict[str, Any]] | None:
        """The next answer, by the place of its node; as Agents."""
        found = self._heard(seconds)
        if found is None or found[0] not in self._place:
            return None
        return self._place[found[0]], found[1]

    def _heard(self, seconds: float | None) -> tuple[int, dict[str, Any]] | None:
        """By the number of its task.

        Raises:
            Gone: srun has ended.
            NotRun: the job was taken away.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                return None
            if line is None:
                self._lines.put(None)  # whoever asks again is told again
                raise self._gone()
            label, colon, text = line.partition(":")
            if not colon or not label.strip().isdigit():
                continue
            task = int(label)
            found = self._unpackers.setdefault(task, Unpacker()).line(text.removeprefix(" "))
            # A piece of a long answer is a sign of life, too.
            return task, found if found is not None else {"event": "beat"}

    def _gone(self) -> Exception:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        for one in self._readers:
            one.join(1)
        cancelled = any("CANCELLED" in line for line in list(self._said))
        taken = self._allocation.taken(_CANCELLED if cancelled else 0.0)
        if taken.others:
            return NotRun(f"job {self._allocation.job} {taken.why} before the cell had ended", "run it again")
        if taken.why:
            return Gone(f"lost its nodes: job {self._allocation.job} {taken.why}", self.tail)
        status = self._process.returncode
        if status is not None and status < 0:
            return Gone(f"lost srun, killed by {signal.Signals(-status).name}", self.tail)
        last = next((line for line in reversed(list(self._said)) if line.strip()), "")
        said = f": {one_line(last)}" if last else ""
        return Gone(f"lost its agents: srun ended with status {status}{said}", self.tail)

    @property
    def tail(self) -> str:
        """What agents and srun have said last."""
        return "\n".join(list(self._said))

    def about(self, node: int) -> str:
        """What Slurm says of it."""
        host = self.hosts[node]
        try:
            state = programs.ask("sinfo", "-h", "-N", "-n", host, "-o", "%T", timeout=10).split()
        except UsageError as error:
            return str(error)
        said = next((line for line in list(self._said) if host in line and "srun:" in line), "")
        found = f"Slurm says that {host} is {state[0]}" if state else ""
        return "; ".join(filter(None, (found, one_line(said))))

    # -- end ---------------------------------------------------------------------------------

    def end(self) -> None:
        """No more is wanted: agents end when their stdin does; then make sure of it."""
        self._to_say.put(None)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDING)
        finally:
            if self._process.poll() is None or self._process.returncode:
                # A step lives on when its srun was killed, and srun waits for a node that is gone.
                for number in self._steps():
                    programs.tell("scancel", "-Q", "--signal=KILL", number, timeout=10)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
            for one in self._readers:
                one.join(1)

    def _steps(self) -> list[str]:
        """The numbers of the steps of this name that are still there."""
        try:
            lines = programs.ask("squeue", "-h", "-s", "-j", self._allocation.job, "-o", "%i %j", timeout=10)
        except UsageError:
            return []
        return [line.split()[0] for line in lines.splitlines() if line.split()[1:] == [self._name]]


def _silence() -> float:
    with contextlib.suppress(ValueError):
        return max(2 * BEAT, float(os.environ.get(_SILENCE_VARIABLE, SILENCE)))
    return SILENCE
