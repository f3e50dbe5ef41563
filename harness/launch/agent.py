"""The agent on one node of a cluster: the warm parent, whose channel are stdin and stdout.

``python -m harness.launch.agent`` is started once on each node of a phase by an engine, which gives every one
the same lines (:mod:`harness.engines.lines`). Beyond what :mod:`harness.launch.parent` speaks:

* ``ready`` has the ``host`` too, and its ``device``, or what is ``missing``; the request has all ``hosts`` in
  the order of their ranks;
* where there are several, the first answers ``{event: bound, address, port}``, and all are told ``{event:
  store, address, port}`` before any rank is forked;
* the request names the folders that it ``reads``, and what it ``expects`` to find there
  (:mod:`harness.launch.shared`), which is waited for before any rank is forked; when all are done,
  ``{event: list, folders}`` is answered by ``{event: listed, files}``;
* ``{event: ping}`` and ``{event: beat}`` are signs of life. An agent that hears none for :data:`SILENCE` ends
  its ranks and itself: a step of Slurm's lives on when its srun is killed, or its cable is pulled;
* ``{event: report}`` asks what is known here, because something has failed elsewhere: answered by ``failed``,
  whatever it is, when all ranks of this node are gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

from harness.engines.lines import Unpacker, packed
from harness.launch import shared
from harness.launch.blame import BEAT, OWN, WELL
from harness.launch.parent import preload, woken_by_children
from harness.launch.phase import Phase
from harness.launch.place import Place, bound

#: Seconds without a word from the harness after which it is taken for gone.
SILENCE: Final = 60.0
_SILENCE_VARIABLE: Final = "HARNESS_AGENT_SILENCE"


class Stdio:
    """Lines over stdin and stdout. What prints goes to stderr, never between them."""

    def __init__(self, silence: float) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._silence = silence
        self._unpacker, self._waiting = Unpacker(), list[dict[str, Any]]()
        self._heard = self._said = time.monotonic()

    def fileno(self) -> int:
        """For ``select``."""
        return 0

    def send(self, **message: Any) -> None:
        """Tell the harness."""
        self._said = time.monotonic()
        data = packed(message)
        while data:
            data = data[os.write(self._out, data) :]

    def during(self) -> dict[str, Any] | None:
        """What was said since; signs of life are given and heard here. Raises EOFError at the end."""
        while select.select([0], [], [], 0)[0]:
            data = os.read(0, 65536)
            if not data:
                raise EOFError
            self._heard = time.monotonic()
            self._waiting += [one for one in self._unpacker.feed(data) if one.get("event") != "ping"]
        if time.monotonic() - self._heard > self._silence:
            raise EOFError
        self.beat()
        return self._waiting.pop(0) if self._waiting else None

    def beat(self) -> None:
        """Say that this node is there, where it has said nothing for a while."""
        if time.monotonic() - self._said > BEAT:
            self.send(event="beat")

    def wait(self) -> dict[str, Any]:
        """The next request."""
        while (found := self.during()) is None:
            select.select([0], [], [], 1.0)
        return found

    def heard_now(self) -> None:
        """While a trainer was imported, nobody has listened."""
        self._heard = time.monotonic()

    def close(self) -> None:
        """Forget it (in a rank: only the agent speaks, and only it is asked)."""
        os.close(self._out)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)


def host() -> str:
    """The node's name, as its cluster calls it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def main() -> int:
    """Serve the harness until it has no more to say."""
    channel = Stdio(_silence())
    wake = woken_by_children()
    # A step that is cancelled: end in order, so that no orphan of a rank is left.
    signal.signal(signal.SIGTERM, _ended)
    try:
        first = channel.wait()
        has = _device(first["hardware"])
        if "missing" not in has:  # else it need not be imported
            try:
                preload(first)
            except Exception as error:  # noqa: BLE001 - whatever it is, the harness is told
                traceback.print_exc()
                channel.send(event="ready", host=host(), unable=_words(error))
                return 1
        channel.heard_now()
        channel.send(event="ready", host=host(), pid=os.getpid(), **has)
        while True:
            request = channel.wait()
            if "kind" in request:
                channel.send(**_answer(request, wake, channel))
            elif request.get("event") == "list":
                files = shared.listing(request["folders"], meanwhile=channel.during)
                channel.send(event="listed", files=files)
    except (EOFError, BrokenPipeError):
        return 0


def _answer(request: dict[str, Any], wake: int, channel: Stdio) -> dict[str, Any]:
    """What has come of a phase here; a fault of this node's own is told as such."""
    try:
        return _phase(request, wake, channel)
    except (EOFError, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - else the node would count as lost
        traceback.print_exc()
        return _failed(f"could not be run: {_words(error)}", request, OWN)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _phase(request: dict[str, Any], wake: int, channel: Stdio) -> dict[str, Any]:
    hosts = request["hosts"]
    node = hosts.index(host())
    held: socket.socket | None = None
    try:
        place = Place(node, len(hosts))
        if len(hosts) > 1:
            if node == 0:
                held = bound(hosts[0], listen=request["kind"] == "fork")
                channel.send(event="bound", address=hosts[0], port=held.getsockname()[1])
            told = channel.wait()
            while told.get("event") != "store":
                if told.get("event") == "report":  # the first node will not say where they meet
                    return _not_visible(["it waited for the first node"], request, WELL)
                told = channel.wait()
            descriptor = held.fileno() if held is not None else -1
            place = Place(node, len(hosts), told["address"], told["port"], descriptor)
        if unseen := _unseen(request, channel):
            return _not_visible(unseen, request)
        phase = Phase(request, wake, channel, place)
        try:
            phase.start()
            answer = phase.watch()
        finally:
            phase.end()
        if answer["event"] == "failed" and (log := Path(answer["log"])).is_file():
            answer["log_size"] = log.stat().st_size
        return answer
    finally:
        if held is not None:
            held.close()


def _unseen(request: dict[str, Any], channel: Stdio) -> list[str]:
    """What the harness has made for this phase, and this node does not see; waited for."""

    def alive() -> None:
        if (said := channel.during()) is not None and said.get("event") == "report":
            channel.send(**_not_visible(["it waited for files when another node failed"], request, WELL))

    folders = dict.fromkeys([request["folder"], request["cwd"], *request["reads"]])
    if left := shared.wait_for_folders(folders, meanwhile=alive):
        return [f"{path} is not there" for path in left]
    return shared.wait_for(request["expects"], request["reads"], meanwhile=alive)


def _not_visible(unseen: list[str], request: dict[str, Any], suspicion: int = OWN) -> dict[str, Any]:
    """The answer: it is not lost, and not on this node either."""
    more = f", and {len(unseen) - 1} more" if len(unseen) > 1 else ""
    return _failed(f"found its files not visible from this node: {unseen[0]}{more}", request, suspicion)


def _failed(reason: str, request: dict[str, Any], suspicion: int) -> dict[str, Any]:
    return {
        "event": "failed",
        "rank": None,
        "reason": reason,
        "log": str(Path(request["folder"]) / "logs"),
        "error": None,
        "suspicion": suspicion,
    }


def _device(hardware: str) -> dict[str, str]:
    """What this node has of the hardware, or why it has none."""
    from harness.errors import HarnessError
    from harness.machine.environment import device
    from harness.machine.hardware import require

    try:
        require(hardware, 1)
    except HarnessError as error:
        return {"missing": error.message}
    return {"device": device(hardware)}


def _silence() -> float:
    with contextlib.suppress(ValueError):
        return max(1.0, float(os.environ.get(_SILENCE_VARIABLE, SILENCE)))
    return SILENCE


def _ended(_number: int, _frame: object) -> None:
    raise EOFError


if __name__ == "__main__":
    sys.exit(main())
