"""When a rule lets two values differ: where the second came of the first in the way that its reason says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Final

from harness.checkpoints.streams import words_between

#: Gets both values; says what is not as the rule has it, and nothing where it is.
Condition = Callable[[bytes, bytes], str]

#: A condition's name: the second stream is the first one, some draws of a loader's seed further on.
SEEDS_DRAWN: Final = "seeds-drawn"
#: A condition's name: the second whole number is one less than the first.
ONE_LESS: Final = "one-less"
_INT = 8  # bytes
#: A seed is an int64: two words of the generator.
_WORDS_OF_A_SEED = 2
#: A loader for training, one for validation, one for testing, in each of 32 virtual stages.
MOST_SEEDS: Final = 3 * 32


def seeds_drawn(before: bytes, after: bytes) -> str:
    """Whether ``after`` is ``before`` and a whole number of a loader's seeds, which is not too large."""
    words = words_between(before, after)
    if words is None:
        behind = words_between(after, before)
        if behind:
            return f"it stands {behind} words behind the other stream"
        return "it is not the other stream, further on"
    seeds, odd = divmod(words, _WORDS_OF_A_SEED)
    if odd:
        return f"it is {words} words further on, and no whole number of a loader's seeds has so many"
    if seeds > MOST_SEEDS:
        return f"it is {seeds} of a loader's seeds further on, expected at most {MOST_SEEDS}"
    return ""


def one_less(before: bytes, after: bytes) -> str:
    """Whether both are whole numbers, and ``after`` is one less than ``before``."""
    if len(before) != _INT or len(after) != _INT:
        return "they are no whole numbers"
    one, two = (int.from_bytes(value, sys.byteorder, signed=True) for value in (before, after))
    return "" if one - two == 1 else f"it is {one - two} less than the other, expected 1"


CONDITIONS: Final[Mapping[str, Condition]] = {SEEDS_DRAWN: seeds_drawn, ONE_LESS: one_less}
