"""What a golden's file name says, in any of the schemes that stores in the wild have grown.

``golden_values_<track>_<platform>.json`` and ``golden_values_<track>.json`` are what a run looks
for. The others (``golden_values.json``, ``…_dgxh100_coreweave.json``, ``…_0.13.0_dgx_h100_dev.json``,
``…_2nd.json``) are read by name all the same, so that a whole store can be accounted for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.matrix import HARDWARE, MEGATRON_ON_CPU, TRACKS

_STEM = "golden_values"
_TRACKS = ("lts", "dev")  # those of Megatron-LM, whatever a repository's own are
_VERSION = re.compile(r"(?:TE|PyT)?\d+\.\d+(?:\.\d+)?\w*")
_JOINED = re.compile(r"dgx([a-z]+\d+)")
_HARDWARE = re.compile(r"[a-z]+\d+")


@dataclass(frozen=True)
class GoldenName:
    """A golden's file name, taken apart.

    Args:
        given: the name itself.
        track, platform: as in our own scheme; None when the name does not say.
        version: a release's number, when it is one's golden.
        words: what else the name holds (clusters, mostly).
        second_run: the series of a resumed run, which nothing is compared with.
    """

    given: str
    track: str | None = None
    platform: str | None = None
    version: str | None = None
    words: tuple[str, ...] = ()
    second_run: bool = False

    @property
    def used(self) -> bool:
        """Whether a run of its track, on its platform or on any, opens a file of that name."""
        return self.track is not None and self.given == self.file

    @property
    def file(self) -> str:
        """The name in our own scheme, without what has no place in it."""
        parts = [_STEM, self.track, self.platform]
        return "_".join(part for part in parts if part) + ".json"


def parse(file: str) -> GoldenName | None:
    """Take ``file`` apart; None when it is no golden by its name."""
    stem = file.removesuffix(".json")
    if stem == file or not (stem == _STEM or stem.startswith(_STEM + "_")):
        return None
    words = stem.removeprefix(_STEM).strip("_").split("_") if stem != _STEM else []
    second = bool(words) and words[-1] == "2nd"
    if second:
        words.pop()
    track = platform = version = None
    others: list[str] = []
    while words:
        ours = _platform(words) if platform is None else None
        if ours:
            platform = ours
            del words[: len(ours.split("_"))]
            continue
        word = words.pop(0)
        joined = _JOINED.fullmatch(word)
        if track is None and (word in _TRACKS or word in TRACKS):
            track = word
        elif word == "dgx" and words and _HARDWARE.fullmatch(words[0]) and platform is None:
            platform = f"dgx_{words.pop(0)}"
        elif joined and platform is None:
            platform = f"dgx_{joined[1]}"
        elif _VERSION.fullmatch(word):
            version = f"{version}_{word}" if version else word
        else:
            others.append(word)
    return GoldenName(file, track, platform, version, tuple(others), second)


def _platform(words: Sequence[str]) -> str | None:
    """The platform of this repository with which ``words`` begin; the longest."""
    known = (*(one.platform for one in HARDWARE.values()), MEGATRON_ON_CPU)
    names = sorted(known, key=len, reverse=True)
    return next((name for name in names if words[: name.count("_") + 1] == name.split("_")), None)
