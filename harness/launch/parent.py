"""The warm parent: imports a trainer once, then forks its ranks for every phase it is asked for.

``python -m harness.launch.parent FD PID`` speaks JSON lines over the socket FD with the process PID
(:mod:`harness.launch.launcher` starts it, and is the only one to). Asked once:

* ``{target, sys_path}``; an empty target means nothing to import, an empty path to keep one's own. Answer:
  ``{event: ready}``.

Then for each phase:

* ``{kind, target, argv, world_size, cwd, folder, timeout, startup_timeout, hosts}``. Answers: ``{event:
  started, group, pids}``, ``{event: progress, iteration}`` as often as it changes, and in the end
  ``{event: done, startup}`` or ``{event: failed, rank, reason, log, error, suspicion, iteration}``, when all
  are gone. What agents on several nodes say beyond that stands in :mod:`harness.launch.agent`.

The end of the socket means that the harness is gone or wants no more: everything is ended at once.
This process stays single-threaded and does not touch CUDA: neither would survive the fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

from harness.launch.phase import Phase
from harness.launch.rank import die_with_parent, live_without_parent, resolve

_PR_SET_CHILD_SUBREAPER = 36


class Channel:
    """JSON lines over the socket to the harness."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._file = self._socket.makefile("r", encoding="utf-8")

    def fileno(self) -> int:
        """For ``select``."""
        return self._socket.fileno()

    def send(self, **message: Any) -> None:
        """Answer the harness."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def during(self) -> dict[str, Any] | None:
        """Nothing is said while ranks run: what can be read then is the end."""
        raise EOFError

    def beat(self) -> None:
        """Its end is noticed anyway."""

    def requests(self) -> Iterator[dict[str, Any]]:
        """What the harness asks, until it is gone."""
        for line in self._file:
            yield json.loads(line)

    def close(self) -> None:
        """Forget the socket (in a rank: only the parent speaks)."""
        self._file.close()
        self._socket.close()


def preload(first: dict[str, Any]) -> None:
    """Import the target's module, once for all ranks of all phases."""
    sys.path[:] = first["sys_path"] or sys.path
    if not first["target"]:
        return
    resolve(first["target"])
    module = sys.modules[first["target"].partition(":")[0]]
    if hasattr(module, "preload"):
        module.preload()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise RuntimeError(f"{module.__name__}.preload() touched CUDA, which no fork survives")


def woken_by_children() -> int:
    """A descriptor that is readable when a child has ended; orphans below become children of this process."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def main() -> int:
    """Serve the harness until it closes the socket."""
    channel = Channel(int(sys.argv[1]))
    requests = channel.requests()
    # While importing, nobody looks at the socket.
    die_with_parent(int(sys.argv[2]))
    wake = woken_by_children()
    try:
        preload(next(requests))
        live_without_parent()
        channel.send(event="ready", pid=os.getpid())
        for request in requests:
            phase = Phase(request, wake, channel)
            try:
                phase.start()
                answer = phase.watch()
            finally:
                phase.end()
            channel.send(**answer)
    except (EOFError, BrokenPipeError, ConnectionResetError, StopIteration):
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
