"""This machine: one warm parent, over a socket that is its life.

Nothing outlives its reason: the parent ends its ranks when this process is gone (its socket closes), however
it went; the kernel kills the ranks when the parent is gone, and what had left their group is found by a mark
in its environment. No port is used: ranks meet over a file in a fresh folder.
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
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness.engines.base import Gone
from harness.engines.environment import FOREIGN, FORK_ENV, MARK
from harness.errors import TrainerFailed

if TYPE_CHECKING:
    from harness.engines.base import Wanted
    from harness.trainers.base import Launch

_TAIL_LINES, _TAIL_BYTES = 40, 65536


class Local:
    """Keeps the warm parent between phases that can share it."""

    devices: tuple[str, ...] = ()
    provenance: dict[str, object] = {}  # noqa: RUF012 - never written to

    def __init__(self, wanted: Wanted | None = None) -> None:  # noqa: ARG002 - as every engine is made
        self._parent: Parent | None = None

    def agents(
        self,
        launch: Launch,
        phase: str,
        timeout: float,
        note: Callable[[str], object] | None = None,  # noqa: ARG002 - nothing is waited for
    ) -> Parent:
        """The warm parent, made anew where the one that is there imported something else; as an Engine."""
        module = launch.target.partition(":")[0] if launch.kind == "fork" else ""
        key = (module, launch.python, tuple(sorted(launch.env.items())))
        if self._parent is not None and (self._parent.key != key or not self._parent.usable()):
            self.close()
        if self._parent is None:
            self._parent = Parent(key, launch)
            try:
                self._parent.wait_ready(timeout)
            except Gone as gone:
                raise TrainerFailed(phase=phase, rank=None, reason=gone.reason, log_tail=gone.tail) from None
        return self._parent

    def release(self, agents: object) -> None:
        """It stays for the next phase."""

    def close(self) -> None:
        """End the warm parent, and everything below it."""
        parent, self._parent = self._parent, None
        if parent is not None:
            parent.end()


class Parent:
    """This side of the warm parent process."""

    def __init__(self, key: object, launch: Launch) -> None:
        self.key = key
        self.mark = uuid.uuid4().hex
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        ours, theirs = socket.socketpair()
        env = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        env |= FORK_ENV if launch.kind == "fork" else {}
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

    @property
    def hosts(self) -> tuple[str, ...]:
        """One, which is here."""
        return ("",)

    @property
    def silence(self) -> float:
        """None is too long: its end is noticed."""
        return 0.0

    @property
    def tail(self) -> str:
        """It is said where its end is."""
        return ""

    def about(self, node: int) -> str:  # noqa: ARG002 - as all agents
        """Nothing that is not known here anyway."""
        return ""

    def usable(self) -> bool:
        """Whether it can be asked for another phase."""
        return self._process.poll() is None

    def send(self, **message: Any) -> None:
        """Ask for something; a parent that is gone shows when its answer is read."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def wait_ready(self, timeout: float) -> None:
        """Wait until the trainer is imported; raises Gone."""
        found = self.hear(timeout)
        if found is None:
            raise self._lost(f"took more than {timeout:.0f} s to import")

    def hear(self, seconds: float | None) -> tuple[int, dict[str, Any]] | None:
        """The next answer; as Agents."""
        if seconds is not None and not select.select([self._socket], [], [], seconds)[0]:
            return None
        try:
            line = self._file.readline()
        except ConnectionResetError:
            line = b""
        if not line:
            raise self._lost("")
        return 0, json.loads(line)

    def _lost(self, reason: str) -> Gone:
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
        return Gone(f"{reason}: {last}" if last else reason, tail)

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
