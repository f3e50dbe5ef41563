"""What a checkpoint holds, component by component."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff

_KEEPS_COUNT = re.compile(r"(?:.*/)?trainer_state\.json")


def held(diff: StateDiff | None) -> Mapping[str, int] | None:
    """How many names of each component a side holds; None where it cannot be read."""
    from harness.checkpoints import open_checkpoint
    from harness.checkpoints.entries import UNREAD
    from harness.errors import CheckpointError

    if diff is None:
        return None
    try:
        entries = open_checkpoint(Path(diff.a)).entries.values()
        return Counter(entry.component for entry in entries if entry.dtype != UNREAD)
    except CheckpointError:
        return None


def counts_only(diff: StateDiff | None) -> bool:
    """Whether all that a state says of the data is how much was read.

    Among a script's arguments, or where transformers' Trainer keeps its counts. A count is right also where
    something else was read.
    """
    from harness.checkpoints import open_checkpoint
    from harness.errors import CheckpointError

    if diff is None:
        return False
    try:
        entries = open_checkpoint(Path(diff.a)).entries.values()
    except CheckpointError:
        return False
    held = [entry for entry in entries if entry.component == "data-order" and entry.data != b""]
    return bool(held) and all(
        entry.key.startswith("args.") or _KEEPS_COUNT.fullmatch(entry.file) for entry in held
    )
