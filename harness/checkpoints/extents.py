"""How much a file may say of its tensors: ten bytes can stand for more than any memory holds."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable

from harness.errors import CheckpointError

#: No tensor has a size beyond: torch counts in 64 bits. Nor more dimensions.
SIZES = range(1 << 63)
MOST_DIMENSIONS = 64
#: What tensors may have in all, as a multiple of the bytes that are stored, and in any case: a tensor that
#: was expanded repeats its bytes, and ten bytes may stand for one that nobody could read to its end.
EXPANDED_LIMIT, EXPANDED_FREE = 64, 256 << 20


class Extent:
    """How many bytes the tensors of a file have, as they are read; views of the same bytes count again.

    Args:
        where: the file, for messages.
        stored: its bytes.
    """

    __slots__ = ("most", "taken", "where")

    def __init__(self, where: str, stored: int) -> None:
        self.where, self.taken = where, 0
        self.most = max(EXPANDED_FREE, EXPANDED_LIMIT * stored)

    def take(self, itemsize: int, sizes: Iterable[int]) -> None:
        """Count one more tensor.

        Args:
            itemsize: bytes per element.
            sizes: its shape.

        Raises:
            CheckpointError: all of them have far more bytes than are stored.
        """
        shape = tuple(sizes)
        self.taken += math.prod(shape) * itemsize
        if self.taken > self.most:
            raise CheckpointError(
                f"{self.where}: a tensor of shape {reprlib.repr(list(shape))} repeats what is stored: "
                f"found {min(self.taken, 10**18):.3g} bytes of tensors or more, expected at most "
                f"{self.most:.3g} of so few stored",
                "save tensors that were expanded as .clone(), or leave them out",
            )
