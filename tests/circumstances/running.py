"""Every sound script through the protocols, which must be green; every loss, which must be red and named."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.circumstances import alone
from tests.circumstances.bank import MANY, Fault, Sound, write_case
from tests.pools import spawned

if TYPE_CHECKING:
    from harness.verdict import Verdict

PROTOCOLS = ("auto", "full")
#: That there is no golden yet, or was none, is no news of the script.
_OF_GOLDENS = ("golden: recorded", "golden: is there")


@dataclass(frozen=True)
class Found:
    """One verdict, or what was found out about a script without the harness.

    Args:
        name: of the case or the fault.
        step: ``alone``, ``record``, or a protocol.
        wrong: what is wrong with it; empty when nothing is.
        lane: how it was compared with its golden.
        reference: whether the uninterrupted run was needed.
        seconds: how long it took.
    """

    name: str
    step: str
    wrong: tuple[str, ...] = ()
    lane: str = ""
    reference: bool = False
    seconds: float = 0.0

    @property
    def unsound(self) -> bool:
        """Whether the script, or the fault, is not what the tables say."""
        return self.step == "alone" and bool(self.wrong)


def judge(root: Path, sound: Sound, step: str, *, lose: str = "", where: str = "") -> Verdict:
    """One verdict; raises HarnessError.

    Args:
        root: a scratch folder.
        step: a protocol, or ``record``.
        lose: what the script loses.
        where: its results are; else a folder of their own by case and step.
    """
    from harness.cases import load_case
    from harness.matrix import Cell
    from harness.protocol.plan import Options
    from harness.protocol.run import run_cell

    folder = write_case(sound, root / "cases")
    clock = root / "clocks" / sound.name
    clock.parent.mkdir(parents=True, exist_ok=True)
    os.environ.update(LOSE=lose, CLOCK=str(clock), HARNESS_LEASES=str(root / "leases"))
    record = step == "record"
    return run_cell(
        Cell("cpu", "dev", sound.name),
        case=load_case(folder),
        cases=root / "cases",
        goldens=root / "goldens",
        results=root / "results" / (where or f"{sound.name} {step}"),
        options=Options(protocol="auto" if record else step, golden_update=record),
    )


def try_sound(root: Path, sound: Sound) -> list[Found]:
    """The script alone, then its golden, then a clean verdict a protocol."""
    found = [_alone(sound.name, partial(alone.unsound, sound))]
    for step in ("record", *PROTOCOLS):
        one = _timed(root, sound.name, step, partial(judge, root, sound, step), partial(_alarms, sound))
        if not one.wrong:
            shutil.rmtree(root / "results" / f"{sound.name} {step}", ignore_errors=True)
        found.append(one)
    return found


def record(root: Path, sound: Sound) -> list[Found]:
    """The golden that faults are compared with."""
    give = partial(judge, root, sound, "record")
    return [_timed(root, sound.name, "record", give, partial(_alarms, sound))]


def try_fault(root: Path, fault: Fault) -> list[Found]:
    """The faulty script alone, then a verdict a protocol."""
    found = [_alone(fault.name, partial(alone.harmless, fault))]
    for step in PROTOCOLS:
        where = f"{fault.case.name} {fault.lose} {step}"
        give = partial(judge, root, fault.case, step, lose=fault.lose, where=where)
        found.append(_timed(root, fault.name, step, give, partial(missed, fault)))
        if not found[-1].wrong:
            shutil.rmtree(root / "results" / where, ignore_errors=True)
    return found


def _alone(name: str, look: Callable[[Path], str]) -> Found:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            why = look(Path(folder))
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
    return Found(name, "alone", (why,) if why else (), seconds=time.monotonic() - began)


def _timed(
    root: Path, name: str, step: str, give: Callable[[], Verdict], wrong: Callable[[Verdict], list[str]]
) -> Found:
    began = time.monotonic()
    try:
        verdict = give()
    except Exception as error:  # one that the harness should not raise is wrong too
        said = f"{type(error).__name__}: {error}"
        return Found(name, step, (said,), seconds=time.monotonic() - began)
    lane = str(verdict.provenance.get("compared", "none"))
    texts = tuple(text.replace(str(root), "…") for text in wrong(verdict))
    return Found(name, step, texts, lane, "continuous" in verdict.timing, time.monotonic() - began)


def _alarms(sound: Sound, verdict: Verdict) -> list[str]:
    """What keeps a clean verdict from being one; state that is waived counts too."""
    failed = [check for check in verdict.failures if check.name != "golden: recorded"]
    said = [f"{check.name}: {check.message}" for check in failed]
    if verdict.status == "error" or not (verdict.passed or verdict.failures):
        said.append(str(verdict.provenance.get("error", verdict.message or verdict.status)))
    return [*said, *waived(sound, verdict)]


def waived(sound: Sound, verdict: Verdict) -> list[str]:
    """What the ledger has excluded or left out though it is state; nothing where there is no ledger."""
    coverage = verdict.coverage
    if coverage is None:
        return []
    words = (*sound.circumstances, *MANY.get(sound.kind, ()))
    said = [
        f"waived: {rule.file}:{rule.entry} is excluded, which is no circumstance"
        for rule in coverage.rules
        if rule.where == "observed"
        and rule.entry != "file name"
        and not any(word in f"{rule.file}:{rule.entry}" for word in words)
    ]
    counts = (("files", coverage.files), ("entries", coverage.entries), ("copies", coverage.copies))
    left = [f"{count.uncompared} {what}" for what, count in counts if count.uncompared]
    return [*said, *(f"not compared: {text}" for text in left)]


def missed(fault: Fault, verdict: Verdict) -> list[str]:
    """Why a loss is not caught as it should be: red, by a check that says its name, beside a golden."""
    said = []
    if any(check.name in _OF_GOLDENS for check in verdict.failures):
        said.append("there is no golden, as the sound script is not green")
    failed = [check for check in verdict.failures if check.name not in _OF_GOLDENS]
    if verdict.passed:
        said.append("passed")
    elif not any(fault.shown in f"{check.name} {check.message}" for check in failed):
        names = "; ".join(f"{check.name}: {check.message}" for check in failed) or verdict.message
        said.append(f"{fault.shown} is not named; {verdict.status}: {names}")
    return said


def run_all(root: Path, cases: Sequence[Sound], faults: Sequence[Fault], workers: int) -> Iterator[Found]:
    """Everything about ``cases``, or about ``faults`` with the goldens that they need."""
    with spawned(workers) as pool:
        if faults:
            needed = dict.fromkeys(fault.case for fault in faults)
            yield from _as_they_come(pool.submit(record, root, sound) for sound in needed)
            yield from _as_they_come(pool.submit(try_fault, root, fault) for fault in faults)
        else:
            yield from _as_they_come(pool.submit(try_sound, root, sound) for sound in cases)


def _as_they_come(futures: Iterable[Future[list[Found]]]) -> Iterator[Found]:
    for future in as_completed(list(futures)):
        yield from future.result()
