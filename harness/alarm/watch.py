"""What a night changes: which issue is opened, goes on, is closed. Decides only; does nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final, Literal

from harness.alarm.spells import Spell
from harness.night.night import Night
from harness.night.outcome import MISSING, Outcome

if TYPE_CHECKING:
    from harness.alarm.memory import Memory
    from harness.matrix import Cell
    from harness.night.quarantine import Quarantine

Kind = Literal["opened", "reopened", "changed", "stays", "closed", "gone", "quarantined"]
#: What the webhook is told; a subject that just stays red is no news.
NEWS: Final = ("opened", "reopened", "changed", "closed", "gone")
#: Characters of the cells in a spell; all of an issue has 65,536.
_ROOM_FOR_CELLS = 24_000


@dataclass(frozen=True)
class Known:
    """What is on record of a subject.

    Args:
        spell: its last one.
        open: numbers of its open issues, ascending; more than one when two watches ran at once.
        closed: number of its last closed issue; None when there is none.
    """

    spell: Spell
    open: tuple[int, ...] = ()
    closed: int | None = None


@dataclass(frozen=True)
class Step:
    """One change.

    Args:
        kind: what happens to the subject.
        spell: how it stands after this night.
        outcomes: of its cells in this night: the red ones; for ``closed`` the green ones.
        known: what was on record of it; None for nothing.
    """

    kind: Kind
    spell: Spell
    outcomes: tuple[Outcome, ...]
    known: Known | None


@dataclass(frozen=True)
class Watch:
    """Decides.

    Args:
        night: what is to be judged.
        name: of the night; the same one again is not counted again.
        today: in UTC.
        quarantine: what may be red.
        memory: of the nights before.
        storm: when more cells than this turn red at once on one (hardware, track), they share an issue.
    """

    night: Night
    name: str
    today: date
    quarantine: Quarantine
    memory: Memory
    storm: int

    def red(self) -> tuple[Outcome, ...]:
        """The cells that fail the night."""
        return tuple(
            outcome
            for outcome in self.night.outcomes
            if outcome.red and self.quarantine.holds(outcome.cell, self.today) is None
        )

    def held(self) -> tuple[Outcome, ...]:
        """The red cells that do not, because they are in quarantine."""
        red = {outcome.cell for outcome in self.red()}
        return tuple(one for one in self.night.outcomes if one.red and one.cell not in red)

    def steps(self, known: Mapping[str, Known]) -> tuple[Step, ...]:
        """All changes, by subject."""
        subjects = self._subjects({name: one for name, one in known.items() if one.open})
        steps = [self._red(name, outcomes, known.get(name)) for name, outcomes in subjects.items()]
        for name, one in known.items():
            if one.open and name not in subjects:
                steps += self._not_red(one)
        return tuple(sorted(steps, key=lambda step: step.spell.subject))

    # -- red -----------------------------------------------------------------------------------

    def _subjects(self, open_: Mapping[str, Known]) -> dict[str, tuple[Outcome, ...]]:
        """Red cells by what they are reported as: their own issue, or one for all of a pair."""
        subjects: dict[str, tuple[Outcome, ...]] = {}
        rest: dict[str, list[Outcome]] = {}
        for outcome in self.red():
            own = open_.get(outcome.cell.id)
            if own is None:
                rest.setdefault(_pair(outcome.cell), []).append(outcome)
            # No verdict says nothing new of a cell that was red for a reason.
            elif not outcome.missing or own.spell.signature == MISSING:
                subjects[outcome.cell.id] = (outcome,)
        for pair, outcomes in rest.items():
            silent = all(one.missing for one in self.night.outcomes if _pair(one.cell) == pair)
            if pair in open_ or len(outcomes) > (1 if silent else self.storm):
                subjects[pair] = tuple(outcomes)
            else:
                subjects.update({outcome.cell.id: (outcome,) for outcome in outcomes})
        return subjects

    def _red(self, subject: str, outcomes: tuple[Outcome, ...], known: Known | None) -> Step:
        signature, cells = _signature(outcomes), _some(outcome.cell.id for outcome in outcomes)
        if known is not None and known.open:
            spell = known.spell.goes_on(self.name, signature, cells)
            return Step("changed" if signature != known.spell.signature else "stays", spell, outcomes, known)
        bad = {outcome.commit for outcome in outcomes}
        spell = Spell(
            subject=subject,
            good=self.memory.good(outcome.cell.id for outcome in outcomes),
            bad=bad.pop() if len(bad) == 1 else self.night.commit,
            since=self.today.isoformat(),
            nights=1,
            night=self.name,
            signature=signature,
            cells=cells,
        )
        return Step("opened" if known is None else "reopened", spell, outcomes, known)

    # -- not red any more ----------------------------------------------------------------------

    def _not_red(self, known: Known) -> Iterator[Step]:
        by_id = {outcome.cell.id: outcome for outcome in self.night.outcomes}
        spell = known.spell
        if any(name not in by_id and not self._gone(name) for name in spell.cells):
            return  # a cell that did not run tonight is as it was
        there = tuple(by_id[name] for name in spell.cells if name in by_id)
        if not there:
            yield Step("gone", spell, (), known)
        elif any(self.quarantine.holds(outcome.cell, self.today) for outcome in there):
            # Flaky: closed tonight, it would be opened again tomorrow.
            yield Step("quarantined", spell, there, known)
        elif all(outcome.green for outcome in there):
            yield Step("closed", spell, there, known)

    def _gone(self, name: str) -> bool:
        """Whether its pair ran without it: the case was removed."""
        expected = {cell.id for cell in self.night.expected}
        pair = name.rpartition("/")[0]
        return name not in expected and any(cell.rpartition("/")[0] == pair for cell in expected)


def _pair(cell: Cell) -> str:
    return f"{cell.hardware}/{cell.track}"


def _signature(outcomes: Sequence[Outcome]) -> str:
    if len(outcomes) == 1:
        return outcomes[0].signature
    text = "\n".join(f"{outcome.cell.id} {outcome.signature}" for outcome in outcomes)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _some(cells: Iterator[str]) -> tuple[str, ...]:
    """As many as there is room for; the others come back by their pair."""
    kept: list[str] = []
    room = _ROOM_FOR_CELLS
    for cell in cells:
        room -= len(cell) + 3
        if room < 0 and kept:
            break
        kept.append(cell)
    return tuple(kept)
