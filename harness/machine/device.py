"""A GPU, or a slice of one, whoever made it. Standard library only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from harness.matrix import HARDWARE

_AMD: Final = re.compile(r"MI\d+[A-Z]*")


@dataclass(frozen=True)
class Device:
    """A GPU, or a slice of one.

    Args:
        name: its product name, e.g. ``NVIDIA H100 80GB HBM3``.
        index: its number, in the order of the bus; a slice has that of its GPU.
        uuid: its own name, as the variable of visible devices takes it.
        memory: bytes; 0 when the driver does not say.
        mig: the profile of a slice (``1g.10gb``), or the mode of a partition (``CPX``); empty for a whole.
    """

    name: str
    index: int
    uuid: str
    memory: int
    mig: str = ""

    @property
    def hardware(self) -> str | None:
        """Its key in :data:`HARDWARE`; None for a slice, and for what no golden is kept for.

        Words are compared whole: a GH200 is no H200, and a GB200 no B200.
        """
        words = set(re.split(r"[^A-Za-z0-9]+", self.name))
        kinds = (key for key, kind in HARDWARE.items() if words.intersection(kind.device_names))
        return None if self.mig else next(kinds, None)

    def __str__(self) -> str:
        if not self.mig:
            return self.name
        return f"{'partition' if is_amd(self.name.split()) else 'MIG'} {self.mig} of {self.name}"


def is_amd(words: Iterable[str]) -> bool:
    """Whether the words of a product's name, or of a kind of hardware, are AMD's (``MI300X``)."""
    return any(_AMD.fullmatch(word) for word in words)


def names_of(devices: Iterable[Device]) -> str:
    """``2 × NVIDIA A100-SXM4-80GB and 1 × …``."""
    counts: Mapping[str, int] = Counter(str(device) for device in devices)
    return " and ".join(f"{count} × {name}" for name, count in counts.items()) or "no GPU"
