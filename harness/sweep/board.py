"""A sweep while it runs, by the queue and the verdicts of what has ended: a board, or plain lines."""

from __future__ import annotations

import time
from collections import Counter, deque
from types import TracebackType
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from harness.night.outcome import SIGNS, STATES
from harness.report.summary import STYLES, Line, table
from harness.sweep.queue import Key, Queue
from harness.text import count, duration, one_line

_SHOWN: Final = 200  # lines of cells that ended; no screen has more


class Board:
    """Shows how far a sweep is; a context manager.

    Args:
        console: where.
        cells: how many there are.
    """

    def __init__(self, console: Console, cells: int) -> None:
        self._console, self._cells = console, cells
        self._began = time.monotonic()
        self._ended: deque[Line] = deque(maxlen=_SHOWN)
        self._counts: Counter[str] = Counter()
        self._waits = ""
        self._live = (
            Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        )

    def __enter__(self) -> Board:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(Text(one_line(text)), soft_wrap=True)

    def ended(self, line: Line, host: str) -> None:
        """A cell has."""
        self._ended.append(line)
        self._counts[line.state] += 1
        if self._live is None:
            where = f" on {host}" if host else ""
            seconds = "" if line.seconds is None else f", {duration(line.seconds)}"
            done = f"{sum(self._counts.values())} of {self._cells}"
            self.say(f"{line.cell}: {line.state}{where}{seconds} ({done})")

    def look(self, queue: Queue, names: dict[Key, str]) -> None:
        """The queue as it is now; ``names``: of the cells that are in it."""
        reasons = Counter(queue.waiting[key] for key in names if key in queue.waiting)
        why = ", ".join(sorted(reason for reason in reasons if reason not in ("None", "")))
        # Why none of them runs is worth a line; that some wait for others of the sweep is not.
        waits = why if why and not any(key in queue.there for key in names) else ""
        if self._live is None:
            if waits and waits != self._waits:
                self.say(f"{count(sum(reasons.values()), 'cell')} waiting: {waits}")
            self._waits = waits
            return
        runs = [(names[key], task) for key, task in queue.there.items() if key in names]
        room = max(4, self._console.height - 6)
        shown = runs[: room // 2]
        more = f"and {count(len(runs) - len(shown), 'cell')} more" if len(runs) > len(shown) else ""
        states = ", ".join(
            f"{self._counts[state]} {STATES[state]}" for state in STATES if self._counts[state]
        )
        left = self._cells - sum(self._counts.values()) - len(runs)
        since = duration(time.monotonic() - self._began)
        self._live.update(
            Group(
                table(list(self._ended)[-(room - len(shown)) :]),
                *(
                    Text(f"{SIGNS['unfinished']} {one_line(cell)}: {task.state.lower()} on {task.host}, "
                         f"{task.elapsed}", style=STYLES["unfinished"])
                    for cell, task in shown
                ),
                *([Text(more, style="dim")] if more else []),
                Text(f"{count(self._cells, 'cell')}: {states or 'none ended'}, {len(runs)} running, "
                     f"{left} to come{f' ({why})' if why else ''}, {since}"),
                Text("Ctrl-C cancels them", style="dim"),
            ),
            refresh=True,
        )  # fmt: skip
