"""A matrix of saved-by × resumed-by, from the command line to ``cross.json``."""

from __future__ import annotations

import json
import shlex
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.machine.leases import lease
from harness.protocol.cross import Cross, Pair, Side
from harness.protocol.results import ResultsFolder, claim
from harness.protocol.sides import Asked, sides_of
from harness.text import utc_now
from harness.verdict import Run

if TYPE_CHECKING:
    from harness.cases import Case
    from harness.protocol.observer import Observer

#: The results of a matrix, beside what its sides have left.
RESULTS = "cross.json"


@dataclass(frozen=True)
class Matrix:
    """All pairs of a case.

    Args:
        sides: axis → name → what it is.
        seconds: of all of it.
    """

    case: str
    hardware: str
    k: int
    n: int
    sides: Mapping[str, Mapping[str, Mapping[str, Any]]]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    started: str = ""
    reproduce: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "pairs": [pair.as_dict() for pair in self.pairs]}


def run_cross(
    case: Case,
    hardware: str,
    asked: Asked,
    results: Path,
    observer: Observer,
    *,
    keep_checkpoints: bool = False,
) -> Matrix:
    """Cross a case, and write ``cross.json``.

    Args:
        results: gets ``cross/<case>/on-<hardware>/matrix/``: no cell's place.
        keep_checkpoints: also where nothing was lost.

    Raises:
        HarnessError, OSError: it cannot be run at all.
        KeyboardInterrupt: nothing is left running.
    """
    began = time.monotonic()
    run = Run(uuid.uuid4().hex, started=utc_now(), finished="")
    found = sides_of(case, hardware, asked, results)
    for note in found.notes:
        observer.note(note)
    most = max(side.plan.world_size for side in found.sides)
    with (
        claim(
            results / "cross", case.name, f"on-{hardware}", "matrix", run=run, waiting=observer.note
        ) as folder,
        lease(hardware, most, observer.note) as devices,
    ):
        with Cross(folder.path, observer, devices) as cross:
            pairs = cross.run(found.sides, lambda pair: observer.note(_said(pair)))
            sides = {
                axis: {side.name: _about(side, cross) for side in found.sides if side.axis == axis}
                for axis in dict.fromkeys(side.axis for side in found.sides)
            }
        plan = found.sides[0].plan
        matrix = Matrix(
            case.name, hardware, plan.k, plan.n, sides, tuple(pairs), found.notes,
            round(time.monotonic() - began, 3), run.started, shlex.join(["harness", *sys.argv[1:]]),
        )  # fmt: skip
        text = json.dumps(matrix.as_dict(), indent=1, default=str) + "\n"
        (folder.path / RESULTS).write_text(text, encoding="utf-8")
        if not keep_checkpoints and all(
            pair.result in ("exact", "within") or not pair.loaded for pair in pairs
        ):
            _remove_checkpoints(folder)
    return matrix


def _about(side: Side, cross: Cross) -> dict[str, Any]:
    trained = cross.trained(side)
    fingerprint = {} if isinstance(trained, str) else trained.fingerprint
    return {
        "ranks": side.plan.world_size,
        "torch": fingerprint.get("torch", ""),
        "numerics": dict(fingerprint.get("numerics") or {}),
        "problem": trained if isinstance(trained, str) else "",
    }


def _said(pair: Pair) -> str:
    what = f"{pair.result}: {pair.component}" if pair.component else pair.result
    return f"{pair.axis} {pair.saved_by} → {pair.resumed_by}: {what}; {pair.why}"


def _remove_checkpoints(folder: ResultsFolder) -> None:
    for part in ("sides", "pairs"):
        for place in (folder.path / part).rglob("checkpoints"):
            ResultsFolder(place.parent).remove_checkpoints()
