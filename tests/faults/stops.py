"""Faults that ``full`` passes, because they show themselves at another k or at a second resume only.

Each must pass ``full``, and be caught by ``every`` or ``chain``, which must come down to the least stops that
show it, and name the component. ``python -m tests.faults`` tries them after the others.
"""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.bank import Acts, Plant
from tests.faults.cells import judge
from tests.faults.plants import stops
from tests.faults.running import WARM, Bench, prepare, record
from tests.pools import spawned

if TYPE_CHECKING:
    from harness.verdict import Verdict

CASE = "many_stops"


@dataclass(frozen=True)
class StopFault:
    """One class of fault that a resume from the middle does not show.

    Args:
        number: the class's number.
        lost: what was lost, in words.
        component: the true one, a word of :mod:`harness.diagnosis`.
        tracker: where it happened.
        protocol: the one that shows it, ``every`` or ``chain``.
        least: the least stops that do.
        plant: patches the trainer in the process of a rank; in every phase.
        acts: when the patched code does something else than the clean one.
        equivalent: how it differs from what happened.
    """

    number: int
    lost: str
    component: str
    tracker: str
    protocol: str
    least: tuple[int, ...]
    plant: Plant
    acts: Acts = "load"
    equivalent: str = ""


STOP_FAULTS: tuple[StopFault, ...] = (
    StopFault(
        51,
        "position in the epoch counted from the last resume: the second one in an epoch goes back",
        "data-order",
        "KempnerForge#57",
        "chain",
        (2, 4),
        stops.position_since_the_resume,
        acts="save",
    ),
    StopFault(
        52,
        "a resumed run saves the iteration that it began at: the second resume starts there again",
        "iteration",
        "torchtitan#571",
        "chain",
        (2, 4),
        stops.iteration_of_the_first_resume,
        acts="save",
        equivalent="the last checkpoint has the right one: there its trainer can save the model alone",
    ),
    StopFault(
        53,
        "resumed in a later epoch as if still in the first",
        "data-order",
        "accelerate#2016",
        "every",
        (14,),
        stops.epoch_forgotten,
    ),
    StopFault(
        54,
        "warm-up begins again where it was not over",
        "lr-schedule",
        "sockeye#925",
        "every",
        (2,),
        stops.warm_up_again,
        equivalent="only the count of the schedule begins again, not the whole optimizer's",
    ),
    StopFault(
        55,
        "resumed at an epoch's end, the next epoch has the order of the first",
        "data-order",
        "Lightning#21941",
        "every",
        (12,),
        stops.first_order_after_an_epochs_end,
        equivalent="the iterator is made with epoch 0's order, as one that prefetches its indices is",
    ),
)


@dataclass(frozen=True)
class StopOutcome:
    """What became of one of them.

    Args:
        number: of the fault.
        full: whether ``full`` passed it.
        status: of the verdict of the protocol that shows it.
        least: the stops that the search came down to.
        component: the one that was named.
        reproduce: the command that the verdict gives.
        resumes: resumed runs that were made, all of them.
        seconds: how long both took.
    """

    number: int
    full: bool
    status: str
    least: tuple[int, ...] = ()
    component: str = ""
    reproduce: str = ""
    resumes: int = 0
    seconds: float = 0.0

    @property
    def fault(self) -> StopFault:
        """The fault."""
        return next(one for one in STOP_FAULTS if one.number == self.number)

    @property
    def right(self) -> bool:
        """Whether it is as the bank says: passed, caught, shrunk and named."""
        fault = self.fault
        return (self.full, self.status, self.least, self.component) == (
            True, "failed", fault.least, fault.component,
        )  # fmt: skip


def try_stops(bench: Bench, faults: Sequence[StopFault], workers: int) -> Iterable[StopOutcome]:
    """Record the clean case's golden, then try each; outcomes as they come."""
    with spawned(workers, prepare, bench.root) as pool:
        pool.submit(record, bench, CASE, "full").result()
        for done in as_completed([pool.submit(try_one, bench, fault.number) for fault in faults]):
            yield done.result()


def try_one(bench: Bench, number: int) -> StopOutcome:
    """One fault by ``full``, then by the protocol that shows it."""
    fault = next(one for one in STOP_FAULTS if one.number == number)
    began = time.monotonic()
    full = _judged(bench, fault, "full")
    found = _judged(bench, fault, fault.protocol)
    searched = found.provenance.get("stops", {})
    return StopOutcome(
        number,
        full=full.passed,
        status=found.status,
        least=tuple(searched.get("least") or ()),
        component=found.diagnosis.component if found.diagnosis else "",
        reproduce=found.reproduce,
        resumes=sum(1 for phase in found.timing if phase.startswith("resumed") and " " not in phase),
        seconds=time.monotonic() - began,
    )


def _judged(bench: Bench, fault: StopFault, protocol: str) -> Verdict:
    results = bench.results(f"{fault.number}-{protocol}")
    shutil.rmtree(results, ignore_errors=True)
    verdict = judge(
        CASE,
        goldens=bench.goldens,
        results=results,
        track=bench.track,
        plants=(fault.plant,),
        protocol=protocol,
        launcher=WARM,
    )
    shutil.rmtree(Path(results, "cpu", bench.track, CASE, "checkpoints"), ignore_errors=True)
    return verdict


# -- the table ----------------------------------------------------------------------------------

_HEAD = (
    "#", "what was lost", "where it happened", "`full`", "caught by", "least stops", "component", "named",
    "resumed runs", "reproduced by",
)  # fmt: skip


def stop_table(outcomes: Iterable[StopOutcome]) -> str:
    """The table, then its totals."""
    found = sorted(outcomes, key=lambda one: one.number)
    rows = [_HEAD, tuple("---" for _ in _HEAD)]
    for one in found:
        fault, least = one.fault, ", ".join(map(str, one.least))
        rows.append((
            str(one.number), fault.lost, fault.tracker, "passes" if one.full else "**fails**",
            fault.protocol if one.status == "failed" else f"**{one.status}**",
            least if one.least == fault.least else f"**{least or 'none'}**", fault.component,
            one.component if one.component == fault.component else f"**{one.component or 'nothing'}**",
            str(one.resumes), f"`{_options(one.reproduce)}`",
        ))  # fmt: skip
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", stop_summary(found) + "."])


def stop_summary(outcomes: Sequence[StopOutcome]) -> str:
    """The totals in one sentence."""
    passed = sum(one.full for one in outcomes)
    right = sum(one.right for one in outcomes)
    return f"{passed} of {len(outcomes)} pass `full`; {right} of {len(outcomes)} caught, shrunk and named"


def stop_line(outcome: StopOutcome) -> str:
    """One line while it goes on."""
    found = f"full {'passes' if outcome.full else 'FAILS'}; {outcome.fault.protocol} {outcome.status}"
    said = (
        f"{found} at {', '.join(map(str, outcome.least)) or 'none'}; named {outcome.component or 'nothing'}"
    )
    wrong = "" if outcome.right else f"; WRONG: {outcome.fault.least}, {outcome.fault.component}"
    return f"{outcome.number:2}  {outcome.fault.lost}: {said}{wrong} ({outcome.seconds:.1f} s)"


def _options(command: str) -> str:
    """Of the command that runs it again, what says how."""
    words = shlex.split(command)
    start = words.index("--protocol") if "--protocol" in words else len(words)
    end = next((i for i, word in enumerate(words) if i > start and word in ("--goldens", "--results")), None)
    return shlex.join(words[start:end])
