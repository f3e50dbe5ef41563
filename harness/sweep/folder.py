"""What a sweep leaves on the shared folder, ``<results>/.sweep/<id>/``: its arrays, their scripts and logs.

``<n>.json`` has the cells of array n, ``<n>.sh`` is its batch script, ``<n>-<task>.log`` what a task says,
``<n>-<task>.json`` where it runs. The name is hidden: nobody takes it for results of a cell.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.text import one_line

HIDDEN: Final = ".sweep"
_TAIL: Final = 4096  # bytes of a log


@dataclass(frozen=True)
class Record:
    """What a task has said of itself when it began.

    Args:
        host: its node.
        started: seconds of the epoch, by that node's clock.
        restart: how often it had been requeued.
        before: the id of the run whose results stood in the cell's folder then; empty for none.
    """

    host: str
    started: float
    restart: int
    before: str


class Folder:
    """That of one sweep; made anew.

    Args:
        results: the folder of results.
        name: of the sweep's jobs.
    """

    def __init__(self, results: Path, name: str) -> None:
        self.path = (results / HIDDEN / name).absolute()
        self.path.mkdir(parents=True)

    def script(self, name: str, words: Sequence[str]) -> Path:
        """A batch script that becomes a command: words and nothing else, each of them quoted."""
        path = self.path / f"{name}.sh"
        path.write_text(f"#!/bin/sh\nexec {shlex.join(words)}\n", encoding="utf-8")
        return path

    def array(self, number: int, content: dict[str, Any]) -> Path:
        """The file of an array, and its script, whose path is returned."""
        path = self.path / f"{number}.json"
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return self.script(str(number), [sys.executable, "-m", "harness.sweep.task", str(path)])

    def log(self, name: str) -> str:
        """As ``sbatch --output`` takes it: its own marks (``%a``) are in ``name`` only."""
        return f"{str(self.path).replace('%', '%%')}/{name}.log"

    def record(self, array: int, task: int) -> Record | None:
        """What a task has said; None where it has not begun, as far as can be seen from here."""
        with contextlib.suppress(OSError):
            os.listdir(
                self.path
            )  # over a network, a name that was looked for in vain is not looked for again
        try:
            found = json.loads((self.path / f"{array}-{task}.json").read_bytes())
            return Record(
                str(found["host"]), float(found["started"]), int(found["restart"]), str(found["before"])
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def last_words(self, name: str) -> str:
        """The last line of a log that says something."""
        with contextlib.suppress(OSError), (self.path / f"{name}.log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
            lines = [one_line(line) for line in log.read().decode(errors="replace").splitlines()]
            return next((line for line in reversed(lines) if line), "")
        return ""

    def remove(self) -> None:
        """Nobody needs it any more; that of all sweeps too, when it was the last."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()
