"""What ``harness run --dry-run`` prints: each phase's environment and command, ready to paste.

Nothing is started and nothing is written. Secrets of the environment are shown as ``***``.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.machine.secrets import HIDDEN, Secrets
from harness.trainers.base import Launch, Phase, PhaseName

if TYPE_CHECKING:
    from pathlib import Path

    from harness.goldens import Golden
    from harness.protocol.plan import Options
    from harness.protocol.results import ResultsFolder
    from harness.trainers.base import Trainer


def phases(trainer: Trainer, folder: ResultsFolder, options: Options | None = None) -> list[Phase]:
    """The phases of a protocol, in the folders that a run would use; of ``auto``, those of ``full``.

    Raises:
        UsageError: there is no checkpoint where it is to be resumed.
    """
    from harness.protocol.plan import MANY_STOPS, Options, refuse_stop
    from harness.protocol.shrinking import evenly
    from harness.protocol.stops import suffix_of

    case, hardware, options = trainer.case, trainer.hardware, options or Options()
    n, k, interval = case.train_iters(hardware), case.resume_at(hardware), case.save_interval(hardware)
    many = options.protocol in MANY_STOPS
    once = (k if options.resume_at is None else options.resume_at,)
    stops = options.stops or tuple(range(interval, n, interval)) if many else once
    if options.protocol == "chain" and not options.stops:
        stops = evenly(stops)

    def phase(name: PhaseName, load: Path | None, start: int, stop: int, suffix: str = "") -> Phase:
        inside = replace(folder, suffix=suffix)
        return Phase(
            name=name,
            folder=inside.phase(name),
            save=inside.checkpoints(name),
            load=load,
            start=start,
            stop=stop,
            train_iters=n,
            save_interval=interval,
        )

    found = [phase("continuous", None, 0, n)]
    if options.protocol == "crash" and trainer.resumes:  # nobody knows before how far it comes
        found.append(phase("interrupted", None, 0, n))
        return [*found, phase("resumed", folder.checkpoints("resumed-from"), k, n)]
    before: tuple[int, ...] = ()
    for stop, later in zip(stops, (*stops[1:], n), strict=True) if trainer.resumes else ():
        if many or options.resume_at is not None:
            refuse_stop(stop, trainer, n, interval, "--stops" if many else "--resume-at")
        until = later if options.protocol == "chain" else n
        before = (*before, stop) if options.protocol == "chain" else (stop,)
        kept = trainer.can_rewind and stop % interval == 0
        if not kept and len(before) == 1:
            found.append(phase("interrupted", None, 0, stop, suffix_of(before) if many else ""))
        suffix = suffix_of(before, until if until < n else None) if many else ""
        load = replace(folder, suffix=suffix).checkpoints("resumed-from")
        found.append(phase("resumed", load, stop, until, suffix))
    return found


def dry_run(trainer: Trainer, phases: Iterable[Phase], *, killed: str = "") -> str:
    """Every phase as a block of shell.

    Args:
        killed: how the interrupted phase is, where it is.

    Raises:
        CaseError, UsageError: a phase that cannot be started.
    """
    blocks, before = [], list[Phase]()
    for phase in phases:
        # what was stopped at its beginning, if anything was; else the uninterrupted run
        source = next((one for one in reversed(before) if one.stop == phase.start), (before or [phase])[0])
        blocks.append(
            _block(phase, trainer.launch(phase), before[-1] if killed and before else source, killed)
        )
        before.append(phase)
    return "\n".join(blocks)


def golden_line(golden: Golden | None) -> str:
    """Which golden is going to be compared with."""
    if golden is None:
        return "# golden: none"
    return f"# golden: {golden.path}" + (" (a fallback: compared by tolerance)" if golden.fallback else "")


def _block(phase: Phase, launch: Launch, source: Phase, killed: str) -> str:
    ranks = f"{launch.world_size} rank{'s' if launch.world_size > 1 else ''}"
    lines = [f"# {phase.folder.name}: iterations {phase.start + 1} to {phase.stop}, {ranks}"]
    if killed and phase.name == "interrupted":
        lines.append(f"# killed with SIGKILL on the way: {killed}")
    elif killed and phase.load:
        lines.append(f"# {phase.load} gets all that the kill has left in {source.save} before,")
        lines.append(f"# and goes on from what it finds there, here from {phase.start}")
    elif phase.load:
        lines.append(f"# {phase.load} gets the checkpoint of {phase.start} from {source.save} before")
    if launch.cwd is not None:
        lines.append(f"cd {shlex.quote(str(launch.cwd))}")
    secrets = Secrets(os.environ, launch.env)
    shown = {name: secrets.variable(name, value) for name, value in launch.env.items()}
    words = secrets.words(list(launch.argv))
    if HIDDEN in "\0".join([*shown.values(), *words]):
        lines.append(f"# {HIDDEN} stands for a secret, which is not shown: put it in yourself")
    command = [f"{name}={_quoted(value)}" for name, value in shown.items()]
    command += _lines(words)
    if launch.kind == "fork":
        lines.append(f"# {ranks}, forked after one import, call {launch.target} with:")
        lines += [f"#   {line}" for line in command]
    else:
        lines.append(" \\\n  ".join(command))
    return "\n".join([*lines, ""])


def _lines(words: Iterable[str]) -> list[str]:
    """An option and its values a line."""
    lines: list[list[str]] = []
    for word in words:
        if not lines or word.startswith("--"):
            lines.append([])
        lines[-1].append(word)
    return [" ".join(map(_quoted, line)) for line in lines]


def _quoted(word: str) -> str:
    """For a shell; what stands for a secret as it is."""
    return word if word == HIDDEN else shlex.quote(word)
