"""The programs that know a machine's GPUs, asked. Standard library only."""

from __future__ import annotations

import subprocess
from pathlib import Path

TIMEOUT = 60.0  # s; without the persistence daemon eight GPUs take 20 to wake up


def ask(program: str, *arguments: str, timeout: float = TIMEOUT) -> tuple[list[str], str]:
    """Its lines, or what went wrong as the end of a sentence."""
    name = Path(program).name
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [], f"{name} gave no answer in {timeout:.0f} s"
    except OSError as error:
        return [], f"{name} cannot be started: {error.strerror}"
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or (lines and lines[0].startswith("No devices")):
        said = " ".join([*lines, *done.stderr.split("\n")]).strip() or f"exit status {done.returncode}"
        return [], f"{name} failed: {' '.join(said.split())[:200].rstrip('.')}"
    return lines, ""
