"""Where every file, entry and copy of saved states ended: compared, left out by a rule, or neither."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.checkpoints import formats
from harness.checkpoints.checkpoint import Checkpoint
from harness.checkpoints.coverage import AppliedRule, Count, Coverage
from harness.checkpoints.entries import UNREAD, Entry
from harness.checkpoints.places import LOAD, SAVE
from harness.checkpoints.rules import Rule, Rules

_LOADS = "the folder that the resumed run was told to load from, which no other run was"
_PER_RANK = "one rank's own, and the other layout has other ranks: it has no counterpart there"


class Ledger:
    """Sorts the entries of one or two checkpoints by the rules.

    Args:
        checkpoints: one, or both sides of a comparison.
        rules: what is left out; a name that a rule leaves out on one side is left out on both.
        apart: the two were saved by different layouts.
    """

    def __init__(
        self, checkpoints: Sequence[Checkpoint], rules: Iterable[Rule], *, apart: bool = False
    ) -> None:
        self._checkpoints = checkpoints
        self._rules = Rules([*rules, *formats.RULES])
        self.per_rank: set[str] = set()
        self._loads: set[str] = set()
        self._words: dict[str, tuple[int, ...]] = {}
        excluded: set[str] = set()
        for checkpoint in checkpoints:
            for name, entry in checkpoint.entries.items():
                if apart and entry.per_rank:
                    self.per_rank.add(name)
                elif _is_load(entry) and not any(_is_state(side.entries.get(name)) for side in checkpoints):
                    self._loads.add(name)
                elif rule := self._rules.asked(name, entry.key or name, checkpoint.files_of(entry)):
                    if rule.words and (entry.dtype == "text" or entry.plain == "list"):
                        self._words[name] = rule.words
                    else:
                        excluded.add(name)
        excluded |= self._loads
        self.excluded = frozenset(excluded | self.per_rank)
        self.unread = frozenset(
            name
            for checkpoint in checkpoints
            for name, entry in checkpoint.entries.items()
            if entry.dtype == UNREAD and name not in self.excluded
        )
        files = {entry.unread_file for side in checkpoints for entry in side.entries.values()} - {""}
        if files:
            # What the other side holds in a file that cannot be read here has nothing to be compared with.
            self.unread |= {
                name
                for side in checkpoints
                for name, entry in side.entries.items()
                if name not in self.excluded and files.issuperset(side.files_of(entry) or {""})
            }
        self._reasons = {
            entry.file: entry.reason
            for side in checkpoints
            for name, entry in side.entries.items()
            if entry.reason and name in self.unread
        }
        self._as_allowed: set[str] = set()

    def missed(self, entry: Entry, files: Iterable[str], reason: str) -> None:
        """An entry turns out to be unreadable when it is read."""
        self.unread |= {entry.name}
        self._reasons.update((file, reason) for file in files)

    @property
    def reasons(self) -> dict[str, str]:
        """Why files, or something in them, could not be read."""
        return dict(sorted(self._reasons.items()))

    def judged(self, checkpoint: Checkpoint) -> dict[str, Entry]:
        """The entries that must be compared; without the words that are left out of texts."""
        left_out = self.excluded | self.unread
        kept = {name: entry for name, entry in checkpoint.entries.items() if name not in left_out}
        for name in self._words.keys() & kept.keys():
            kept[name] = kept[name].without_words(self._words[name])
        # What was loaded is what had been saved: a path below either is one and the same.
        return {name: _as_saved(entry) for name, entry in kept.items()}

    def conditional(self, checkpoint: Checkpoint, entry: Entry) -> Rule | None:
        """The rule by which the values of an entry may differ in one way; None where in no way."""
        return self._rules.conditional(entry.key or entry.name, checkpoint.files_of(entry))

    def met(self, rule: Rule, name: str) -> None:
        """The values of a name differ in that way: it is left out."""
        self._rules.met(rule, name)
        self._as_allowed.add(name)

    def coverage(self) -> Coverage:
        """The sums; what is not read was not compared."""
        missed = self.unread
        files: dict[str, set[str]] = {}
        names: set[str] = set()
        copies: dict[str, int] = {}
        for checkpoint in self._checkpoints:
            held: dict[str, set[str]] = {file: set() for file in checkpoint.files}
            for name, entry in checkpoint.entries.items():
                names.add(name)
                copies[name] = max(copies.get(name, 0), len(entry.copies))
                for file in checkpoint.files_of(entry):
                    held.setdefault(file, set()).add(self._place(name, missed))
            for file in checkpoint.structure:
                held.setdefault(file, set()).add("compared")
            for file, places in held.items():
                files.setdefault(file, set()).update(places or {"uncompared"})
        rules = self._rules.applied()
        for left_out, reason in ((self.per_rank, _PER_RANK), (self._loads, _LOADS)):
            if left_out:
                rules = (*rules, AppliedRule("trainer", "*", reason, len(left_out)))
        return Coverage(
            files=_count([_of_file(places) for places in files.values()]),
            entries=_count([self._place(name, missed) for name in names]),
            copies=_count([self._place(name, missed) for name, n in copies.items() for _ in range(n)]),
            rules=rules,
        )

    def _place(self, name: str, missed: frozenset[str]) -> str:
        if name in missed:
            return "uncompared"
        return "excluded" if name in self.excluded or name in self._as_allowed else "compared"


def _is_load(entry: Entry) -> bool:
    """Whether a text begins with the folder that the resumed run was told to load from."""
    return entry.dtype == "text" and (entry.data or b"").startswith(LOAD.encode())


def _is_state(entry: Entry | None) -> bool:
    """Whether the other side holds anything beside such a path: nothing, or the like, is no state."""
    return entry is not None and not _is_load(entry) and bool(entry.data or entry.parts)


def _as_saved(entry: Entry) -> Entry:
    if entry.dtype != "text" or LOAD.encode() not in (entry.data or b""):
        return entry
    data = (entry.data or b"").replace(LOAD.encode(), SAVE.encode())
    return replace(entry, data=data, shape=(len(data),))


def _of_file(places: set[str]) -> str:
    """A file is where the worst of what it holds is; one that is left out only in part was looked at."""
    return next(place for place in ("uncompared", "compared", "excluded") if place in places)


def _count(places: Iterable[str]) -> Count:
    found = Counter(places)
    return Count(found["compared"], found["excluded"], found["uncompared"])
