"""The verdict of a cell that is not run: why not, so that nobody takes an older one for this run's."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HardwareMissing, HarnessError, NotRun
from harness.text import utc_now
from harness.verdict import Verdict

if TYPE_CHECKING:
    from harness.matrix import Cell
    from harness.protocol.plan import Options
    from harness.verdict import Run, Status


def status_of(error: Exception) -> Status:
    """``skipped`` for hardware that is not there, outside of CI, or was taken away; else ``refused``."""
    if isinstance(error, NotRun):
        return "skipped"
    missing = isinstance(error, HardwareMissing)
    return "skipped" if missing and not os.environ.get("CI") else "refused"


def sentence(error: Exception) -> str:
    """What is wrong, in one line."""
    if isinstance(error, HarnessError):
        return str(error) or type(error).__name__
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    return " ".join(f"{where}{said}".split()) or type(error).__name__


def refused(error: Exception, cell: Cell, run: Run, results: Path, again: str) -> Verdict:
    """The verdict of a cell that ``error`` kept from being run.

    Args:
        results: the cell's folder.
        again: the command line that runs it again.
    """
    from harness import __version__

    now = utc_now()
    provenance = {
        "harness": __version__,
        "results": str(results),
        "finished": now,
        "host": platform.node(),
    }
    return Verdict(
        cell=cell.id,
        status=status_of(error),
        checks=(),
        diagnosis=None,
        timing={},
        provenance=provenance,
        reproduce=again,
        message=sentence(error),
        run=replace(run, finished=now),
    )


def command_line(cell: Cell, asked: str, options: Options, folders: Sequence[tuple[str, Path, Path]]) -> str:
    """The command line that runs a cell again of which nothing but its name may be known.

    Args:
        asked: the case's name or path, as it was asked for.
        folders: option, where it lies, and where it lies by default.
    """
    said = options.words
    if os.environ.get("NOX_CURRENT_SESSION", "").startswith("case("):
        session = f"case({cell.hardware})({cell.track},{cell.case})"
        return f'nox -s "{session}"' + (f" -- {shlex.join(said)}" if said else "")
    words = ["harness", "run", asked, "--hardware", cell.hardware, "--track", cell.track]
    words += said
    for name, folder, default in folders:
        if folder != default:
            words += [f"--{name}", str(folder)]
    return shlex.join(words)
