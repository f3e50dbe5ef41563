"""How a cell went from night to night."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.night.night import Night, order
from harness.night.outcome import Outcome


@dataclass(frozen=True)
class History:
    """One cell over several nights.

    Args:
        cell: its id.
        results: by night, in order; None where the cell did not run.
    """

    cell: str
    results: tuple[tuple[Night, Outcome | None], ...]

    @property
    def red_since(self) -> Night | None:
        """The first night of the streak that it is red in now; None when it is not red.

        A night in which it did not run neither begins nor ends a streak.
        """
        since = None
        for night, result in reversed(self.results):
            if result is None or result.state in ("unfinished", "skipped"):
                continue
            if not result.red:
                break
            since = night
        return since

    @property
    def ever_green(self) -> bool:
        """Whether it passed in any of the nights."""
        return any(result is not None and result.state == "passed" for _, result in self.results)


def histories(nights: Sequence[Night]) -> list[History]:
    """Every cell that ran in any night: those that are red now first, the newest of them on top."""
    cells = {cell: result.cell for night in nights for cell, result in night.cells.items()}
    found = [
        History(cell, tuple((night, night.cells.get(cell)) for night in nights))
        for cell in sorted(cells, key=lambda cell: order(cells[cell]))
    ]
    age = {night.name: i for i, night in enumerate(nights)}
    return sorted(found, key=lambda one: -age[one.red_since.name] if one.red_since else 1)
