"""The verdict of one cell, and its file ``verdict.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import EXIT_CRASHED, EXIT_FAILED, EXIT_PASSED, VerdictError
from harness.strict_json import strict_json

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.diagnosis import Diagnosis

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
        status: ``passed``; ``failed``: a check did; ``error``: a phase could not be run to its end.
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
    try:
        return _verdict(raw)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise VerdictError(f"{path}: is no verdict: {error}") from error


def _verdict(raw: Any) -> Verdict:  # noqa: ANN401 - from a file
    from harness.checks import Check, Worst
    from harness.diagnosis import Diagnosis

    raw = _of(raw, _KEYS, "")
    checks = []
    for i, one in enumerate(raw.pop("checks")):
        found = _of(one, _CHECK_KEYS, f"checks[{i}].")
        worst = found.pop("worst")
        checks.append(
            Check(**found, worst=Worst(**_of(worst, _WORST_KEYS, f"checks[{i}].worst.")) if worst else None)
        )
    diagnosis = raw.pop("diagnosis")
    if diagnosis is not None:
        diagnosis = _of(diagnosis, {"component": str, "evidence": list}, "diagnosis.")
        diagnosis = Diagnosis(diagnosis["component"], tuple(map(str, diagnosis["evidence"])))
    timing = {str(name): float(seconds) for name, seconds in raw.pop("timing").items()}
    return Verdict(checks=tuple(checks), diagnosis=diagnosis, timing=timing, **raw)


_Kinds = Mapping[str, type | tuple[type, ...]]
_NONE = type(None)
_KEYS: _Kinds = {
    "cell": str, "status": str, "checks": list, "diagnosis": (dict, _NONE), "timing": dict,
    "provenance": dict, "reproduce": str,
}  # fmt: skip
_CHECK_KEYS: _Kinds = {
    "name": str, "metric": (str, _NONE), "against": str, "kind": str, "passed": bool,
    "first_bad_step": (int, _NONE), "worst": (dict, _NONE), "message": str,
}  # fmt: skip
_VALUE = (int, float, str, _NONE)
_WORST_KEYS: _Kinds = {
    "step": (int, _NONE),
    "expected": _VALUE,
    "actual": _VALUE,
    "abs": _VALUE,
    "rel": _VALUE,
}


def _of(raw: Any, kinds: _Kinds, where: str) -> dict[str, Any]:  # noqa: ANN401 - from a file
    """The keys of ``kinds``; what a newer harness wrote besides is passed over."""
    if not isinstance(raw, dict):
        raise TypeError(f"{where.rstrip('.') or 'it'} is a {type(raw).__name__}, expected an object")
    for key, kind in kinds.items():
        if key not in raw:
            raise KeyError(f"{where}{key} is missing")
        if not isinstance(raw[key], kind):
            raise TypeError(f"{where}{key} is a {type(raw[key]).__name__}")
    return {key: raw[key] for key in kinds}
