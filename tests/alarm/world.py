"""A repository, its issues, and the night after night that the watch judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.commands.cli import main
from tests.nights import write
from tests.webserver import Tracker

ROOT = Path(__file__).parents[2]
CELL = "h100/dev/gpt_resume"
ISSUES = "/repos/someone/something/issues"


class World:
    """A repository, a folder of results, and the watch that is run again and again."""

    def __init__(self, path: Path, tracker: Tracker) -> None:
        self.path, self.tracker = path, tracker
        self.results = path / "results"
        self.state = path / "state.json"
        self.nights = 0

    def night(
        self, *verdicts: Any, again: bool = False, more: tuple[str, ...] = (), fast: bool = True
    ) -> int:
        """One night with these verdicts beside those of the nights before."""
        self.nights += not again
        write(self.results, *verdicts)
        wait = ("--wait", "0.01") if fast else ()
        name = ("--night", f"night-{self.nights}")
        return main(["alarm", str(self.results), "--state", str(self.state), *name, *wait, *more])

    def issue(self, number: int = 1) -> dict[str, Any]:
        return self.tracker.issues[number - 1]

    def comments(self, number: int = 1) -> list[str]:
        return [comment["body"] for comment in self.tracker.comments[number]]

    def writes(self) -> int:
        return len(self.tracker.made("POST")) + len(self.tracker.made("PATCH"))
