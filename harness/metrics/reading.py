"""What a phase logged, in whichever formats: a new one is a module beside this and a row of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from harness.errors import NothingLogged
from harness.metrics import events, json_lines, stdout
from harness.metrics.series import Series

#: Megatron-LM logs every curve once more over consumed samples: the same values, another axis.
_OTHER_AXIS = " vs samples"


class _Read(Protocol):
    def __call__(self, paths: Sequence[Path], *, killed: bool) -> dict[str, Series]:
        """The series of all files together."""


@dataclass(frozen=True)
class _Format:
    """One way to log.

    Args:
        below: the phase's folder that is searched for its files.
        files: those there; none where the trainer logged in another way.
        read: their series.
        absent: said of the folder, where there are none; nothing, where nobody expects any.
        wanted: what a trainer would have to write.
    """

    below: Literal["tensorboard", "output"]
    files: Callable[[Path], list[Path]]
    read: _Read
    absent: str = ""
    wanted: str = ""


#: Where several have a metric, the first one counts.
_FORMATS = (
    _Format(
        "tensorboard",
        events.files,
        events.read,
        "{}: no event file",
        "TensorBoard events to ${TENSORBOARD_PATH}",
    ),
    _Format(
        "output",
        json_lines.files,
        json_lines.read,
        f"no {{}}/{json_lines.NAME}",
        f"one JSON object a line to ${{OUTPUT_PATH}}/{json_lines.NAME}",
    ),
    _Format("output", stdout.files, stdout.read),  # only where the case says so
)


def read_metrics(tensorboard_folder: Path, output_folder: Path, *, killed: bool = False) -> dict[str, Series]:
    """What a phase logged: event files under the one folder, JSON lines and printed lines in the other.

    Curves over consumed samples (``lm loss vs samples``) are left out: their steps are not iterations.

    Args:
        tensorboard_folder: searched with all its subfolders.
        output_folder: the phase's own folder.
        killed: the process was killed: what it was writing at that moment, the last record of an
            event file or the last line, may be torn and is then left out.

    Returns:
        The series by metric, in the order they first appear. Where several sources have a metric, the
        event files count before the JSON lines, and those before what was printed.

    Raises:
        NothingLogged: nothing of that is there.
        MetricsError: it is broken.
    """
    folders = {"tensorboard": tensorboard_folder, "output": output_folder}
    there = [(one, paths) for one in _FORMATS if (paths := one.files(folders[one.below]))]
    if not there:
        absent = ", and ".join(one.absent.format(folders[one.below]) for one in _FORMATS if one.absent)
        wanted = ", or ".join(one.wanted for one in _FORMATS if one.wanted)
        raise NothingLogged(f"{absent}: the trainer logged nothing", f"let it write {wanted}")
    found: dict[str, Series] = {}
    for one, paths in reversed(there):
        found |= one.read(paths, killed=killed)
    return {name: series for name, series in found.items() if not name.endswith(_OTHER_AXIS)}
