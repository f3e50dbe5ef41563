"""Likely mistakes in a case of anybody's script: seen in the case alone, before anything is started."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.repository import root_of

if TYPE_CHECKING:
    from pathlib import Path

    from harness.cases import Case

_PYTHON = re.compile(r"python[0-9.]*|pypy[0-9.]*")
#: Started by themselves, and then a script of Python.
_LAUNCHERS = ("torchrun", "accelerate", "deepspeed", "ft_launcher")
_NO_SCRIPT = ("-m", "--module", "--no_python", "--no-python")
_SHELLS = ("sh", "bash", "dash", "zsh")
_ROOT = "${REPOSITORY}"
_LOGS = (
    r"^\s*(import harness|from harness import .*\blog\b)",
    r"^\s*(from|import) (transformers|trl)\b[^#]*(?s:.*)Trainer\b",
)
_TAKES_A_WORD = ("-W", "-X", "--check-hash-based-pycs")


@dataclass(frozen=True)
class Remark:
    """One likely mistake.

    Args:
        kind: a word for it.
        where: the key of the case.
        message: what was found, and what was expected.
        advice: what to do.
        wrong: it cannot work; otherwise a script may know better.
    """

    kind: str
    where: str
    message: str
    advice: str
    wrong: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.message} — {self.advice}"


def remarks(case: Case, hardware: str) -> tuple[Remark, ...]:
    """All that is remarkable in a case of the trainer ``command``, the worst first."""
    command = case.harness.command
    if command is None:
        said = "is missing, expected what to start"
        return (Remark("command", "HARNESS: command", said, "say {train: [...], resume: [...]}", wrong=True),)
    lists = {"HARNESS: command: train": command.train}
    if command.resume:
        lists["HARNESS: command: resume"] = command.resume
    variables = tuple(case.env_vars.values())
    logs = case.harness.metrics.stdout or _logs_itself(*in_repository(command.train, case))
    return (
        *(
            one
            for where, words in lists.items()
            for one in missing_script(where, *in_repository(words, case))
        ),
        *_loads(*list(lists.items())[-1], variables),
        # Only a run that is stopped at k is told another iteration than N.
        *_schedule((*command.train, *variables), case.train_iters(hardware)),
        *(() if logs else _metrics((*command.train, *variables))),
    )


def _logs_itself(words: Sequence[str], folder: Path) -> bool:
    """Whether the script calls ``harness.log``, or has a Trainer that keeps its log with its checkpoints."""
    name = script(words)
    path = folder / name if name else None
    if path is None or not path.is_file():
        return False
    text = path.read_text(encoding="utf-8", errors="replace")
    return any(re.search(expression, text, re.MULTILINE) for expression in _LOGS)


def in_repository(words: Sequence[str], case: Case) -> tuple[list[str], Path]:
    """A command and the folder that it starts in, as far as they are known before it is started."""
    root = str(root_of(case.directory))
    cwd = case.harness.command.cwd if case.harness.command else ""
    return [word.replace(_ROOT, root) for word in words], case.directory / cwd.replace(_ROOT, root)


def _loads(where: str, words: Sequence[str], variables: Sequence[str]) -> list[Remark]:
    told = (*words, *variables)
    if _mentions("CHECKPOINT_LOAD_PATH", told) or _mentions("CHECKPOINT_TO_LOAD", told):
        return []
    said = "found no ${CHECKPOINT_LOAD_PATH}, expected it among what a resumed run is told"
    return [Remark("load", where, said, "pass it, or the script knows of nothing to load and begins at 0")]


def _schedule(told: Sequence[str], n: int) -> list[Remark]:
    itself = re.compile(rf"(?<![\d.]){n}(?![\d.])")
    knows = _mentions("TRAIN_ITERS", told) or any(itself.search(word) for word in told)
    if knows or not _mentions("EXIT_ITERS", told):
        return []
    said = (
        f"found ${{EXIT_ITERS}} and no ${{TRAIN_ITERS}}, expected both: where this launch stops, and the {n} "
        "iterations that the learning-rate schedule runs over"
    )
    advice = "pass both, or the schedule of a run that is stopped is another one than the whole run's"
    return [Remark("schedule", "HARNESS: command: train", said, advice)]


def _metrics(told: Sequence[str]) -> list[Remark]:
    if any(_mentions(name, told) for name in ("OUTPUT_PATH", "TENSORBOARD_PATH")):
        return []
    said = (
        "found neither ${OUTPUT_PATH} nor ${TENSORBOARD_PATH}, and no HARNESS: metrics: stdout, expected a "
        "place for metrics"
    )
    advice = (
        "let the script write ${OUTPUT_PATH}/metrics.jsonl or event files below ${TENSORBOARD_PATH}, or say "
        "which of the lines that it prints have them"
    )
    return [Remark("metrics", "HARNESS: command: train", said, advice)]


def missing_script(where: str, words: Sequence[str], folder: Path) -> list[Remark]:
    """A remark where the script that a command runs is not there.

    Args:
        where: the key of the case.
        words: the command.
        folder: where it starts.
    """
    name = script(words)
    if name is None or "$" in f"{folder}{name}" or (folder / name).exists():  # set where it is run, maybe
        return []
    said = f"found the script {name}, expected a file there: {folder / name} is not"
    advice = "a relative path begins at the folder of the case file, or at HARNESS: command: cwd"
    return [Remark("script", where, said, advice, wrong=True)]


def script(words: Sequence[str]) -> str | None:
    """The file that an interpreter is told to run; None where it is none, or nobody can tell."""
    program, rest = os.path.basename(words[0]), list(words[1:])
    if program in _LAUNCHERS:
        # Before the script stand options, of which some take a word, and nobody knows which.
        at = next((i for i, word in enumerate(rest) if word.endswith(".py") and word[:1] != "-"), None)
        return None if at is None or set(_NO_SCRIPT) & set(rest[:at]) else rest[at]
    shell = program in _SHELLS
    if not shell and not _PYTHON.fullmatch(program):
        return None
    while rest:
        word = rest.pop(0)
        if not word.startswith(("-", "+") if shell else "-"):
            return word
        # -c and -m, alone or behind other letters, take the rest; what a shell's options take nobody knows.
        if shell or word == "-" or re.match(r"-[A-Za-z]*?[cm]", word):
            return None
        if word in _TAKES_A_WORD:
            rest = rest[1:]
    return None


def module(words: Sequence[str]) -> str | None:
    """The module that an interpreter is told to run by ``-m``; None where it is none, or nobody can tell."""
    program = os.path.basename(words[0])
    if program not in _LAUNCHERS and not _PYTHON.fullmatch(program):
        return None
    return next((name for option, name in itertools.pairwise(words) if option in ("-m", "--module")), None)


def _mentions(name: str, words: Iterable[str]) -> bool:
    """Whether the placeholder is anywhere in them, as ``${NAME}`` or ``$NAME``."""
    pattern = re.compile(rf"\$(?:{name}(?![A-Za-z0-9_])|\{{{name}\}})")
    return any(pattern.search(word) for word in words)
