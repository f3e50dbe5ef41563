"""The verdict of one cell, and its file ``verdict.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import EXIT_CRASHED, EXIT_FAILED, EXIT_PASSED, VerdictError
from harness.fitting import Misfit, fitted
from harness.text import strict_json

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.diagnosis import Diagnosis
    from harness.protocol import verdict_file

Status = Literal["passed", "failed", "error"]
_SIZE_LIMIT = 256 << 20  # bytes; a verdict has some ten thousand
_EXIT_CODES: dict[Status, int] = {
    "passed": EXIT_PASSED,
    "failed": EXIT_FAILED,
    "error": EXIT_CRASHED,
}


@dataclass(frozen=True)
class Verdict:
    """All checks of a cell, the diagnosis, the timings, the provenance.

    Args:
        cell: ``cpu/dev/<case>``.
        status: ``passed``; ``failed``: a check did; ``error``: a phase could not be run to its end. To come:
            ``refused`` and ``skipped``.
        checks: every comparison that was made, passed or not.
        diagnosis: what was lost; None when nothing was.
        timing: seconds by what they were spent on.
        provenance: what ran, on what, and which golden it was compared with.
        reproduce: the one command line that runs this cell again.
    """

    cell: str
    status: Status
    checks: tuple[Check, ...]
    diagnosis: Diagnosis | None
    timing: Mapping[str, float]
    provenance: Mapping[str, Any]
    reproduce: str

    def __post_init__(self) -> None:
        if self.status not in _EXIT_CODES:
            raise ValueError(f"status {self.status!r}")
        if self.status == "passed" and self.failures:
            raise ValueError(f"passed with {len(self.failures)} failed checks")

    @property
    def passed(self) -> bool:
        """Whether everything held."""
        return self.status == "passed"

    @property
    def exit_code(self) -> int:
        """What the process that ran the cell should return."""
        return _EXIT_CODES[self.status]

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not hold."""
        return tuple(check for check in self.checks if not check.passed)

    def to_json(self) -> str:
        """The content of ``verdict.json``; keys as in the design."""
        return strict_json(asdict(self))

    def write(self, path: Path) -> None:
        """Write it at once or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(self.to_json(), encoding="utf-8")
        beside.replace(path)


def read_verdict(path: Path) -> Verdict:
    """Read a ``verdict.json`` back.

    Raises:
        VerdictError: it cannot be read, or is no verdict; says which key is not what it must be.
    """
    try:
        if path.stat().st_size > _SIZE_LIMIT:
            raise VerdictError(f"{path}: is larger than {_SIZE_LIMIT >> 20} MiB, expected a verdict")
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise VerdictError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise VerdictError(f"{path}: is not JSON: {error}") from error
    from harness.protocol import verdict_file

    written = fitted(raw, verdict_file.Verdict, lambda misfit: VerdictError(f"{path}: {_said(misfit)}"))
    try:
        return _verdict(written)
    except ValueError as error:
        raise VerdictError(f"{path}: is no verdict: {error}") from error


def _verdict(written: verdict_file.Verdict) -> Verdict:
    import msgspec

    from harness.checks import Check, Worst
    from harness.diagnosis import Diagnosis

    plain = msgspec.structs.asdict
    checks = [
        Check(**plain(one) | {"worst": Worst(**plain(one.worst)) if one.worst else None})
        for one in written.checks
    ]
    lost = written.diagnosis
    return Verdict(
        cell=written.cell,
        status=written.status,
        checks=tuple(checks),
        diagnosis=Diagnosis(lost.component, tuple(lost.evidence)) if lost else None,
        timing={name: float(seconds) for name, seconds in written.timing.items()},
        provenance=written.provenance,
        reproduce=written.reproduce,
    )


def _said(misfit: Misfit) -> str:
    """What is wrong in the file, in JSON's words."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in misfit.where)[1:]
    if misfit.what == "missing":
        return f"is no verdict: {key} is missing, expected {misfit.expected}"
    found = json.dumps(misfit.found)[:60]
    if isinstance(misfit.found, (dict, list)):
        found = "an object" if isinstance(misfit.found, dict) else "a list"
    return f"is no verdict: {key}{': ' if key else ''}found {found}, expected {misfit.expected}"
