"""Sentences of a verdict without the absolute paths of the machine that it was made on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.diagnosis import Diagnosis
    from harness.protocol.plan import Plan

#: A path does not begin within another, and ends where its last name does.
_BEFORE, _AFTER = r"(?<![\w./~-])", r"(?P<rest>/+(?=[\w.~-])|(?![\w-]|\.\w))"


@dataclass(frozen=True)
class Relative:
    """Says paths relative to where a reader has them.

    Args:
        roots: folders that paths are said relative to; the innermost counts.
        kept: texts that stay as they are: commands that must work when they are copied.
    """

    roots: tuple[Path, ...]
    kept: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: Plan, results: Path) -> Relative:
        """For one cell: to the folder of its results, of the goldens' and the case's folder, and to here."""
        above = (plan.goldens.parent, plan.results.parent, plan.case.directory.parent)
        return cls((results, *above, Path.cwd()), (plan.record_command, plan.reproduce))

    def text(self, said: str) -> str:
        """A sentence."""
        kept = [text for text in sorted(self.kept, key=len, reverse=True) if text]
        parts = re.split(f"({'|'.join(map(re.escape, kept))})", said) if kept else [said]
        return "".join(part if part in kept else self._plain(part) for part in parts)

    def check(self, check: Check) -> Check:
        """With another message."""
        return replace(check, message=self.text(check.message))

    def diagnosis(self, found: Diagnosis | None) -> Diagnosis | None:
        """With other evidence."""
        if found is None:
            return None
        candidates = (
            replace(one, speaks_for=self._all(one.speaks_for), against=self._all(one.against))
            for one in found.candidates
        )
        return replace(found, evidence=self._all(found.evidence), candidates=tuple(candidates))

    def _all(self, said: Iterable[str]) -> tuple[str, ...]:
        return tuple(self.text(sentence) for sentence in said)

    def _plain(self, said: str) -> str:
        if "/" not in said:
            return said
        given = {str(path.absolute()) for path in self.roots} | {str(path.resolve()) for path in self.roots}
        for root in sorted(given - {"/"}, key=len, reverse=True):
            said = re.sub(f"{_BEFORE}{re.escape(root)}{_AFTER}", lambda m: "" if m["rest"] else ".", said)
        return said
