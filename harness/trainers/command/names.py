"""What the name of a file or folder says of iterations, and how a whole folder counts them.

A name may hold several numbers (``ep0-ba20-rank0``, ``checkpoint_1_20``, ``step=7-consumed_samples=64.0``);
the word before each says what it counts. The same number means another iteration in another folder:
iterations are counted from 1 or from 0, and some count saves or epochs instead.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum


class Kind(IntEnum):
    """What the word before a number says that it counts, the surest first."""

    ITERATION = 0
    CHECKPOINT = 1
    BARE = 2
    EPOCH = 3


@dataclass(frozen=True)
class Named:
    """What one name says.

    Args:
        kind: what its numbers count.
        numbers: of that kind; one of them is the iteration's.
        pattern: the name without any number: names of one pattern are numbered alike.
    """

    kind: Kind
    numbers: tuple[int, ...]
    pattern: str


_NUMBER = re.compile(
    r"(?P<word>[A-Za-z]*)[-_=. :]*(?<!\d)(?P<number>\d+)(?P<fraction>\.\d+)?(?P<unit>[bmk](?![a-z]))?",
    re.IGNORECASE,
)
#: A word behind a number that has none of its own; Keras's metric behind an epoch.
_AFTER = re.compile(r"[-_ ]?(?P<word>[A-Za-z]+)(?![A-Za-z]|[-_=. ]*\d)")
_METRIC = re.compile(r"-\d\.\d+(?![A-Za-z\d])")
_OF = re.compile(r"\d+[-_ ]*of[-_ ]*\d+", re.IGNORECASE)
_SUFFIX = re.compile(r"\.(?:h5|hdf5|bz2|lz4|7z)\Z", re.IGNORECASE)
_WORDS = (
    (Kind.ITERATION, r"(?:.*(?:steps?|iter(?:ation)?s?|updates?)|it|itr|ba|batches)\Z"),
    (Kind.CHECKPOINT, r".*(?:checkpoints?|ch?kpts?)\Z"),
    (Kind.EPOCH, r"(?:.*epochs?|ep)\Z"),
    #: Numbers of something else.
    (
        None,
        r".*(?:ranks?|process(?:es)?|shards?|parts?|workers?|devices?|gpus?|nodes?|layers?|seeds?|folds?|samples?)\Z",
    ),
    (None, r"(?:.*(?:tokens?|loss|size|version)|tok|tp|pp|dp|cp|mp|fp|bf|v|ver|sp|acc|lr|bs)\Z"),
)
_KINDS = [(kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _WORDS]
_DIGITS = 12
#: A hash or a UUID: what looks like a word and a number in it (``ba8850``) is neither.
_HASH = re.compile(r"[0-9a-f]{16,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
#: So many numbers that may be an iteration's; a date has more.
_MOST = 2

#: Numbers that are all one less than a multiple of this, or of more, are no others' by chance.
_TELLING = 5

_STAGED = re.compile(
    r"(?:^|[^A-Za-z])tmp(?![A-Za-z])|^tmp[A-Za-z0-9_]{8}$"
    r"|[._-](?:temp|temporary|staging|partial|part|lock|writing)$",
    re.IGNORECASE,
)
_STAGED_FIRST = re.compile(r"(?:temp|temporary|staging|partial|writing)[._-]", re.IGNORECASE)
_MARKER = re.compile(
    r"[._-]*(?<![A-Za-z])(?:unfinished|incomplete|uncommitted|in[-_ ]?progress)(?![A-Za-z])[._-]*",
    re.IGNORECASE,
)


def staged(name: str) -> bool:
    """Whether it is being written under a name of its own: ``tmp-checkpoint-20``, ``step_20.pt.part``."""
    return _STAGED.search(name) is not None


def no_checkpoint(name: str) -> bool:
    """Whether a number in it names no checkpoint: temporary, hidden, or ``staging-…`` in words."""
    return name[:1] in "._" or temporary(name) or _STAGED_FIRST.match(name) is not None


def marked(name: str) -> str | None:
    """The name that a marker speaks of (``step_20-unfinished``: ``step_20``); None for what is no marker.

    One that stands inside a checkpoint (``UNFINISHED``) speaks of it without its name: "".
    """
    return _MARKER.sub("", name) if _MARKER.search(name) else None


def temporary(name: str) -> bool:
    """Staged, or marked as not finished."""
    return staged(name) or marked(name) is not None


def read(name: str) -> Named | None:
    """What a name says; None where it has no number that may be an iteration's."""
    if _HASH.fullmatch(name.partition(".")[0]) and not name.partition(".")[0].isdigit():
        return None
    found: dict[Kind, list[int]] = {}
    before: Kind | None = None
    text = _OF.sub(lambda of: "." * len(of[0]), _SUFFIX.sub("", name))
    for match in _NUMBER.finditer(text):
        kind: Kind | None = Kind.BARE
        if match["word"]:
            kind = next((kind for kind, words in _KINDS if words.match(match["word"])), Kind.BARE)
        elif match.start() > 0 and before in (Kind.ITERATION, Kind.CHECKPOINT):
            kind = before if before is Kind.CHECKPOINT else None  # checkpoint_1_20, but step_20_1
        if kind is Kind.BARE and not match["unit"]:
            kind = _behind(text[match.end() :], fraction=bool(match["fraction"]))
        unsure = match["unit"] or (match["fraction"] or "").strip(".0")
        if kind is not Kind.ITERATION and (unsure or match["fraction"]):
            kind = None
        before = kind
        if kind is not None and len(match["number"]) <= _DIGITS:
            found.setdefault(kind, []).append(int(match["number"]))
    if not found:
        return None
    best = min(found)
    if best is Kind.BARE and len(found[best]) > _MOST and Kind.EPOCH in found:
        best = Kind.EPOCH
    numbers = found[best]
    if best is Kind.ITERATION:
        numbers = numbers[-1:]
    return Named(best, tuple(numbers), re.sub(r"\d+", "#", name)) if len(numbers) <= _MOST else None


def _behind(rest: str, *, fraction: bool) -> Kind:
    """What a number counts by what follows it: ``2epoch.pth``, ``model_20_steps.zip``."""
    if match := _AFTER.match(rest):
        for kind, words in _KINDS:
            if kind in (Kind.ITERATION, Kind.EPOCH) and words.match(match["word"]):
                return kind
    return Kind.EPOCH if not fraction and _METRIC.match(rest) else Kind.BARE


@dataclass(frozen=True)
class Saves:
    """When a run saves, as far as that is known.

    Args:
        interval: iterations between two checkpoints.
        end: the iteration that it ended at; None while it runs.
    """

    interval: int = 1
    end: int | None = None


@dataclass(frozen=True)
class Counting:
    """How the names of a folder count: ``number`` is that of iteration ``(number + 1 - first) * every``."""

    every: int = 1
    first: int = 1

    def iteration(self, number: int) -> int:
        """The iteration that a number stands for."""
        return (number + 1 - self.first) * self.every

    def number(self, iteration: int) -> int:
        """The number of the checkpoint of an iteration."""
        return -(-iteration // self.every) - 1 + self.first


AS_THEY_ARE = Counting()


def counting(numbers: Collection[int], kind: Kind, k: int, saves: Saves, *, alone: bool) -> Counting | None:
    """How they count, so that one of them is iteration ``k``; None where none can be it.

    Args:
        numbers: of the names of a folder.
        kind: what they are said to count, the surest of them.
        k: the iteration that is looked for.
        saves: when the run saves, which tells numbers of iterations from those of saves.
        alone: the names are numbers and nothing else.
    """
    if not numbers:
        return None
    interval, end = saves.interval, saves.end
    # While a run goes on, a first name with a 0 is a save before the first step, or the first one behind it.
    unsure = end is None and interval == 1 and 0 in numbers
    if k in numbers and not (unsure and k > 0):
        multiples = all(number % interval == 0 or number == end for number in numbers)
        if multiples and (end is None or max(numbers) >= end):
            return AS_THEY_ARE
    for other in _others(numbers, kind, saves, alone=alone):
        if other.number(k) in numbers and (other.every == 1 or k % other.every == 0 or k == end):
            return other
    return AS_THEY_ARE if k in numbers and kind is not Kind.EPOCH and not unsure else None


def _others(numbers: Collection[int], kind: Kind, saves: Saves, *, alone: bool) -> list[Counting]:
    """In which other ways they may count, as far as all of them fit."""
    interval, end, least, most = saves.interval, saves.end, min(numbers), max(numbers)
    found = []
    if interval > 1:
        fits = all((number + 1) % interval == 0 or number + 1 == end for number in numbers)
        # One name alone may be what a run has left that ended an iteration too early.
        fits = fits and (end is None or most + 1 >= end or len(numbers) > 1)
        if fits and (kind is not Kind.BARE or alone or interval >= _TELLING):
            found.append(Counting(first=0))
    elif least == 0 and kind is not Kind.BARE and (kind is Kind.EPOCH if end is None else most == end - 1):
        found.append(Counting(first=0))
    # Of what counts nothing in so many words, and of a run that goes on, nobody can tell.
    counts_saves = kind is Kind.EPOCH or (kind is Kind.CHECKPOINT and end is not None)
    if interval > 1 and counts_saves:
        all_of_them = None if end is None else -(-end // interval)
        if least == 0 if all_of_them is None else most == all_of_them - 1:
            found.append(Counting(every=interval, first=0))
        if least == 1 if all_of_them is None else most == all_of_them:
            found.append(Counting(every=interval))
    if interval > 1 and kind is Kind.EPOCH and end is not None:
        found += _epochs(numbers, interval, end)
    return found


def _epochs(numbers: Collection[int], interval: int, end: int) -> list[Counting]:
    """Several epochs between two checkpoints, which the last of them ends: so many iterations each."""
    found = []
    for first in (1, 0):
        epochs = max(numbers) + 1 - first
        if epochs > 0 and end % epochs == 0:
            how = Counting(end // epochs, first)
            if all(how.iteration(n) % interval == 0 or how.iteration(n) == end for n in numbers):
                found.append(how)
    return found
