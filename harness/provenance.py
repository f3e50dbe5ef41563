"""Where the code under test comes from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def commit(folder: Path) -> str:
    """The commit that ``folder`` is checked out at, with ``+`` when tracked files were changed.

    Empty where git does not know it. CI's own word for it (``GITHUB_SHA``) wins.
    """
    if os.environ.get("GITHUB_SHA"):
        return os.environ["GITHUB_SHA"]
    head = _git(folder, "rev-parse", "HEAD")
    if not head:
        return ""
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+" if changed else head


def _git(folder: Path, *words: str) -> str:
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
