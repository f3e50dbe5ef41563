"""Where the code under test comes from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def commit(folder: Path) -> str:
    """The commit that ``folder`` is checked out at, with ``+`` when tracked files were changed.

    Where git does not know it, CI's word for it (``GITHUB_SHA``); else empty. Git is asked first: of a
    pull request from a fork, CI names the branch it is to be merged into.
    """
    head = _git(folder, "rev-parse", "HEAD")
    if not head:
        return os.environ.get("GITHUB_SHA", "")
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
