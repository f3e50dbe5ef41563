"""One digest a component, whatever the files and the layout."""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.checkpoints import components
from harness.checkpoints.checkpoint import Checkpoint, open_checkpoint
from harness.checkpoints.entries import Entry, Reader


def fingerprint(path: Path) -> dict[str, str]:
    """SHA-256 of each component's state.

    Over names in order, each with dtype, shape and bytes, so equal for both formats and for every
    layout in which the state is equal. Only ``rng``, one stream a rank, belongs to its layout.

    Raises:
        CheckpointError: torn, incomplete, or it would need code to be read.
    """
    checkpoint = open_checkpoint(Path(path))
    digests: dict[str, hashlib._Hash] = {}
    with Reader() as reader:
        for name in checkpoint.names():
            entry = checkpoint.entries[name]
            if not entry.state or _is_tied(checkpoint, entry, reader):
                continue
            digest = digests.setdefault(entry.component, hashlib.sha256())
            digest.update(f"{name}\0{entry.dtype}\0{list(entry.shape)}\0".encode())
            for _, bits in reader.stream(entry):
                digest.update(bits.data)
    return {component: digest.hexdigest() for component, digest in sorted(digests.items())}


def _is_tied(checkpoint: Checkpoint, entry: Entry, reader: Reader) -> bool:
    """A copy that only pipelined layouts hold, equal to what it is a copy of."""
    source = checkpoint.entries.get(components.tied_source(entry.name) or "")
    if source is None or (source.dtype, source.shape) != (entry.dtype, entry.shape):
        return False
    both = zip(reader.stream(source), reader.stream(entry), strict=True)
    return all(one.tobytes() == two.tobytes() for (_, one), (_, two) in both)
