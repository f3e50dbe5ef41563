"""What is left out of a comparison of saved states: by whom, and why.

There is no list of words that waives state. A rule comes from one of three places, and each that left
something out is shown in the verdict with its reason.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from harness.checkpoints.coverage import AppliedRule, Where

#: In a rule that was observed: a number, a time or an id in a name, which is another in every run.
ANY = "#"
_ID = r"[#0-9A-Za-z_-]+"
#: What stands between the separators of logs, tables and records.
_WORD = re.compile(r"[^\s,;=|:{}()\[\]\"']+")
_TOKEN = re.compile(r"[0-9A-Za-z]*\d[0-9A-Za-z]*")


@dataclass(frozen=True)
class Rule:
    """Entries that are no state.

    Args:
        where: who says so.
        entry: pattern of their names inside their file, as a shell has them; where it was observed, the name.
        reason: why.
        file: pattern of the files that they lie in, relative to the checkpoint; empty for any. Where it was
            observed, ``#`` stands for a number or an id, and all else for itself.
        words: of a text, the places of the words that are no state, from 0, of a list those of its elements;
            empty for all of the entry.
        when: one of :data:`~harness.checkpoints.conditions.CONDITIONS`: of an uninterrupted run and a resumed
            one, the entry is left out only where its two values differ so; empty for always.
        but: patterns of names that it does not leave out.
    """

    where: Where
    entry: str
    reason: str
    file: str = ""
    words: tuple[int, ...] = ()
    when: str = ""
    but: tuple[str, ...] = ()

    def matches(self, key: str, files: Iterable[str]) -> bool:
        """Whether it leaves out the name ``key`` of these files."""
        if not self._entry.fullmatch(key) or any(one.fullmatch(key) for one in self._but):
            return False
        return not self.file or any(self._file.fullmatch(file) for file in files)

    @cached_property
    def _entry(self) -> re.Pattern[str]:
        # What was observed is a name, to the letter.
        return re.compile(re.escape(self.entry)) if self.where == "observed" else _compiled(self.entry)

    @cached_property
    def _but(self) -> tuple[re.Pattern[str], ...]:
        return tuple(map(_compiled, self.but))

    @cached_property
    def _file(self) -> re.Pattern[str]:
        if self.where != "observed":
            return _compiled(self.file)
        return re.compile(_ID.join(map(re.escape, self.file.split(ANY))), re.DOTALL)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        written = {"entry": self.entry, "file": self.file, "reason": self.reason}
        return {**written, "words": list(self.words)} if self.words else written

    @classmethod
    def observed(cls, written: Mapping[str, Any]) -> Rule:
        """Of what :meth:`as_dict` wrote, in a golden's provenance."""
        entry, reason, file = (str(written.get(key, "")) for key in ("entry", "reason", "file"))
        words = written.get("words")
        places = words if isinstance(words, list) else []
        return cls("observed", entry, reason, file, tuple(place for place in places if type(place) is int))


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))


def differing_words(one: str, other: str) -> tuple[int, ...]:
    """The places of the words in which two texts differ; none where it is all of them, or their number."""
    left, right = (_WORD.findall(text) for text in (one, other))
    apart = [i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b]
    return tuple(apart) if len(left) == len(right) > len(apart) else ()


def without_words(text: str, places: Iterable[int]) -> str:
    """The text with other words at these places."""
    hidden, at = set(places), itertools.count()
    return _WORD.sub(lambda found: ANY if next(at) in hidden else found[0], text)


def with_ids(name: str) -> str:
    """A name in which what holds a digit stands for any id."""
    return _TOKEN.sub(ANY, name)


class Rules:
    """Rules in the order in which they are asked, and what each has left out.

    Args:
        rules: the first that matches counts.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._matched: dict[Rule, set[str]] = {rule: set() for rule in rules}

    def asked(self, name: str, key: str, files: Iterable[str]) -> Rule | None:
        """The rule that leaves ``name`` out, or some words of it; None without one. Remembers it.

        Several rules for words of one text are one that has the words of all.
        """
        words: set[int] = set()
        found = None
        for rule, names in self._matched.items():
            if not rule.when and rule.matches(key, files):
                names.add(name)
                if not rule.words:
                    return rule
                words.update(rule.words)
                found = rule
        return replace(found, words=tuple(sorted(words))) if found else None

    def conditional(self, key: str, files: Iterable[str]) -> Rule | None:
        """The rule that leaves a name out where its two values differ as it says; None without one."""
        return next((rule for rule in self._matched if rule.when and rule.matches(key, files)), None)

    def met(self, rule: Rule, name: str) -> None:
        """They do."""
        self._matched[rule].add(name)

    def applied(self) -> tuple[AppliedRule, ...]:
        """All of them; those of a trainer's table only where they matched, for most never do."""
        return tuple(
            AppliedRule(rule.where, rule.entry, rule.reason, len(names), rule.file)
            for rule, names in self._matched.items()
            if names or rule.where == "case"
        )
