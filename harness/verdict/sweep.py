"""What the sessions of one nox say of their cells. Standard library only: the noxfile imports it."""

from __future__ import annotations

import atexit
import json
import os
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import EXIT_NOTHING
from harness.text import utc_now
from harness.verdict.verdict import Run, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.diagnosis import Diagnosis
    from harness.matrix import Cell
    from harness.verdict.verdict import Status

#: In every folder that a run of the harness made, with its id and its start; what has none is never emptied.
MARKER = ".harness-cell"
VERDICT = "verdict.json"
REPORT = "report.html"
#: Of a cell that is a job's: ``<number>.<how often it was started again>``, which its marker says too.
JOB = "HARNESS_JOB"
#: A file that a session of nox writes the Python of its environment into.
PYTHON_FILE = "HARNESS_PYTHON_FILE"
_VARIABLE = "HARNESS_NOX_SWEEP"


@dataclass(frozen=True)
class Sweep:
    """The cells that one nox was asked for.

    Nox calls it a success when all of its sessions are skipped. A sweep that ran no cell has held nothing:
    the process then ends with exit status 3.

    Args:
        said: the file in which each cell says whether it was run, also those in processes of their own.
    """

    said: Path

    @staticmethod
    def of_this_nox() -> Sweep:
        """The one of this process, or of the nox that has started it for one of its sessions (``nox -j``)."""
        owner, _, path = os.environ.get(_VARIABLE, "").partition(" ")
        if path and owner in (str(os.getpid()), str(os.getppid())):  # a nox further out has its own cells
            return Sweep(Path(path))
        sweep = Sweep(Path(tempfile.gettempdir(), f"harness-nox-{uuid.uuid4().hex}"))
        os.environ[_VARIABLE] = f"{os.getpid()} {sweep.said}"
        atexit.register(sweep.end)
        return sweep

    def tried(self) -> None:
        """The turn of a cell has come."""
        self._say("tried")

    def skipped(self) -> None:
        """It could not be run here."""
        self._say("skipped")

    def end(self) -> None:
        """End the process with exit status 3 if there were cells, and all of them were skipped."""
        try:
            words = self.said.read_text().split()
        except OSError:
            return
        self.said.unlink(missing_ok=True)
        if words and words.count("skipped") == words.count("tried"):
            said = f"no cell was run: exit status {EXIT_NOTHING}, nothing to do"
            print(said, file=sys.stderr, flush=True)
            sys.stdout.flush()
            os._exit(EXIT_NOTHING)

    def _say(self, word: str) -> None:
        with self.said.open("a") as stream:
            stream.write(f"{word}\n")


def leave(
    cell: Cell,
    status: Status,
    message: str,
    results: Path = Path("results"),
    *,
    again: str = "",
    diagnosis: Diagnosis | None = None,
    provenance: Mapping[str, object] | None = None,
) -> None:
    """Leave the verdict of a cell that had none of its own to write; what others left there stays.

    Args:
        status: ``refused`` or ``skipped``; ``error`` where it began, and somebody else saw how it ended.
        again: the command line that runs it again; empty: nox's.
        diagnosis: of an ``error``.
        provenance: what is known of where it was to run.
    """
    folder = results / cell.hardware / cell.track / cell.case
    try:
        if folder.is_dir() and not (folder / MARKER).exists() and any(folder.iterdir()):
            return
        now = utc_now()
        run = Run(uuid.uuid4().hex, now, now)
        again = again or f'nox -s "case({cell.hardware})({cell.track},{cell.case})"'
        known = {**(provenance or {}), "finished": now}
        verdict = Verdict(cell.id, status, (), diagnosis, {}, known, again, message, run)
        verdict.write(folder / VERDICT)
        (folder / REPORT).unlink(missing_ok=True)
        (folder / MARKER).write_text(json.dumps({"id": run.id, "started": now}) + "\n", encoding="utf-8")
    except OSError as error:
        print(f"{folder}: cannot be written: {error.strerror or error}", file=sys.stderr)


def was_skipped(cell: Cell, since: float, results: Path = Path("results")) -> bool:
    """Whether a cell's verdict says so: pytest's exit status 3 may also be an error of pytest's own.

    Args:
        since: seconds of the epoch; a verdict of an earlier run says nothing.
    """
    path = results / cell.hardware / cell.track / cell.case / VERDICT
    try:
        # File systems have coarser clocks than processes.
        return path.stat().st_mtime > since - 1 and json.loads(path.read_bytes())["status"] == "skipped"
    except (OSError, ValueError, KeyError, TypeError):
        return False
