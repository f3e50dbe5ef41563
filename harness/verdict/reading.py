"""``verdict.json`` → :class:`Verdict`."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from harness.checkpoints.coverage import AppliedRule, Count, Coverage
from harness.checks import Check, Worst
from harness.diagnosis import Candidate, Diagnosis
from harness.errors import VerdictError
from harness.fitting import Misfit, fitted
from harness.verdict import file
from harness.verdict.verdict import Run, Verdict

_SIZE_LIMIT = 256 << 20  # bytes; a verdict has some ten thousand


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
    written = fitted(raw, file.Verdict, lambda misfit: VerdictError(f"{path}: {_said(misfit)}"))
    try:
        return _verdict(written)
    except ValueError as error:
        raise VerdictError(f"{path}: is no verdict: {error}") from error


def _verdict(written: file.Verdict) -> Verdict:
    plain = msgspec.structs.asdict
    checks = [
        Check(**plain(one) | {"worst": Worst(**plain(one.worst)) if one.worst else None})
        for one in written.checks
    ]
    return Verdict(
        cell=written.cell,
        status=written.status,
        checks=tuple(checks),
        diagnosis=_diagnosis(written.diagnosis) if written.diagnosis else None,
        timing={name: float(seconds) for name, seconds in written.timing.items()},
        provenance=written.provenance,
        reproduce=written.reproduce,
        message=written.message,
        run=Run(**plain(written.run)) if written.run else None,
        coverage=_coverage(written.coverage) if written.coverage else None,
    )


def _diagnosis(written: file.Diagnosis) -> Diagnosis:
    candidates = [Candidate(one.component, tuple(one.for_), tuple(one.against)) for one in written.candidates]
    evidence, recipes = tuple(written.evidence), tuple(written.recipes)
    return Diagnosis(written.component, evidence, tuple(candidates), written.entry, recipes)


def _coverage(written: file.Coverage) -> Coverage:
    plain = msgspec.structs.asdict
    files, entries, copies = (Count(**plain(one)) for one in (written.files, written.entries, written.copies))
    return Coverage(files, entries, copies, tuple(AppliedRule(**plain(rule)) for rule in written.rules))


def _said(misfit: Misfit) -> str:
    """What is wrong in the file, in JSON's words."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in misfit.where)[1:]
    if misfit.what == "missing":
        return f"is no verdict: {key} is missing, expected {misfit.expected}"
    found = json.dumps(misfit.found)[:60]
    if isinstance(misfit.found, (dict, list)):
        found = "an object" if isinstance(misfit.found, dict) else "a list"
    return f"is no verdict: {key}{': ' if key else ''}found {found}, expected {misfit.expected}"
