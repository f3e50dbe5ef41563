"""A golden and a clean verdict of each script, then every fault in `full`: what caught it, and its name."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.experiments.bank import BY_NAME, FAULTS, Edits, Fault, Script
from tests.pools import spawned

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.verdict import Verdict

#: That a golden was recorded is no failure of the script.
_RECORDED = "golden: recorded"
Named = Literal["named", "candidate", "unknown", "wrong", "passed"]


@dataclass(frozen=True)
class Outcome:
    """What became of one fault.

    Args:
        fault: its name.
        status: the verdict's, or what kept it from being given.
        golden, continuous, state: what was seen first by each kind of comparison; empty: nothing.
        component: the one that was named.
        candidates: the components that may have been lost, likeliest first.
        evidence: why.
        seconds: how long it took.
    """

    fault: str
    status: str
    golden: str = ""
    continuous: str = ""
    state: str = ""
    component: str = ""
    candidates: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def of(self) -> Fault:
        """The fault."""
        return next(fault for fault in FAULTS if fault.name == self.fault)

    @property
    def caught(self) -> bool:
        """Whether the gate was red, by anything but time and memory."""
        return bool(self.golden or self.continuous or self.state) or self.status == "error"

    @property
    def named(self) -> Named:
        """How it was named; a right candidate of ``unknown`` is no wrong name."""
        if not self.caught:
            return "passed"
        if self.component == self.of.component:
            return "named"
        if self.component not in ("unknown", ""):
            return "wrong"
        return "candidate" if self.of.component in self.candidates else "unknown"


def judge(
    root: Path, script: Script, what: str, edits: Edits = (), *, record: bool = False, keep: bool = False
) -> Verdict:
    """One verdict; raises HarnessError and PlaceError.

    Args:
        root: a scratch folder.
        what: its case and its results are kept below this name.
        record: a golden.
        keep: the checkpoints.
    """
    from harness.cases import load_case
    from harness.matrix import Cell
    from harness.protocol.plan import Options
    from harness.protocol.run import run_cell

    own = root / what
    shutil.rmtree(own, ignore_errors=True)
    folder = script.write(own / "cases", edits)
    os.environ["HARNESS_LEASES"] = str(root / "leases")
    return run_cell(
        Cell("cpu", "dev", script.name),
        case=load_case(folder),
        cases=own / "cases",
        goldens=root / "goldens",
        results=own / "results",
        options=Options(protocol="auto" if record else "full", golden_update=record, keep_checkpoints=keep),
    )


def prove(root: Path, name: str) -> str:
    """Record the golden of a script, and see it green; one line about it.

    Raises:
        RuntimeError: it is not sound, so that its faults would mean nothing.
    """
    began, script = time.monotonic(), BY_NAME[name]
    for record in (True, False):
        what = f"{name} {'recorded' if record else 'sound'}"
        verdict = judge(root, script, what, record=record)
        failed = [check for check in verdict.failures if not (record and check.name == _RECORDED)]
        if failed or verdict.status == "error" or (not record and not verdict.passed):
            why = failed[0].message if failed else verdict.provenance.get("error", verdict.message)
            raise RuntimeError(f"{what}: {why}")
    return f"{name}: recorded, then green ({time.monotonic() - began:.0f} s)"


def try_fault(root: Path, name: str, *, keep: bool = False) -> Outcome:
    """The verdict of a fault; what keeps it from being given is told, never raised."""
    from harness.errors import HarnessError

    [fault] = [fault for fault in FAULTS if fault.name == name]
    began = time.monotonic()
    try:
        verdict = judge(root, fault.script, name, fault.edits, keep=keep)
    except HarnessError as error:
        return Outcome(name, f"could not be run: {error}", seconds=time.monotonic() - began)
    failed = [check for check in verdict.failures if check.kind != "upper-bound"]
    golden, continuous, state = (
        _first([check for check in failed if check.against == against])
        for against in ("golden", "continuous", "state")
    )
    diagnosis = verdict.diagnosis
    return Outcome(
        name,
        verdict.status,
        golden,
        continuous,
        state,
        component=diagnosis.component if diagnosis else "",
        candidates=tuple(one.component for one in diagnosis.candidates) if diagnosis else (),
        evidence=tuple(diagnosis.evidence) if diagnosis else (),
        seconds=time.monotonic() - began,
    )


def _first(failed: Sequence[Check]) -> str:
    """The check that failed at the earliest step, or the first of those that have none."""
    if not failed:
        return ""
    check = min(failed, key=lambda one: (one.first_bad_step is None, one.first_bad_step or 0))
    name = check.name.partition(f"{check.against}: ")[2] or check.name
    return name if check.first_bad_step is None else f"{name}, {check.first_bad_step}"


def run_all(
    root: Path, scripts: Sequence[Script], faults: Sequence[Fault], workers: int, *, keep: bool = False
) -> Iterator[Outcome | str]:
    """A line for each script that is sound, then an outcome a fault, as they come.

    Raises:
        RuntimeError: a script is not sound.
    """
    with spawned(workers) as pool:
        for proved in as_completed([pool.submit(prove, root, script.name) for script in scripts]):
            yield proved.result()
        tried = [pool.submit(try_fault, root, fault.name, keep=keep) for fault in faults]
        for done in as_completed(tried):
            yield done.result()
