"""Who is told how far a cell is, while it runs."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Is told how far a cell is."""

    def phase_started(self, phase: str, start: int, stop: int) -> None:
        """Ranks are being started."""

    def progress(self, phase: str, iteration: int) -> None:
        """Every rank has come to ``iteration``."""

    def phase_ended(self, phase: str, seconds: float) -> None:
        """All ranks have ended well."""

    def note(self, text: str) -> None:
        """One sentence for the person who waits."""


class Silent:
    """Tells nobody."""

    def phase_started(self, phase: str, start: int, stop: int) -> None:
        """Nothing."""

    def progress(self, phase: str, iteration: int) -> None:
        """Nothing."""

    def phase_ended(self, phase: str, seconds: float) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
