"""Where imported figures are from, as far as the folder that they lie in tells, and whoever imports them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from harness.case_tools.known import IN_CHECKOUT

#: What a side file says of a source, in this order.
KEYS = ("repository", "commit", "path", "licence", "data")


def origin(path: Path, told: Mapping[str, str]) -> dict[str, str]:
    """Repository, the commit that last changed the file, its path there, licence and data; what is known.

    Args:
        path: the file.
        told: what whoever imports says; it counts more than what git says.
    """
    found = {key: value for key, value in told.items() if value}
    root = _git(path.parent, "rev-parse", "--show-toplevel")
    if root and _git(path.parent, "ls-files", path.name):
        found.setdefault("repository", _without_user(_git(path.parent, "remote", "get-url", "origin")))
        found.setdefault("commit", _git(path.parent, "rev-list", "-1", "HEAD", "--", path.name))
        # A link is where it lies, wherever it leads.
        below = path.parent.resolve().relative_to(Path(root).resolve())
        found.setdefault("path", (below / path.name).as_posix())
    elif IN_CHECKOUT.as_posix() in path.absolute().as_posix():
        inside = path.absolute().as_posix().partition(f"/{IN_CHECKOUT.as_posix()}/")[2]
        found.setdefault("path", f"{IN_CHECKOUT.as_posix()}/{inside}")
    return {key: found[key] for key in KEYS if found.get(key)}


def _without_user(url: str) -> str:
    """Of an address no user, and no token of one."""
    return re.sub(r"(?<=://)[^/]*@", "", url)


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            # What a repository's own settings would start is not started: it is somebody else's.
            ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *words],
            capture_output=True, text=True, timeout=30, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
