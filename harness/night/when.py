"""When a verdict was made, and whether that was in the night that is asked about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from harness.errors import UsageError
from harness.text import one_line

if TYPE_CHECKING:
    from harness.verdict import Verdict

#: How old a verdict may be where nobody says when the night began.
LONGEST: Final = timedelta(hours=24)
_CLOCKS: Final = timedelta(hours=1)  # how far those of two machines may be apart
UNKNOWN: Final = "nobody knows when it ran: its verdict.json holds no time"


@dataclass(frozen=True)
class Since:
    """The beginning of a night.

    Args:
        start: in UTC; what began before is of another night. None: nobody asks.
        now: in UTC.
        strict: whether a verdict has to say when it was made.
    """

    start: datetime | None
    now: datetime
    strict: bool = False

    def problem(self, verdict: Verdict) -> str:
        """Why a verdict is none of this night; empty when it is one."""
        if self.start is None:
            return ""
        times = _times(verdict)
        if not times:
            return UNKNOWN if self.strict else ""
        # All of them count: a run that began tonight has not ended ten days ago.
        first, last = min(times), max(times)
        if first < self.start:
            return f"its verdict is old: it ran at {_said(first)}, before this night ({_said(self.start)})"
        if last > self.now + _CLOCKS:
            return f"its verdict says that it ran at {_said(last)}, which is still to come"
        return ""

    def remark(self, verdict: Verdict) -> str:
        """What is to be said of a verdict that is taken for one of this night."""
        return UNKNOWN if self.start is not None and not _times(verdict) else ""


def since(text: str | None, *, strict: bool = False) -> Since:
    """The night that a command line names; with ``strict``, else the last 24 hours.

    Args:
        text: ISO 8601; UTC, if it does not say otherwise. None: it was not said.

    Raises:
        UsageError: it is no time, or still to come.
    """
    now = datetime.now(timezone.utc)
    if text is None:
        return Since(now - LONGEST if strict else None, now, strict)
    start = _parsed(text)
    if start is None:
        raise UsageError(f"--since {text!r}: expected a time such as 2026-11-27T01:02:03Z")
    if start > now + _CLOCKS:
        raise UsageError(f"--since {text}: is still to come", f"it is {_said(now)} now")
    # A verdict's times are whole seconds.
    return Since(start.replace(microsecond=0), now, strict)


def _times(verdict: Verdict) -> list[datetime]:
    run = verdict.run
    texts = [run.started, run.finished] if run else []
    found = (_parsed(text) for text in (*texts, verdict.provenance.get("finished")))
    return [time for time in found if time is not None]


def _parsed(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    # Before Python 3.11 a fraction must have three or six digits. No night is told in fractions.
    whole = re.sub(r"[.,]\d+", "", text.strip().replace("Z", "+00:00").replace("z", "+00:00"))
    try:
        time = datetime.fromisoformat(whole)
        return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def _said(time: datetime) -> str:
    return one_line(time.strftime("%Y-%m-%d %H:%M:%S UTC"))
