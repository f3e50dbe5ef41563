"""What a phase logged, in whichever formats: a new one is a module beside this and a row of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import NothingLogged
from harness.metrics import below, events, json_lines, stdout, tables, trainer_state
from harness.metrics.known import about, shown_by
from harness.metrics.series import Series


class _Read(Protocol):
    def __call__(
        self, paths: Sequence[Path], *, killed: bool, notes: list[str] | None = None
    ) -> dict[str, Series]:
        """The series of all files together."""


@dataclass(frozen=True)
class _Format:
    """One way to log.

    Args:
        files: those in the phase's own folder; none where the trainer logged in another way.
        read: their series.
        in_events: files are looked for in the folder of event files first.
        last: only where no other format has a file.
    """

    files: Callable[[Path], list[Path]]
    read: _Read
    in_events: bool = False
    last: bool = False


#: Where several have a metric, the first one counts.
_FORMATS = (
    _Format(events.files, events.read, in_events=True),
    _Format(json_lines.files, json_lines.read),
    _Format(tables.files, tables.read),
    _Format(stdout.files, stdout.read),  # only where the case says so
    _Format(json_lines.others, json_lines.read, last=True),
    _Format(tables.others, tables.read, last=True),
    _Format(trainer_state.files, trainer_state.read, last=True),
)
_ABSENT = (
    "{tensorboard}: no event file, and no {output}/" + json_lines.NAME + " (looked for as well: "
    f"{tables.NAME}, a log of a framework's own name, {trainer_state.NAME}){{seen}}: "
    "the trainer logged nothing"
)
_WANTED = (
    "let it write TensorBoard events to ${TENSORBOARD_PATH}, or one JSON object a line to "
    f"${{OUTPUT_PATH}}/{json_lines.NAME}"
)
_WANTED_OTHERWISE = (
    f"give it a name and a form that is read: {json_lines.NAME} (one JSON object a line, with 'step'), or "
    f"{tables.NAME} (a header with 'step')"
)


def read_metrics(
    tensorboard_folder: Path,
    output_folder: Path,
    *,
    killed: bool = False,
    notes: list[str] | None = None,
) -> dict[str, Series]:
    """What a phase logged: event files, JSON lines, CSV, and printed lines.

    What is ``unread`` is left out, as curves over consumed samples are (``lm loss vs samples``): their steps
    are not iterations; where they are, and no other curve has the values, it is read. The same value that is
    logged again for a step counts once.

    Args:
        tensorboard_folder: searched with all its subfolders; the phase's own, where it has no event file.
        output_folder: the phase's own folder.
        killed: the process was killed: what it was writing at that moment, the last record of an
            event file or the last line, may be torn and is then left out.
        notes: what was there and is not read is said there, a sentence each.

    Returns:
        The series by metric, in the order they first appear. Where several sources have a metric, the
        event files count before the JSON lines, those before CSV, and those before what was printed.

    Raises:
        NothingLogged: nothing of that is there.
        MetricsError: it is broken.
    """
    there = _there(tensorboard_folder, output_folder)
    if not there:
        seen = below.seen(output_folder)
        message = _ABSENT.format(
            tensorboard=tensorboard_folder, output=output_folder, seen=f"; there is {seen}" if seen else ""
        )
        raise NothingLogged(message, _WANTED_OTHERWISE if seen else _WANTED)
    found: dict[str, Series] = {}
    for one, paths in reversed(there):
        found |= one.read(paths, killed=killed, notes=notes)
    unread = {name for name in found if about(name).judged == "unread"}
    iterations = {step for name in found.keys() - unread for step in found[name].steps.tolist()}
    alone = [name for name in unread if shown_by(name) not in found]
    unread -= {name for name in alone if iterations.issuperset(found[name].steps.tolist())}
    if notes is not None:
        notes += [
            f"not compared: `{name}`, of which no curve over iterations is there"
            for name in sorted(unread.intersection(alone))
        ]
    return {name: series.once() for name, series in found.items() if name not in unread}


def _there(tensorboard: Path, output: Path) -> list[tuple[_Format, list[Path]]]:
    """The formats that have files, and these."""
    there: list[tuple[_Format, list[Path]]] = []
    for one in _FORMATS:
        if one.last and there:
            break
        paths = one.files(tensorboard) if one.in_events else one.files(output)
        if one.in_events and not paths and output != tensorboard:
            paths = one.files(output)
        if paths:
            there.append((one, paths))
    return there
