"""Whether a state of torch's random generator on the host came of another one: how many words lie between.

The layout is what ``torch.get_rng_state()`` copies out of memory: the seed, the place in the block, the 624
words of the Mersenne Twister, each in 8 bytes, and what is kept of a normal distribution's pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIZE = 5056
_WORDS = 624
#: The number of words left, the next one's place, the block; all other bytes say nothing of the place.
_LEFT, _NEXT, _BLOCK = slice(8, 12), slice(16, 24), slice(24, 24 + 8 * _WORDS)
_BLOCKS = 64  # more of them between two states are looked for by nobody


@dataclass(frozen=True)
class _Place:
    """Where a stream stands: ``position`` words of its block are used up; ``rest`` is all else."""

    block: NDArray[np.uint64]
    position: int
    rest: bytes


def words_between(before: bytes, after: bytes) -> int | None:
    """How many 32-bit words were drawn from ``before`` to come to ``after``; 0 where they are equal.

    Returns:
        None where ``after`` did not come of ``before`` by draws of whole words: another seed, a cached normal
        number that is another, a place before it, or too far on to be looked for.
    """
    import numpy as np

    if before == after:
        return 0
    one, two = _place(before), _place(after)
    if one is None or two is None or one.rest != two.rest:
        return None
    block, drawn = one.block, -one.position
    for _ in range(_BLOCKS):
        if np.array_equal(block, two.block):
            words = drawn + two.position
            return words if words > 0 else None
        block, drawn = _following(block), drawn + _WORDS
    return None


def _place(state: bytes) -> _Place | None:
    """None where that is no such state."""
    import numpy as np

    if len(state) != SIZE:
        return None
    left, following = int.from_bytes(state[_LEFT], "little"), int.from_bytes(state[_NEXT], "little")
    block = np.frombuffer(state[_BLOCK], "<u8")
    # One that was only seeded has a word left, as one has that is used up: the next begins a block.
    fresh = (left, following) == (1, 0)
    if not fresh and (not 1 <= left <= _WORDS or following != _WORDS + 1 - left):
        return None
    if int(block.max()) >> 32:
        return None
    rest = state[: _LEFT.start] + state[_LEFT.stop : _NEXT.start] + state[_BLOCK.stop :]
    return _Place(block, _WORDS if fresh else following, rest)


def _following(block: NDArray[np.uint64]) -> NDArray[np.uint64]:
    import numpy as np

    twister = np.random.MT19937()
    key = block.astype(np.uint32)
    twister.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": _WORDS}}
    twister.random_raw(1)
    state = twister.state["state"]
    assert isinstance(state, dict)
    found: NDArray[np.uint64] = np.asarray(state["key"]).astype("<u8")
    return found
