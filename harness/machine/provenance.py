"""Where the code under test comes from, and the harness that tests it."""

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


def commit_of_harness() -> str:
    """The commit of this package, where it runs in a checkout of its own; empty where it is installed.

    A package that is installed into somebody's checkout is not of their commit.
    """
    folder = Path(__file__).parents[1]
    return commit(folder) if _git(folder, "ls-files", "__init__.py") else ""


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
