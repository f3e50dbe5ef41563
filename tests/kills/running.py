"""One kill, its verdict, and what is looked at behind it: processes, time, and what the script has read."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from harness.protocol.judge import NO_GOLDEN
from tests.kills.rows import Row

if TYPE_CHECKING:
    from harness.launch.launcher import Launcher
    from harness.verdict import Verdict

_MARK = "HARNESS_KILLS"
_GONE = 2.0  # s
_WITHIN = 10.0  # s behind the limit


@dataclass(frozen=True)
class Killed:
    """What became of one kill.

    Args:
        row: of what.
        seed: of the moment and the rank.
        at: the iteration that it went on from; None where it did not.
        said: the check of the kill.
        red: checks that failed.
        component: which the verdict names.
        accepted: what the script went on from was torn, by its own checksum.
        orphans: processes that were left, a line each.
        late: seconds from the kill to the end of all that was started, above the limit.
        seconds: of the whole verdict.
    """

    row: str
    seed: int
    at: int | None
    said: str
    red: tuple[str, ...]
    component: str
    accepted: bool
    orphans: tuple[str, ...]
    late: float
    seconds: float

    def wrong(self, *, planted: bool) -> str:
        """Why this is not as it should be; "" where it is."""
        if self.orphans:
            return f"left behind: {'; '.join(self.orphans)}"
        if self.late > _WITHIN:
            return f"the verdict came {self.late:.1f} s behind the limit"
        if self.accepted and not self.red:
            return "a torn save was accepted, and the verdict is green"
        if self.accepted and self.component != "checkpoint":
            return f"a torn save was accepted, and the verdict names {self.component or 'nothing'}"
        if self.red and not planted:
            return f"red: {'; '.join(self.red)}"
        return ""


@contextlib.contextmanager
def marked() -> Iterator[str]:
    """Everything that is started in the block is known by a variable of its own."""
    mark = uuid.uuid4().hex
    os.environ[_MARK] = mark
    try:
        yield mark
    finally:
        del os.environ[_MARK]


def kill(root: Path, row: Row, seed: int, launcher: Launcher, mark: str, moment: str = "random") -> Killed:
    """One verdict of the protocol ``crash``.

    Args:
        root: a scratch folder.
        mark: of :func:`marked`.
        moment: as ``--crash-at`` has it.
    """
    from harness.matrix import Cell
    from harness.protocol.plan import Options
    from harness.protocol.run import run_cell

    limit, began = row.limit, time.monotonic()
    verdict = run_cell(
        Cell("cpu", "dev", row.name),
        case=row.case(root),
        cases=root / "cases",
        goldens=root / "goldens",
        results=root / "results",
        options=Options(
            protocol="crash",
            crash_at=moment,
            crash_rank="any" if row.ranks > 1 else "all",
            crash_seed=seed,
            heartbeat_timeout=limit,
            keep_checkpoints=True,
        ),
        launcher=launcher,
    )
    seconds = time.monotonic() - began
    folder = root / "results" / "cpu" / "dev" / row.name
    until = [value for name, value in verdict.timing.items() if name.endswith("until it ended")]
    told = " ".join(c.message for c in verdict.checks if c.name.startswith("crash: "))
    return Killed(
        row=row.name,
        seed=seed,
        at=_went_on_from(verdict),
        said=told,
        red=tuple(f"{c.name}: {c.message}" for c in verdict.failures if c.name != NO_GOLDEN)
        + ((verdict.message,) if verdict.status == "error" else ()),
        component=verdict.diagnosis.component if verdict.diagnosis else "",
        accepted=_accepted(folder),
        orphans=tuple(orphans(mark)),
        late=max([*until, 0.0]) - limit,
        seconds=seconds,
    )


def _went_on_from(verdict: Verdict) -> int | None:
    for check in verdict.checks:
        if check.name == "crash: it goes on from a whole checkpoint" and check.passed:
            return int(check.message.rpartition(" ")[2]) if "went on" in check.message else 0
    return None


def _accepted(folder: Path) -> bool:
    """Whether the script has read something torn, and went on."""
    noted = folder / "resumed" / "loaded.json"
    return noted.is_file() and not json.loads(noted.read_text())["whole"]


def orphans(mark: str) -> list[str]:
    """Who is left running; to be killed and to be gone are two moments."""
    deadline = time.monotonic() + _GONE
    while (found := left_running(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def left_running(mark: str) -> list[str]:
    """Processes that were started behind a mark, but the warm parent, which is kept for the next phase."""
    found = []
    setting = f"{_MARK}={mark}".encode()
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            environ = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            if setting not in environ or process.pid == os.getpid():
                continue
            words = process.cmdline()
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.ppid() == os.getpid() and "harness.launch.parent" in words:
                continue
            found.append(f"{process.pid} {' '.join(words)[:120]}")
    return found


def table(found: Sequence[Killed], rows: Sequence[Row]) -> str:
    """A row each, for a terminal and a page."""
    lines = [
        "| what | kills | went on from a save | began anew | refused | torn saves accepted | of them red "
        "| orphans | slowest end | as it should be |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in dict.fromkeys(rows):
        mine = [one for one in found if one.row == row.name]
        if not mine:
            continue
        accepted = [one for one in mine if one.accepted]
        cells = (
            f"{row.name}{f' (planted: {row.planted})' if row.planted else ''}",
            len(mine),
            sum(bool(one.at) for one in mine),
            sum(one.at == 0 for one in mine),
            sum(one.at is None for one in mine),
            len(accepted),
            sum(bool(one.red) for one in accepted),
            sum(len(one.orphans) for one in mine),
            f"{max(one.late for one in mine) + row.limit:.1f} s",
            sum(not one.wrong(planted=bool(row.planted)) for one in mine),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def summary(sound: Sequence[Killed], wrong: int) -> str:
    """One sentence.

    Args:
        sound: kills of what has no fault planted.
        wrong: of all kills, those that were not as they should be.
    """
    left = sum(len(one.orphans) for one in sound)
    accepted = sum(one.accepted for one in sound)
    late = max((one.late for one in sound), default=0.0)
    return (
        f"{len(sound)} kills at random moments of what is sound: {left} orphans, {accepted} torn saves "
        f"accepted, everything ended {_behind(late)}; of all kills {wrong} not as they should be."
    )


def _behind(late: float) -> str:
    return f"{late:.1f} s behind its limit at the latest" if late > 0 else "before its limit"
