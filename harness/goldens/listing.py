"""Which cell has which golden."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from harness.errors import HarnessError, NothingToDo
from harness.matrix import HARDWARE, NAME, TRACKS, Cell, case_names, platforms

Compared = Literal["exact", "curves", "tolerance", "fallback", "broken", "none"]


@dataclass(frozen=True)
class Row:
    """One cell.

    Args:
        cell: ``cpu/dev/<case>``.
        compared: ``exact``: by a run whose operations give the bits that the golden's gave, or in its own
            environment; ``curves``: exact, but for the state, of which it has no digests; ``tolerance``: the
            golden does not say what it was recorded with; ``fallback``: it is the track's, not the
            platform's; ``broken``; ``none``.
        file: the golden, relative to the store; None without one.
        how: ``recorded``, ``approved``, ``imported``; empty where nobody wrote it down.
        recorded: when, as the side file says; empty where it does not.
        fingerprint: what it was recorded on and with.
        error: why it is broken.
    """

    cell: str
    compared: Compared
    file: str | None = None
    how: str = ""
    recorded: str = ""
    fingerprint: Mapping[str, Any] | None = None
    error: str = ""

    @property
    def on(self) -> str:
        """Device and torch, for a person."""
        found = self.fingerprint or {}
        parts = [str(found[key]) for key in ("device", "torch") if found.get(key)]
        return ", torch ".join(parts)

    def age(self, now: datetime) -> str:
        """How old it is, for a person."""
        try:
            then = datetime.fromisoformat(self.recorded)
        except ValueError:
            return "unknown" if self.file else ""
        seconds = (now - (then if then.tzinfo else then.replace(tzinfo=timezone.utc))).total_seconds()
        for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
            count = int(seconds // size)
            if count >= 1:
                return f"{count} {unit}{'' if count == 1 else 's'}"
        return "now"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def rows(cases: Path, goldens: Path) -> list[Row]:
    """Every cell of the cases, and of the cases that only the store knows; hardware, track, case.

    Raises:
        NothingToDo: there is neither a case nor a golden.
    """
    names = {name for _, name, _ in case_names(cases)} | set(_stored(goldens))
    if not names:
        raise NothingToDo(f"neither {cases} nor {goldens} holds a case", "check --cases and --goldens")
    return [
        _row(Cell(hardware, track, case), goldens)
        for hardware in HARDWARE
        for track in TRACKS
        for case in sorted(names)
    ]


def _stored(goldens: Path) -> Iterator[str]:
    for folder in goldens.iterdir() if goldens.is_dir() else ():
        if NAME.fullmatch(folder.name) and folder.is_dir() and any(folder.glob("golden_values*.json")):
            yield folder.name


def _row(cell: Cell, goldens: Path) -> Row:
    from harness.goldens import resolve

    try:
        golden = resolve(goldens, cell.case, cell.track, *platforms(cell.hardware))
    except HarnessError as error:
        return Row(cell.id, "broken", error=error.message)
    if golden is None:
        return Row(cell.id, "none")
    exact: Compared = "tolerance"
    if golden.fingerprint:
        exact = "exact" if golden.has_state else "curves"
    said = {key: str(golden.provenance.get(key, "")) for key in ("how", "recorded")}
    return Row(
        cell.id,
        "fallback" if golden.fallback else exact,
        golden.path.relative_to(goldens).as_posix(),
        said["how"],
        said["recorded"],
        golden.fingerprint,
    )
