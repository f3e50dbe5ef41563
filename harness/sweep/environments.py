"""The environment of each track, made once and before any cell: by nox, which makes those of all cells."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.matrix import TRACKS
from harness.sweep.folder import Folder
from harness.verdict.sweep import PYTHON_FILE

#: (hardware, track)
Kind = tuple[str, str]
#: Seconds after which a file that a node has written is seen from here, wherever it lies.
LATE: Final = 10.0


@dataclass(frozen=True)
class Made:
    """The environment of a track on a kind of hardware.

    Args:
        python: that runs its cells; empty where there is none.
        why: there is none, as a sentence.
    """

    python: str = ""
    why: str = ""


def python_here(prefix: Iterable[str]) -> str:
    """The Python of cells that no environment is made for: the first on PATH that has the harness.

    Args:
        prefix: the words before the command of a task; behind some, PATH is that of a container.
    """
    if tuple(prefix):
        return "python"
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for name in ("python", "python3"):
            python = shutil.which(name, path=folder) if folder else None
            asked = [python or "", "-c", "import harness.commands.run"]
            if python and not subprocess.run(asked, capture_output=True, check=False).returncode:
                return python
    return sys.executable


class Making:
    """Those that are being made: a job each, or a process here.

    Args:
        folder: of the sweep.
        sessions: by kind, which session of nox makes it; kinds without one have the Python that is here.
        prefix: as of :func:`python_here`.
    """

    def __init__(self, folder: Folder, sessions: Mapping[Kind, str], prefix: tuple[str, ...]) -> None:
        self._folder, self._sessions, self._prefix = folder, sessions, prefix
        self._here = ""

    def needed(self, kinds: Iterable[Kind]) -> tuple[dict[Kind, Made], list[Kind]]:
        """Those of which it is known at once which Python they are, and those that are to be made."""
        known, rest = {}, []
        for kind in dict.fromkeys(kinds):
            if kind in self._sessions and TRACKS[kind[1]].group is not None:
                rest.append(kind)
            else:
                self._here = self._here or python_here(self._prefix)
                known[kind] = Made(self._here)
        return known, rest

    def script(self, kind: Kind) -> Path:
        """The batch script that makes it."""
        return self._folder.script(self.name(kind), self._words(kind))

    def here(self, kind: Kind) -> Made:
        """Make it on this machine; raises KeyboardInterrupt, and nothing is left running."""
        with (self._folder.path / f"{self.name(kind)}.log").open("wb") as log:
            process = subprocess.Popen(
                self._words(kind),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt from the keyboard is ours to handle
            )
            try:
                process.wait()
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        return self.found(kind, late=0)

    def found(self, kind: Kind, *, late: float = LATE) -> Made:
        """What has come of it, once whoever made it has ended.

        Args:
            late: seconds after which its file is seen here.
        """
        end = time.monotonic() + late
        while True:
            try:
                python = self._file(kind).read_text(encoding="utf-8").strip()
            except OSError:
                python = ""
            if python:
                return Made(python)
            if time.monotonic() >= end:
                break
            time.sleep(0.5)
        name = self.name(kind)
        last = self._folder.last_words(name)
        said = f": {last}" if last else ""
        log = f"its log: {self._folder.path / name}.log"
        return Made(why=f"the environment of {'/'.join(kind)} could not be made{said} — {log}")

    def name(self, kind: Kind) -> str:
        """Of its files in the folder."""
        return f"environment-{kind[0]}-{kind[1]}"

    def _file(self, kind: Kind) -> Path:
        return self._folder.path / f"{self.name(kind)}.txt"

    def _words(self, kind: Kind) -> list[str]:
        nox = [sys.executable, "-m", "nox", "-s", self._sessions[kind], "--install-only"]
        return ["env", f"{PYTHON_FILE}={self._file(kind)}", *nox]
