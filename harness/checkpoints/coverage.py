"""What of a saved state was compared, what was left out by a rule, and what was not looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from harness.text import count

#: Where a rule comes from: the trainer's own table, the case file, or two uninterrupted runs that differ.
Where = Literal["trainer", "case", "observed"]


@dataclass(frozen=True)
class Count:
    """How many of a kind ended where.

    Args:
        compared: their content was looked at on both sides.
        excluded: left out by a rule.
        uncompared: neither; one of them is enough to make a cell red.
    """

    compared: int = 0
    excluded: int = 0
    uncompared: int = 0


@dataclass(frozen=True)
class AppliedRule:
    """A rule, and what it left out.

    Args:
        where: who made it.
        entry: the pattern of the names that it leaves out.
        reason: why they are no state.
        matched: how many entries it left out; 0 for one that has nothing to do here.
        file: the pattern of the files that it holds for; empty for all.
    """

    where: Where
    entry: str
    reason: str
    matched: int
    file: str = ""

    def sentence(self) -> str:
        """``observed: elapsed_s in step_#.json: 1 entry: two uninterrupted runs do not share it``."""
        where = f"{self.entry} in {self.file}" if self.file else self.entry
        many = f"{self.matched} {_entries(self.matched)}" if self.matched else "matched nothing"
        return f"{self.where}: {where}: {many}: {self.reason}"


@dataclass(frozen=True)
class Coverage:
    """The ledger of a comparison of two saved states: every file, entry and copy is in one of three places.

    Args:
        files: of either side.
        entries: names of either side.
        copies: replicas of entries, saved by several ranks.
        rules: those that there were, also where they matched nothing.
    """

    files: Count = field(default_factory=Count)
    entries: Count = field(default_factory=Count)
    copies: Count = field(default_factory=Count)
    rules: tuple[AppliedRule, ...] = ()

    @property
    def uncompared(self) -> int:
        """Everything that nobody looked at."""
        return self.files.uncompared + self.entries.uncompared + self.copies.uncompared

    def sentence(self) -> str:
        """``1,204 entries in 9 files compared, 3 excluded by 2 rules, 0 uncompared``."""
        entries, files = self.entries, self.files
        said = (
            f"{entries.compared:,} {_entries(entries.compared)} in {count(files.compared, 'file')} compared"
        )
        if self.copies.compared:
            said += f", with {self.copies.compared:,} cop{'y' if self.copies.compared == 1 else 'ies'}"
        used = sum(rule.matched > 0 for rule in self.rules)
        said += f", {entries.excluded:,} excluded" + (f" by {count(used, 'rule')}" if used else "")
        return f"{said}, {self.uncompared:,} uncompared"


def _entries(number: int) -> str:
    return "entry" if number == 1 else "entries"
