"""The values of finished runs as goldens: one cell's results, or a whole tree of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import GoldenError, HarnessError, NothingToDo, UsageError, VerdictError
from harness.goldens.store import Planned
from harness.matrix import MEGATRON_ON_CPU, Cell, cases_by_name, platform_of

if TYPE_CHECKING:
    from harness.metrics import Series
    from harness.verdict import Verdict

VERDICT = "verdict.json"
_SHOWN = 3  # failed checks by name


@dataclass(frozen=True)
class Refused:
    """Results that cannot be approved, and why."""

    cell: str
    reason: str


def plan(results: Path, store: Path, cases: Path) -> tuple[list[Planned], list[Refused]]:
    """Read results and say what approving them would write.

    Args:
        results: a cell's folder, or any folder above some.
        store: the goldens.
        cases: says which metrics of a case are compared.

    Raises:
        UsageError: there is nothing at ``results``.
        NothingToDo: there is no verdict.
        VerdictError: there is one that is none.
    """
    if not results.is_dir():
        what = "is no folder" if results.exists() else "is not there"
        raise UsageError(f"{results}: {what}, expected results", "e.g. results/cpu/dev/<case>")
    verdicts = sorted(results.rglob(VERDICT))
    if not verdicts:
        raise NothingToDo(f"{results}: holds no {VERDICT}", "run the cells first")
    known = known_cases(cases)
    planned: list[Planned] = []
    refused: list[Refused] = []
    for path in verdicts:
        cell, verdict = read_run(path)
        reason = unsound(path.parent, verdict)
        if reason is None:
            try:
                planned.append(golden_of(path.parent, cell, verdict.provenance, store, known))
            except HarnessError as error:
                reason = error.message
        if reason is not None:
            refused.append(Refused(cell.id, reason))
    twice = {golden.path for golden in planned if sum(other.path == golden.path for other in planned) > 1}
    if twice:
        raise UsageError(f"{results}: holds two runs for {min(twice)}", "approve one of them by its folder")
    return planned, refused


def known_cases(cases: Path) -> Mapping[str, Path]:
    """Each case's folder by its name; empty where there is no such folder."""
    return cases_by_name(cases) if cases.is_dir() else {}


def read_run(path: Path) -> tuple[Cell, Verdict]:
    """A verdict, and which cell it is of.

    Raises:
        VerdictError: it is none.
    """
    from harness.verdict.reading import read_verdict

    verdict = read_verdict(path)
    try:
        return Cell.parse(verdict.cell), verdict
    except UsageError as error:
        raise VerdictError(f"{path}: {error.message}") from error


def unsound(folder: Path, verdict: Verdict) -> str | None:
    """Why a run is no golden: whatever was not about the golden itself has to hold."""
    if verdict.status not in ("passed", "failed"):
        return f"its status is {verdict.status}: the run did not come to its end"
    failed = [check.name for check in verdict.failures if check.against != "golden"]
    if failed:
        rest = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        return f"resuming lost something: {', '.join(failed[:_SHOWN])}{rest} failed"
    if not (folder / "continuous").is_dir():
        return "there is no uninterrupted run in it: run the cell with --protocol full"
    if not isinstance(verdict.provenance.get("fingerprint"), dict):
        return "its verdict does not say what it ran on: run the cell again"
    return None


def golden_of(
    folder: Path, cell: Cell, provenance: Mapping[str, Any], store: Path, known: Mapping[str, Path]
) -> Planned:
    """The golden that approving a run would write.

    Args:
        folder: the cell's results.
        provenance: the verdict's.
        known: folders of cases by name, see :func:`known_cases`.

    Raises:
        HarnessError: the run logged nothing that the case compares, or its case is broken.
    """
    from harness.goldens import file_name, provenance_of
    from harness.goldens.sources import provenance as old_provenance
    from harness.goldens.subjects import changes
    from harness.metrics import read_metrics
    from harness.metrics.known import about

    phase = folder / "continuous"
    series: Mapping[str, Series] = read_metrics(phase / "tensorboard", phase)
    wanted, remarks = metrics_of(cell, known)
    platform = platform_of(cell.hardware, provenance)
    # Behind a stand-in nothing is measured: no run there has a cost that could be compared.
    series = {
        name: one for name, one in series.items()
        if (not wanted or name in wanted) and not (platform == MEGATRON_ON_CPU and about(name).cost)
    }  # fmt: skip
    if not series:
        raise GoldenError(f"{phase}: logged none of {', '.join(wanted) or 'any metric'}")
    target = store / cell.case / file_name(cell.track, platform)
    try:
        old = old_provenance(target)
        if old.get("statistics"):
            remarks.append(
                "the statistics of the old one's repeats are dropped; --golden-update --repeats N makes them"
            )
        remarks += [f"another subject: {what}" for what in changes(old, provenance)]
    except GoldenError:
        pass  # what cannot be read is replaced
    state, subject, resumed = (provenance.get(key) for key in ("state", "subject", "resumed"))
    return Planned(
        target,
        series,
        provenance_of(
            provenance["fingerprint"],
            state if isinstance(state, dict) else {},
            how="approved",
            protocol=str(provenance.get("protocol", "full")),
            subject=subject if isinstance(subject, dict) else None,
            circumstances=provenance.get("circumstances") or (),
            values=provenance.get("values"),
            resumed=resumed if isinstance(resumed, dict) else None,
        )
        | {"run": {key: provenance[key] for key in ("finished", "commit") if provenance.get(key)}},
        folder,
        tuple(remarks),
    )


def metrics_of(cell: Cell, known: Mapping[str, Path]) -> tuple[tuple[str, ...], list[str]]:
    """The metrics that the case compares, as when a golden is recorded; all for a case not at hand."""
    from harness.cases import load_case

    if cell.case not in known:
        return (), ["its case is not at hand (--cases): all metrics are taken"]
    return load_case(known[cell.case]).metrics, []
