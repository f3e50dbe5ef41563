"""Slurm's programs, called with argument lists and a limit."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Final

from harness.errors import UsageError
from harness.text import one_line

#: Seconds that a question may take; a controller that fails over answers late.
ANSWER: Final = 60.0
_NEEDED: Final = ("salloc", "srun", "scancel", "squeue", "scontrol", "sinfo")
#: Of what Slurm sets in a job and a step, and takes for the defaults of the next one, only this is kept.
_KEPT: Final = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_TIME_FORMAT")


def require(*needed: str) -> None:
    """Raise UsageError where they are not; those of an engine, where none is named."""
    missing = [name for name in needed or _NEEDED if shutil.which(name) is None]
    if missing:
        raise UsageError(
            f"--engine slurm: {', '.join(missing)} not found on PATH, expected Slurm's programs",
            "start it on a login node or within a job of the cluster",
        )


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, without what an outer job says of itself: srun would take it for its own defaults."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM_", "SLURMD_", "SRUN_")) or name in _KEPT
    }
    return {**env, **(more or {})}


def ask(*words: str, timeout: float = ANSWER, env: Mapping[str, str] | None = None) -> str:
    """What a program prints.

    Args:
        env: variables that it has beside those of :func:`environment`.

    Raises:
        UsageError: it failed, or does not answer; with what it said.
    """
    try:
        done = subprocess.run(
            words,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"{words[0]} did not answer for {timeout:.0f} s", "is slurmctld there?") from None
    except OSError as error:
        raise UsageError(f"{words[0]}: {error.strerror or error}") from None
    if done.returncode:
        said = one_line(done.stderr.strip() or f"exit status {done.returncode}")
        raise UsageError(f"{words[0]}: {said}")
    return done.stdout


def tell(*words: str, timeout: float = ANSWER) -> bool:
    """Whether a program did what it was told; what it says is of no use to anybody."""
    with contextlib.suppress(UsageError):
        ask(*words, timeout=timeout)
        return True
    return False


def fields(text: str) -> dict[str, str]:
    """``scontrol show job -o``: ``Name=value`` by name; values with spaces in them are cut there."""
    found: dict[str, str] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if equals:
            found.setdefault(name, value)
    return found


def hosts(nodelist: str) -> tuple[str, ...]:
    """``n[1-3]`` as names, in their order."""
    return tuple(ask("scontrol", "show", "hostnames", nodelist).split()) if nodelist else ()
