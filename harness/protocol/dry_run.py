"""What ``harness run --dry-run`` prints: each phase's environment and command, ready to paste.

Nothing is started and nothing is written. Secrets of the environment are shown as ``***``.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING

from harness.machine.secrets import HIDDEN, Secrets
from harness.trainers.base import Launch, Phase, PhaseName

if TYPE_CHECKING:
    from pathlib import Path

    from harness.goldens import Golden
    from harness.protocol.results import ResultsFolder
    from harness.trainers.base import Trainer


def phases(trainer: Trainer, folder: ResultsFolder, *, killed: bool = False) -> list[Phase]:
    """The phases of the protocol ``full``, in the folders that a run would use.

    Args:
        killed: those of ``crash``, where nobody knows before how far the interrupted one comes.
    """
    case, hardware = trainer.case, trainer.hardware
    n, k = case.train_iters(hardware), case.resume_at(hardware)

    def phase(name: PhaseName, load: Path | None, start: int, stop: int) -> Phase:
        return Phase(
            name=name,
            folder=folder.phase(name),
            save=folder.checkpoints(name),
            load=load,
            start=start,
            stop=stop,
            train_iters=n,
            save_interval=case.save_interval(hardware),
        )

    found = [phase("continuous", None, 0, n)]
    if trainer.resumes:
        if killed or not trainer.can_rewind:
            found.append(phase("interrupted", None, 0, n if killed else k))
        found.append(phase("resumed", folder.checkpoints("resumed-from"), k, n))
    return found


def dry_run(trainer: Trainer, phases: Iterable[Phase], *, killed: str = "") -> str:
    """Every phase as a block of shell.

    Args:
        killed: how the interrupted phase is, where it is.

    Raises:
        CaseError, UsageError: a phase that cannot be started.
    """
    return "\n".join(_block(phase, trainer.launch(phase), trainer, killed) for phase in phases)


def golden_line(golden: Golden | None) -> str:
    """Which golden is going to be compared with."""
    if golden is None:
        return "# golden: none"
    return f"# golden: {golden.path}" + (" (a fallback: compared by tolerance)" if golden.fallback else "")


def _block(phase: Phase, launch: Launch, trainer: Trainer, killed: str) -> str:
    ranks = f"{launch.world_size} rank{'s' if launch.world_size > 1 else ''}"
    lines = [f"# {phase.name}: iterations {phase.start + 1} to {phase.stop}, {ranks}"]
    if killed and phase.name == "interrupted":
        lines.append(f"# killed with SIGKILL on the way: {killed}")
    elif killed and phase.load:
        source = phase.save.with_name("interrupted")
        lines.append(f"# {phase.load} gets all that the kill has left in {source} before,")
        lines.append(f"# and goes on from what it finds there, here from {phase.start}")
    elif phase.load:
        source = phase.save.with_name("continuous" if trainer.can_rewind else "interrupted")
        lines.append(f"# {phase.load} gets the checkpoint of {phase.start} from {source} before")
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
