"""Clean goldens, then every fault, packed onto the cores; what caught each and what it was named."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tests.faults.bank import FAULTS, Fault
from tests.faults.cells import WarmLauncher, judge
from tests.pools import spawned

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.metrics import Series
    from harness.verdict import Verdict

#: Kept by a worker process from cell to cell; nothing is started before its first.
WARM = WarmLauncher()
_T = TypeVar("_T")
#: Cells that take longest begin first.
_HEAVY = (
    "tp2_ep2_torch_dist", "tp2_ep2_torch", "tp2_uneven_vocabulary", "pp2_tied", "fewer_replicas", "bf16_dp2",
)  # fmt: skip
#: What Megatron-LM's gate compares of curves.
_LEGACY = ("lm loss", "num-zeros")


@dataclass(frozen=True)
class Caught:
    """How one kind of comparison saw a fault.

    Args:
        checks: how many failed.
        step: the first iteration that one of them is about; None where none has one.
        by: what it was seen by, a metric or a component.
    """

    checks: int
    step: int | None
    by: str


@dataclass(frozen=True)
class Outcome:
    """What became of one fault.

    Args:
        number: of the fault.
        status: the verdict's, or what kept it from being given.
        golden, continuous, state: what caught it; None: nothing did.
        legacy: what Megatron-LM's published thresholds catch in the same runs; empty: they pass.
        approximate: the same, in its mode for cases that are marked as nondeterministic.
        component: the one that was named.
        evidence: why.
        seconds: how long it took.
    """

    number: int
    status: str
    golden: Caught | None = None
    continuous: Caught | None = None
    state: Caught | None = None
    legacy: str = ""
    approximate: str = ""
    component: str = ""
    evidence: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def caught(self) -> bool:
        """Whether the gate was red, by anything but time and memory."""
        return any((self.golden, self.continuous, self.state)) or self.status == "error"

    @property
    def fault(self) -> Fault:
        """The fault."""
        return FAULTS[self.number - 1]

    @property
    def named(self) -> bool:
        """Whether it was caught and its component named."""
        return self.caught and self.component == self.fault.component


@dataclass(frozen=True)
class Bench:
    """Where and how faults are run.

    Args:
        root: a scratch folder: goldens, results.
        protocol: of every fault that does not need another one.
        track: of the cells.
    """

    root: Path
    protocol: str = "full"
    track: str = "dev"

    @property
    def goldens(self) -> Path:
        """Of clean runs."""
        return self.root / "goldens"

    def results(self, what: str) -> Path:
        """Of one run."""
        return self.root / "results" / what


def run_all(bench: Bench, faults: Sequence[Fault], workers: int) -> Iterator[Outcome | str]:
    """Record what is missing of the goldens, then run the faults; outcomes as they come.

    Yields:
        The name of each case whose golden was recorded, then an :class:`Outcome` a fault.
    """
    cases = _longest_first({(fault.case, fault.protocol) for fault in faults})
    with spawned(workers, prepare, bench.root) as pool:
        goldens = [pool.submit(record, bench, *case) for case in cases]
        yield from _as_they_come(goldens)
        order = sorted(faults, key=lambda fault: (fault.case not in _HEAVY, fault.number))
        yield from _as_they_come([pool.submit(run_one, bench, fault.number) for fault in order])


def _as_they_come(futures: Iterable[Future[_T]]) -> Iterator[_T]:
    return (future.result() for future in as_completed(list(futures)))


def _longest_first(cases: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted(cases, key=lambda case: (case[0] not in _HEAVY, case))


def prepare(root: Path) -> None:
    """Of a worker process: leases among the bank's own cells."""
    from harness.machine.leases import FOLDER_VARIABLE

    os.environ[FOLDER_VARIABLE] = str(root / "leases")


def record(bench: Bench, case: str, protocol: str) -> str:
    """Record the golden of a clean run of ``case``.

    Raises:
        RuntimeError: the clean run is not sound, so nothing it is compared with would mean anything.
    """
    verdict = judge(
        case,
        goldens=bench.goldens,
        results=bench.results(f"clean-{case}"),
        track=bench.track,
        protocol=protocol,
        golden_update=True,
        launcher=WARM,
    )
    unsound = [check for check in verdict.failures if check.name != "golden: recorded"]
    if unsound or verdict.status == "error":
        why = unsound[0].message if unsound else verdict.provenance.get("error")
        raise RuntimeError(f"{case}: the clean run fails: {why}")
    return case


def run_one(bench: Bench, number: int) -> Outcome:
    """Run a fault; what keeps it from being judged is told, never raised."""
    from harness.errors import HarnessError

    fault = FAULTS[number - 1]
    results = bench.results(f"{number:02d}")
    shutil.rmtree(results, ignore_errors=True)
    began = time.monotonic()
    try:
        verdict = judge(
            fault.case,
            goldens=bench.goldens,
            results=results,
            track=bench.track,
            plants=fault.plants,
            disk=fault.disk,
            protocol=fault.protocol if fault.protocol != "full" else bench.protocol,
            launcher=WARM,
        )
    except HarnessError as error:
        return Outcome(number, f"could not be run: {error}")
    seconds = time.monotonic() - began
    cell = results / "cpu" / bench.track / fault.case
    shutil.rmtree(cell / "checkpoints", ignore_errors=True)
    golden = bench.goldens / fault.case
    # Another layout has other last bits, so its exact mode would fail clean runs too.
    strict = legacy(cell, golden, exactly=fault.protocol != "reshard")
    approximate = legacy(cell, golden, exactly=False)
    return replace(_outcome(fault, verdict), legacy=strict, approximate=approximate, seconds=seconds)


def _outcome(fault: Fault, verdict: Verdict) -> Outcome:
    diagnosis = verdict.diagnosis
    golden, continuous, state = (
        _caught([c for c in verdict.failures if c.against == against and c.kind != "upper-bound"], fault)
        for against in ("golden", "continuous", "state")
    )
    return Outcome(
        fault.number,
        verdict.status,
        golden,
        continuous,
        state,
        component=diagnosis.component if diagnosis else "",
        evidence=diagnosis.evidence if diagnosis else (),
    )


def _caught(failed: Sequence[Check], fault: Fault) -> Caught | None:
    """The first failure: by iteration, then by the order in which things decide each other.

    Of saved state, which has no order: the part that was lost, where it is among those that differ.
    """
    if not failed:
        return None
    from harness.diagnosis.curves import deviations

    curves = deviations(failed)
    steps = [check.first_bad_step for check in failed if check.first_bad_step is not None]
    names = sorted(
        (c.name.removeprefix("golden: ").partition("state: ")[2] or c.name for c in failed),
        key=lambda name: not name.startswith(fault.component),
    )
    return Caught(len(failed), min(steps, default=None), curves[0].metric if curves else names[0])


def legacy(cell: Path, golden: Path, *, exactly: bool) -> str:
    """What Megatron-LM's published thresholds catch in the runs of ``cell``; empty: they let them pass.

    Its two comparisons: the first run with the golden, and the resumed run with the first. Time and
    memory are left out, of which 5 % are less than what a shared machine does to them.

    Args:
        exactly: as for a case that is marked as deterministic.
    """
    from harness import goldens
    from harness.checks.legacy import compare_as_megatron
    from harness.errors import HarnessError
    from harness.metrics import read_metrics

    def series(phase: str) -> Mapping[str, Series]:
        found = read_metrics(cell / phase / "tensorboard", cell / phase)
        return {name: found[name] for name in _LEGACY if name in found}

    try:
        first, again = series("continuous"), series("resumed")
    except HarnessError:
        return "crash"
    known = goldens.read(next(golden.glob("golden_values_*_cpu.json"))).series
    last = int(first["lm loss"].steps.max())
    checks = compare_as_megatron(
        {name: known[name] for name in _LEGACY if name in known},
        first,
        against="golden",
        last=last,
        deterministic=exactly,
    )
    checks += compare_as_megatron(first, again, against="continuous", last=last, deterministic=exactly)
    failed = [check for check in checks if not check.passed]
    return f"{failed[0].metric}, {failed[0].first_bad_step}" if failed else ""
