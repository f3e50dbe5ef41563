"""Train, save, stop, resume, compare; say what was lost.

The protocols read like that sentence. What each step does is in :mod:`harness.protocol.run`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError, UsageError
from harness.machine.leases import lease
from harness.matrix import Cell
from harness.protocol.crash import check_crash
from harness.protocol.observer import Observer, Silent
from harness.protocol.phases import Phases
from harness.protocol.plan import Options, Plan, prepare
from harness.protocol.results import ResultsFolder, claim
from harness.protocol.run import Run

if TYPE_CHECKING:
    from harness.cases import Case
    from harness.launch.launcher import Launcher
    from harness.protocol.verdict import Verdict


def full(run: Run) -> None:
    """1.5 N iterations: the uninterrupted run is there to compare with, whatever happens."""
    continuous = run.train()
    run.compare_with_golden(continuous)
    run.train_again()
    if not run.plan.resumes:
        return
    source = continuous if run.plan.trainer.can_rewind else run.interrupt()
    resumed = run.resume(source)
    run.compare_with_uninterrupted(resumed, continuous)
    run.compare_saved_state(resumed, continuous)


def fast(run: Run) -> None:
    """N iterations when all is well: the joined curve and the state at N are those of an exact golden.

    On any doubt the uninterrupted reference is run too, so that a failure still tells "resuming is
    broken" from "training changed".
    """
    if run.plan.golden is None or not run.plan.resumes:
        return full(run)
    interrupted = run.interrupt()
    resumed = run.resume(interrupted)
    if run.joined_is_golden(interrupted, resumed):
        return None
    continuous = run.train()
    run.compare_with_golden(continuous)
    run.compare_before(interrupted, continuous)
    run.compare_with_uninterrupted(resumed, continuous)
    run.compare_saved_state(resumed, continuous)
    run.keep_what_is_unexplained()
    return None


def reshard(run: Run) -> None:
    """``full``, resumed with the parallel sizes of MODEL_ARGS_2: another layout must lose nothing."""
    full(run)


def crash(run: Run) -> None:
    """``full``, but the first process is killed; resumed from what a user would have."""
    continuous = run.train()
    run.compare_with_golden(continuous)
    killed, at = run.interrupt_by_killing()
    if killed is None:
        return
    if at == run.n:  # the kill came after the last save, and has cost nothing
        run.compare_saved_state(killed, continuous)
        return
    resumed = run.resume(killed, at=at)
    run.compare_with_uninterrupted(resumed, continuous)
    run.compare_saved_state(resumed, continuous)


PROTOCOLS: dict[str, Callable[[Run], None]] = {
    "full": full, "fast": fast, "crash": crash, "reshard": reshard,
}  # fmt: skip


def run_cell(
    cell: Cell,
    *,
    cases: Path,
    goldens: Path,
    results: Path,
    options: Options | None = None,
    case: Case | None = None,
    observer: Observer | None = None,
    launcher: Launcher | None = None,
) -> Verdict:
    """Run one cell in this environment and write its ``verdict.json``.

    Args:
        cell: what to run.
        cases: the folder that the case is looked for in.
        goldens: the folder of goldens.
        results: gets ``<hardware>/<track>/<case>/``.
        options: how.
        case: the case itself, when it is not to be looked for.
        observer: told of the progress.
        launcher: lent by whoever runs several cells in this environment, so that its warm parent
            imports the trainer once; None: one for this cell.

    Raises:
        HarnessError: the cell cannot be run at all; raised before anything is started.
        KeyboardInterrupt: nothing is left running, and no verdict is written.
    """
    options = options or Options()
    if options.protocol != "auto" and options.protocol not in PROTOCOLS:
        raise UsageError(f"protocol {options.protocol!r}: expected auto or one of {', '.join(PROTOCOLS)}")
    plan = prepare(cell, case=case, cases=cases, goldens=goldens, results=results, options=options)
    name = _chosen(plan)
    observer = observer or Silent()
    wait = observer.note
    with claim(results, cell.hardware, cell.track, cell.case, waiting=wait) as folder:
        with (
            lease(cell.hardware, plan.world_size, wait) as devices,
            Run(Phases(plan, folder, observer, devices, launcher)) as run,
        ):
            run.provenance["protocol"] = name
            PROTOCOLS[name](run)
            run.record_golden()
            run.say_what_was_lost()
        verdict = run.verdict()
        run.write_state_diff()
        verdict.write(folder.verdict)
        _report(plan, folder, verdict, observer)
        if verdict.passed and not options.keep_checkpoints:
            folder.remove_checkpoints()
    return verdict


def _report(plan: Plan, folder: ResultsFolder, verdict: Verdict, observer: Observer) -> None:
    """``report.html``; what keeps it from being written is said, and changes no verdict."""
    from harness.report.html import write_report

    arguments = plan.case.arguments(plan.cell.hardware)
    try:
        write_report(folder.path, verdict, golden=plan.golden, k=plan.k, n=plan.n, arguments=arguments)
    except (OSError, HarnessError, ValueError) as error:
        observer.note(f"report: {error}")


def _chosen(plan: Plan) -> str:
    """``auto`` is fast where the golden is going to be exact; recording needs the whole run.

    Raises:
        UsageError: the protocol that was asked for does not fit the case.
    """
    if plan.options.protocol == "reshard" and not plan.layouts_differ:
        raise UsageError(
            f"{plan.case.name}: protocol reshard needs MODEL_ARGS_2 with other parallel sizes",
            "add them to the case, or take --protocol full",
        )
    if plan.options.protocol == "crash":
        check_crash(plan)
    if plan.options.golden_update and plan.options.protocol in ("auto", "fast", "crash"):
        return "full"
    if plan.options.protocol != "auto":
        return plan.options.protocol
    return "fast" if plan.expects_exact() else "full"
