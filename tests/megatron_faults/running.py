"""Clean runs of each case first, then every fault in a copy of a checkout, one verdict at a time."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.megatron_faults import cases
from tests.megatron_faults.bank import FAULTS, Fault
from tests.megatron_faults.planting import copy_of, fault_in, reached

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.verdict import Verdict

TRACK = "dev"


@dataclass(frozen=True)
class Outcome:
    """What became of one fault in one version.

    Args:
        key: of the fault.
        version: of Megatron-LM.
        status: the verdict's, or what kept it from being given.
        planted: whether the planted lines ran.
        seen: the checks that failed, by name; none means that nothing saw it.
        component: the one that was named.
        evidence: why.
        seconds: how long it took.
    """

    key: str
    version: str
    status: str
    planted: bool = False
    seen: tuple[str, ...] = ()
    component: str = ""
    evidence: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def fault(self) -> Fault:
        """The fault."""
        return next(fault for fault in FAULTS if fault.key == self.key)

    @property
    def caught(self) -> bool:
        """Whether the gate was red, where the clean run is green, by anything but time and memory."""
        return self.planted and bool(self.seen)

    @property
    def named(self) -> bool:
        """Whether it was caught and its component named."""
        return self.caught and self.component == self.fault.component


def run_all(
    root: Path, checkout: Path, faults: Sequence[Fault], *, unclean: bool = False
) -> Iterator[Outcome | str]:
    """Clean runs of the cases that ``faults`` need, then the faults.

    Args:
        root: a scratch folder.
        checkout: of Megatron-LM; it is copied, and only the copy is changed.
        unclean: go on where a clean run fails; what it fails by is then no sign of any fault.

    Yields:
        What is said of each case, then an :class:`Outcome` a fault.

    Raises:
        RuntimeError: a clean run is not sound, so nothing it is compared with would mean anything.
        AnchorError: the checkout has no place for a fault.
    """
    from harness.trainers.megatron.checkout import core_version

    version = core_version(checkout)
    folder = root / version
    copy = copy_of(checkout, folder / "checkout")
    cases.write(folder / "cases")
    besides: dict[str, set[str]] = {}
    for name in dict.fromkeys(fault.case for fault in faults):
        began = time.monotonic()
        verdict = _judge(folder, copy, name, folder / "clean" / name, golden=True)
        unsound = [check for check in _of_state(verdict.failures) if check.name != "golden: recorded"]
        besides[name] = {check.name for check in unsound}
        said = "clean, its golden is recorded"
        if unsound or verdict.status == "error":
            why = "; ".join(check.message or check.name for check in unsound)
            said = f"the clean run fails: {why or verdict.message}"
            if not unclean or verdict.status == "error":
                raise RuntimeError(f"{version}: {name}: {said}")
        yield f"{version}: {name}: {said} ({time.monotonic() - began:.0f} s)"
    for fault in faults:
        with fault_in(copy, fault.edits, fault.key):
            yield _run_one(folder, copy, version, fault, besides[fault.case])


def _run_one(folder: Path, checkout: Path, version: str, fault: Fault, besides: Collection[str]) -> Outcome:
    from harness.errors import HarnessError

    results = folder / "faults" / fault.key
    shutil.rmtree(results, ignore_errors=True)
    began = time.monotonic()
    try:
        verdict = _judge(folder, checkout, fault.case, results, protocol=fault.protocol)
    except HarnessError as error:
        return Outcome(fault.key, version, f"could not be run: {error}")
    cell = results / "cpu" / TRACK / fault.case
    diagnosis = verdict.diagnosis
    return Outcome(
        fault.key,
        version,
        verdict.status,
        planted=reached(cell, fault.key),
        seen=tuple(
            c.name for c in _of_state(verdict.failures) if c.name not in {"golden: is there", *besides}
        ),
        component=diagnosis.component if diagnosis else "",
        evidence=diagnosis.evidence if diagnosis else (),
        seconds=time.monotonic() - began,
    )


def _of_state(failures: Sequence[Check]) -> list[Check]:
    from harness.metrics import known

    return [check for check in failures if not (check.metric and known.about(check.metric).cost)]


def _judge(
    folder: Path, checkout: Path, name: str, results: Path, *, golden: bool = False, protocol: str = "full"
) -> Verdict:
    from harness.cases import load_case
    from harness.matrix import Cell
    from harness.protocol.plan import Options
    from harness.protocol.run import run_cell
    from harness.trainers.megatron.checkout import CHECKOUT

    os.environ[CHECKOUT] = str(checkout)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # see copy_of
    root = folder / "cases"
    verdict = run_cell(
        Cell("cpu", TRACK, name),
        case=load_case(root / "gpt" / name),
        cases=root,
        goldens=folder / "goldens",
        results=results,
        options=Options(protocol=protocol, golden_update=golden),
    )
    for cache in results.rglob("data_cache"):  # of mock data, larger than all else
        shutil.rmtree(cache, ignore_errors=True)
    return verdict
