"""One digest a component, whatever the files and the layout."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.checkpoints import components, stamped
from harness.checkpoints.checkpoint import Checkpoint, open_checkpoint
from harness.checkpoints.coverage import Coverage
from harness.checkpoints.entries import Entry, Part, Reader, alone, original
from harness.checkpoints.gaps import find_gaps
from harness.checkpoints.ledger import Ledger
from harness.checkpoints.places import Places
from harness.checkpoints.rules import Rule
from harness.errors import CheckpointError

#: More plain values than these (a tokenizer's table) are hashed with all else.
_SEPARATE = 2000
_ONE = ("float", "value")


@dataclass(frozen=True)
class Fingerprint:
    """A saved state in a few hashes.

    Args:
        digests: SHA-256 by component.
        coverage: what they are made of.
        values: of plain values (a number, a text) by component and name, the beginning of a SHA-256 each;
            they are in no digest, for one that turns out to be a circumstance must not spoil it.
        unread: files that could not be read, or not all of them, and why.
    """

    digests: Mapping[str, str]
    coverage: Coverage
    values: Mapping[str, Mapping[str, str]]
    unread: Mapping[str, str] = field(default_factory=dict)


def fingerprint(path: Path) -> dict[str, str]:
    """SHA-256 of each component's state, plain values and all; as :func:`fingerprint_of`, without rules."""
    found = fingerprint_of(Path(path))
    digests = dict(found.digests)
    for component, values in found.values.items():
        whole = hashlib.sha256(digests.get(component, "").encode())
        for name, value in sorted(values.items()):
            whole.update(f"\0{name}\0{value}".encode("utf-8", "surrogatepass"))
        digests[component] = whole.hexdigest()
    return dict(sorted(digests.items()))


def fingerprint_of(
    path: Path,
    rules: Iterable[Rule] = (),
    places: Places | None = None,
    *,
    only: Collection[str] | None = None,
) -> Fingerprint:
    """SHA-256 of each component's state.

    Over names in order, each with dtype, shape and bytes, so equal for both formats and for every
    layout in which the state is equal. Only ``rng``, one stream a rank, belongs to its layout. What is as it
    must be adds nothing: copies that equal what they are copies of, and a state that lacks nothing.

    Args:
        rules: what is no state, and left out.
        places: folders that stand in names and texts by their placeholders; None: none.
        only: the components that are asked for; None: all.

    Raises:
        CheckpointError: torn, incomplete, or it would need code to be read.
    """
    rules = tuple(rules)
    checkpoint = stamped.as_observed(open_checkpoint(path, places), rules)
    ledger = Ledger((checkpoint,), rules)
    judged = sorted(ledger.judged(checkpoint).items())
    apart = sum(entry.plain in _ONE for _, entry in judged) <= _SEPARATE
    digests: dict[str, hashlib._Hash] = {}
    values: dict[str, dict[str, str]] = {}
    with Reader() as reader:
        for name, entry in judged:
            if only is not None and entry.component not in only:
                continue
            head = f"{name}\0{entry.dtype}\0{list(entry.shape)}\0".encode("utf-8", "surrogatepass")
            if apart and entry.plain in _ONE and ledger.conditional(checkpoint, entry) is None:
                value = hashlib.sha256(head + (entry.data or b"")).hexdigest()[:16]
                values.setdefault(entry.component, {})[name] = value
                continue
            digest = digests.setdefault(entry.component, hashlib.sha256())
            try:
                if not _is_tied(checkpoint, entry, reader):
                    _add(digest, entry, head, reader)
            except CheckpointError as error:
                if entry.incomplete():
                    raise
                ledger.missed(entry, checkpoint.files_of(entry), str(error))
    for gap in find_gaps(checkpoint):
        digests.setdefault(gap.component, hashlib.sha256()).update(f"\0gap\0{gap.sentence}\0".encode())
    found = {
        component: digest.hexdigest()
        for component, digest in sorted(digests.items())
        if only is None or component in only
    }
    return Fingerprint(found, ledger.coverage(), values, ledger.reasons)


def _add(digest: hashlib._Hash, entry: Entry, head: bytes, reader: Reader) -> None:
    digest.update(head)
    for _, bits in reader.stream(entry):
        digest.update(bits.data)
    for copy in entry.copies:
        _add_odd_copy(digest, entry, copy, reader)


def _add_odd_copy(digest: hashlib._Hash, entry: Entry, copy: Part, reader: Reader) -> None:
    """A replica that is not what it is a replica of."""
    one, two = alone(entry, original(entry, copy)), alone(entry, copy)
    if _same(one, two, reader):
        return
    digest.update(f"{entry.name}\0copy\0{list(copy.offsets)}\0{list(copy.sizes)}\0".encode())
    for _, bits in reader.stream(two):
        digest.update(bits.data)


def _is_tied(checkpoint: Checkpoint, entry: Entry, reader: Reader) -> bool:
    """A copy that only pipelined layouts hold, equal to what it is a copy of."""
    source = checkpoint.entries.get(components.tied_source(entry.name) or "")
    if source is None or (source.dtype, source.shape) != (entry.dtype, entry.shape):
        return False
    return _same(source, entry, reader)


def _same(a: Entry, b: Entry, reader: Reader) -> bool:
    both = zip(reader.stream(a), reader.stream(b), strict=True)
    return all(one.tobytes() == two.tobytes() for (_, one), (_, two) in both)
