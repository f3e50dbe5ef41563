"""What random streams say of themselves beside their words: of other values no generator would be made."""

from __future__ import annotations

from collections.abc import Mapping

from harness.ablation.values import is_words
from harness.checkpoints.entries import Entry

_KINDS = (b"MT19937", b"PCG64", b"PCG64DXSM", b"Philox", b"SFC64")
_KIND = "it says of which kind a random stream is"
_VERSION = "it says how a random stream is written, of which the words are altered"
_PLACE = "it is the place in a random stream, of which the words are altered"
_WHICH = "it says which of many random streams it is, of which the words are altered"


def own(entries: Mapping[str, Entry]) -> dict[str, str]:
    """Why such entries are not altered, by name."""
    import numpy as np

    found: dict[str, str] = {}
    for name, entry in entries.items():
        base, dot, last = name.rpartition(".")
        if entry.dtype == "text" and entry.data in _KINDS:
            found[name] = _KIND
            if last == "0":  # numpy's: kind, words, place, and what is kept of a normal distribution's pairs
                found[f"{base}{dot}2"] = _PLACE
            else:
                found[f"{base}{dot}state.pos"] = _PLACE
                found[f"{base}{dot}state.inc"] = _WHICH
                found[f"{base}{dot}buffer_pos"] = _PLACE
        numbers = entry.data if entry.dtype == "Python int" and len(entry.shape) == 1 else None
        if last == "1" and numbers and is_words(np.frombuffer(numbers, "<i8")):
            found[f"{base}{dot}0"] = _VERSION  # Python's: version, words and place, the rest
    return {name: reason for name, reason in found.items() if name in entries}
