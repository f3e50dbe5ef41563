"""Train, save, stop, resume, compare; say what was lost.

The protocols read like that sentence. What each step does is in :mod:`harness.run`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.matrix import Cell
from harness.results import claim
from harness.run import Observer, Run, Silent, prepare

if TYPE_CHECKING:
    from harness.cases import Case
    from harness.report.verdict import Verdict


def full(run: Run) -> None:
    """1.5 N iterations: the uninterrupted run is there to compare with, whatever happens."""
    continuous = run.train(stop=run.n)
    run.compare_with_golden(continuous)

    resumed = run.resume(continuous, at=run.k, stop=run.n)
    run.compare_with_uninterrupted(resumed, continuous)
    run.compare_saved_state(resumed, continuous)


PROTOCOLS: dict[str, Callable[[Run], None]] = {"full": full}


def run_cell(  # noqa: PLR0913 - what a command line can say
    cell: Cell,
    *,
    cases: Path,
    goldens: Path,
    results: Path,
    protocol: str = "full",
    golden_update: bool = False,
    keep_checkpoints: bool = False,
    heartbeat_timeout: float | None = None,
    case: Case | None = None,
    observer: Observer | None = None,
) -> Verdict:
    """Run one cell in this environment and write its ``verdict.json``.

    Args:
        cell: what to run.
        cases: the folder that the case is looked for in.
        goldens: the folder of goldens.
        results: gets ``<hardware>/<track>/<case>/``.
        protocol: one of :data:`PROTOCOLS`.
        golden_update: record the golden instead of comparing with it; the verdict is ``failed``.
        keep_checkpoints: also after a pass.
        heartbeat_timeout: seconds without an iteration after which a rank counts as hung.
        case: the case itself, when it is not to be looked for.
        observer: told of the progress.

    Raises:
        HarnessError: the cell cannot be run at all; raised before anything is started.
        KeyboardInterrupt: nothing is left running, and no verdict is written.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(f"protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    plan = prepare(
        cell, case=case, cases=cases, goldens=goldens, results=results, protocol=protocol,
        golden_update=golden_update, heartbeat_timeout=heartbeat_timeout,
    )  # fmt: skip
    observer = observer or Silent()
    with claim(results, cell.hardware, cell.track, cell.case, waiting=observer.note) as folder:
        with Run(plan, folder, observer) as run:
            PROTOCOLS[protocol](run)
            run.record_golden()
            run.say_what_was_lost()
        verdict = run.verdict()
        verdict.write(folder.verdict)
        if verdict.passed and not keep_checkpoints:
            folder.remove_checkpoints()
    return verdict
