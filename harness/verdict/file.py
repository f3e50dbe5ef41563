"""What stands in ``verdict.json``: the keys that others rely on. All are there; others may come.

:class:`harness.verdict.verdict.Verdict` is the same as the harness works with it, and says what each means.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from harness.checkpoints.coverage import Where
from harness.checks.result import Against
from harness.verdict.verdict import Status

#: A number that JSON has not.
NotFinite = Literal["nan", "inf", "-inf"]


class Worst(msgspec.Struct):
    """The worst deviation of a check."""

    step: int | None
    expected: int | float | str | None
    actual: int | float | str | None
    abs: int | float | str | None
    rel: int | float | str | None


class Check(msgspec.Struct):
    """One comparison."""

    name: str
    metric: str | None
    against: Against
    kind: str  # those of a newer harness too
    passed: bool
    first_bad_step: int | None
    worst: Worst | None
    message: str


class Candidate(msgspec.Struct, rename={"for_": "for"}):
    """A component that may have been lost."""

    component: str
    for_: list[str]
    against: list[str]


class Diagnosis(msgspec.Struct):
    """What was lost."""

    component: str
    evidence: list[str]
    candidates: list[Candidate] = []
    entry: str = ""
    recipes: list[str] = []


class Run(msgspec.Struct):
    """Which invocation it is of."""

    id: str
    started: str
    finished: str


class Count(msgspec.Struct):
    """How many ended where."""

    compared: int
    excluded: int
    uncompared: int


class Rule(msgspec.Struct):
    """A rule, and how many entries it left out."""

    where: Where
    entry: str
    reason: str
    matched: int
    file: str = ""


class Coverage(msgspec.Struct):
    """What of the saved state was compared."""

    files: Count
    entries: Count
    copies: Count
    rules: list[Rule]


class Verdict(msgspec.Struct):
    """All checks of a cell, the diagnosis, the timings, the provenance. More keys may come."""

    cell: str
    status: Status
    checks: list[Check]
    diagnosis: Diagnosis | None
    timing: dict[str, float | NotFinite]
    provenance: dict[str, Any]
    reproduce: str
    message: str = ""
    run: Run | None = None
    coverage: Coverage | None = None
