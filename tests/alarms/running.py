"""Clean verdicts, in all conditions that must not matter."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass

from tests.faults.bank import CASES, FAULTS
from tests.faults.cells import judge
from tests.faults.running import WARM, Bench, prepare, record
from tests.pools import spawned

PROTOCOLS = ("full", "fast")
#: The clean twin of each case of the bank, and the protocol that it needs, where that is another one.
SPECIAL = {fault.case: fault.protocol for fault in FAULTS if fault.protocol != "full"}
NAMES = sorted(path.name for path in CASES.glob("*/*"))


@dataclass(frozen=True)
class Clean:
    """One clean verdict.

    Args:
        case, protocol, beside: what was run, and beside what.
        alarms: what failed, which should be nothing.
        lane: how it was compared with its golden.
        seconds: how long it took.
    """

    case: str
    protocol: str
    beside: str
    alarms: tuple[str, ...]
    lane: str
    seconds: float


def run_one(bench: Bench, number: int, case: str, protocol: str, beside: str) -> Clean:
    """Run a clean cell; anything that keeps it from passing is an alarm."""
    from harness.errors import HarnessError

    results = bench.results(f"verdict {number}")
    began = time.monotonic()
    try:
        verdict = judge(
            case, goldens=bench.goldens, results=results, track=bench.track,
            protocol=SPECIAL.get(case, protocol), launcher=WARM,
        )  # fmt: skip
        alarms = [f"{check.name}: {check.message}" for check in verdict.failures]
        if verdict.status == "error" or not (verdict.passed or alarms):
            alarms.append(str(verdict.provenance.get("error", verdict.status)))
        lane = str(verdict.provenance.get("compared", "none"))
    except HarnessError as error:
        alarms, lane = [str(error)], "none"
    if not alarms:
        shutil.rmtree(results, ignore_errors=True)
    return Clean(case, protocol, beside, tuple(alarms), lane, time.monotonic() - began)


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep ``count`` cores busy for as long as the block runs."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def run_all(bench: Bench, rounds: int, workers: int) -> Iterator[Clean | str]:
    """Goldens, then verdict after verdict."""
    number = 0
    with spawned(workers, prepare, bench.root) as pool:
        for future in as_completed(
            [pool.submit(record, bench, case, SPECIAL.get(case, "full")) for case in NAMES]
        ):
            yield future.result()
        for beside, count in (("nothing", 0), ("a busy machine", os.cpu_count() or 1)) * rounds:
            with busy(count):
                futures = []
                for case in NAMES:
                    for protocol in PROTOCOLS:
                        number += 1
                        futures.append(pool.submit(run_one, bench, number, case, protocol, beside))
                for done in as_completed(futures):
                    yield done.result()


def markdown(found: Sequence[Clean], track: str, torch: str) -> str:
    """A row a case, a column a condition, and the total."""
    columns = list(dict.fromkeys((c.protocol, c.beside) for c in found))
    columns.sort()
    head = ["case", *(f"{protocol}, beside {beside}" for protocol, beside in columns)]
    rows = [head, ["---" for _ in head]]
    for case in NAMES:
        row = [case]
        for condition in columns:
            here = [c for c in found if c.case == case and (c.protocol, c.beside) == condition]
            bad = [c for c in here if c.alarms]
            row.append(f"**{len(bad)} of {len(here)} fail**" if bad else f"{len(here)} passed")
        rows.append(row)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", f"Track {track}, torch {torch}: {total(found)}."])


def total(found: Sequence[Clean]) -> str:
    """How many there were, and how many of them failed."""
    exact = sum(c.lane == "exact" for c in found)
    alarms = sum(bool(c.alarms) for c in found)
    return f"{len(found)} clean verdicts ({exact} compared bit for bit), {alarms} false alarms"
