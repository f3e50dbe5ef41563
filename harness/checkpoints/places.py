"""Folders in texts: a path below a phase's folder is the same state in every phase.

Scripts save where they save: the best checkpoint by its path, the folder of the logs. Where that lies below
a folder that is another in each phase, the folder is compared by its placeholder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

#: The folder that a resumed run was told to load from, and the one that a run saves to.
LOAD, SAVE = "${CHECKPOINT_LOAD_PATH}", "${CHECKPOINT_SAVE_PATH}"
_BEFORE = r"(?<![0-9A-Za-z_./-])"
_AFTER = r"(?![0-9A-Za-z_.-])"


class Places:
    """Replaces folders by their placeholders.

    Args:
        folders: (regular expression of a path, what stands for it), the longest first.
    """

    def __init__(self, folders: Iterable[tuple[str, str]] = ()) -> None:
        self._folders = [(re.compile(f"{_BEFORE}(?:{path}){_AFTER}"), stands) for path, stands in folders]

    def hide(self, text: str) -> str:
        """The text with placeholders."""
        if not self._folders or ("/" not in text and os.sep not in text and not self._short(text)):
            return text
        for path, stands in self._folders:
            text = path.sub(stands.replace("\\", r"\\"), text)
        return text

    def hide_in_name(self, text: str) -> str:
        """The same for a key: an entry is called alike wherever it was loaded from."""
        return self.hide(text).replace(LOAD, SAVE)

    def _short(self, text: str) -> bool:
        """Whether the whole of a text is a folder that was named without any separator."""
        return any(path.fullmatch(text) for path, _ in self._folders)


def of_checkpoints(*paths: Path) -> Places:
    """Those of checkpoints that are looked at by themselves: their folders, and those that they lie in."""
    own, above = [], []
    for path in paths:
        folder = path if path.is_dir() else path.parent
        own += [(each, "${CHECKPOINT}") for each in _spellings(folder)]
        parent = folder.resolve().parent
        if len(parent.parts) > 1:
            above += [(each, "${CHECKPOINTS}") for each in _spellings(parent)]
    return Places((*own, *above))


def of_results(folder: Path, cwd: Path | None = None) -> Places:
    """Those of a cell: ``checkpoints/<phase>`` and ``<phase>`` below the folder of its results.

    Args:
        cwd: where its scripts are started; paths may be relative to it.
    """
    found = []
    relative = [re.escape(os.path.relpath(folder, cwd))] if cwd is not None else []
    for each in (*_spellings(folder), *relative):
        found += [(f"{each}/checkpoints/[a-z]+-from", LOAD)]
        found += [(f"{each}/checkpoints/[0-9A-Za-z_.-]+", SAVE)]
        found += [(f"{each}/[0-9A-Za-z_.-]+", "${OUTPUT_PATH}")]
    return Places(found)


def _spellings(folder: Path) -> list[str]:
    """A folder as it was named, absolute, and with links followed."""
    named = [str(folder), os.path.abspath(folder), os.path.realpath(folder)]
    wanted = [name for name in dict.fromkeys(named) if name not in (".", "..", "/")]
    return [re.escape(name) for name in sorted(wanted, key=len, reverse=True)]
