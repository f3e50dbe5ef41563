"""One cell run from its plan to its verdict."""

from __future__ import annotations

import contextlib
import json
import os
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cases import find_case
from harness.engines import engine_of
from harness.errors import (
    CheckpointError,
    HardwareMissing,
    HarnessError,
    MetricsError,
    NotAllocated,
    NotRun,
    TrainerFailed,
    Unforeseen,
    UsageError,
)
from harness.launch.launcher import Launcher
from harness.machine import signals
from harness.machine.leases import lease
from harness.matrix import Cell
from harness.protocol import judge
from harness.protocol.conclusions import diagnose_run, record_golden, verdict_of, what_passing_takes
from harness.protocol.findings import Findings, Found, SavedState
from harness.protocol.observer import Observer, Silent
from harness.protocol.phases import Phases
from harness.protocol.plan import Options, Plan, prepare
from harness.protocol.protocols import PROTOCOLS, choose
from harness.protocol.refusal import command_line, refused, sentence
from harness.protocol.results import ResultsFolder, claim
from harness.protocol.searching import at_least, of_one_run, told
from harness.protocol.steps import Steps
from harness.text import utc_now
from harness.verdict import Run
from harness.verdict.sweep import JOB

if TYPE_CHECKING:
    from harness.cases import Case
    from harness.diagnosis import Diagnosis
    from harness.verdict import Verdict

#: What keeps a cell of a cluster from being run, which is known when it is asked for nodes.
_NO_NODES = (NotRun, NotAllocated, HardwareMissing)
#: Shows a finished cell to people; given its plan, the folder of its results, and its verdict.
Report = Callable[[Plan, Path, "Verdict"], object]


def run_cell(
    cell: Cell,
    *,
    cases: Path,
    goldens: Path,
    results: Path,
    options: Options | None = None,
    case: Case | None = None,
    asked: str = "",
    observer: Observer | None = None,
    launcher: Launcher | None = None,
    report: Report | None = None,
    afterwards: Callable[[Steps, Findings], dict[str, object]] | None = None,
) -> Verdict:
    """Run one cell in this environment and write its ``verdict.json``.

    Args:
        cell: what to run.
        cases: the folder that the case is looked for in.
        goldens: the folder of goldens.
        results: gets ``<hardware>/<track>/<case>/``.
        options: how.
        case: the case itself, when it is not to be looked for.
        asked: the case's name or path, as it was asked for; empty: the cell says it.
        observer: told of the progress.
        launcher: lent by whoever runs several cells in this environment, so that its warm parent
            imports the trainer once; None: one for this cell.
        report: called while the results are still this run's own; what keeps it from being written is
            said, and changes no verdict.
        afterwards: what else is tried when all was judged; what it returns goes into the provenance.

    Raises:
        HarnessError, OSError: the cell cannot be run at all; raised before anything is started. Then its
            verdict is ``refused``, or ``skipped``, unless its folder is none that could be written to.
        KeyboardInterrupt: nothing is left running, and no verdict is written.
        NotRun: the job is taken away, as a signal said: nothing is left running; its verdict is ``skipped``.
    """
    run = Run(uuid.uuid4().hex, started=utc_now(), finished="")
    options = options or Options()
    Cell.parse(cell.id)  # what cannot be a folder has none
    observer = observer or Silent()
    in_a_job = "SLURM_JOB_ID" in os.environ or JOB in os.environ
    with claim(
        results,
        cell.hardware,
        cell.track,
        cell.case,
        run=run,
        waiting=observer.note,
        shared=in_a_job or options.where.engine != "local",
    ) as folder:

        def again() -> str:
            folders = [("cases", cases, Path("test_cases")), ("goldens", goldens, Path("goldens")),
                       ("results", results, Path("results"))]  # fmt: skip
            named = asked or (str(case.directory) if case else cell.case)
            return command_line(cell, named, options, folders)

        with _taken_away(cell, run, folder, again), ExitStack() as held:
            try:
                _check_protocol(options)
                case = case or find_case(asked or cell.case, cases)
                plan = prepare(
                    cell, case=case, cases=cases, goldens=goldens, results=results, options=options
                )
                protocol = choose(plan)
                devices: Mapping[str, str] = {}
                if plan.options.where.engine == "local" and JOB in os.environ:
                    pass  # a sweep's task: what is here is its own, and nobody else's
                elif plan.options.where.engine == "local":
                    devices = held.enter_context(lease(cell.hardware, plan.world_size, observer.note))
                else:  # its nodes are this cell's alone
                    engine = engine_of(plan.wanted)
                    launcher = held.enter_context(Launcher(engine, observer.note))
                phases = held.enter_context(Phases(plan, folder, observer, devices, launcher))
            except Exception as error:
                refused(error, cell, run, folder.path, again()).write(folder.verdict)
                raise
            steps, findings = Steps(phases), Findings()
            try:
                diagnosis, failure = _judge(protocol, steps, findings)
            except _NO_NODES as error:  # nodes that were not given, or taken away
                folder.still_ours()
                refused(error, cell, run, folder.path, plan.reproduce).write(folder.verdict)
                raise
            more = afterwards(steps, findings) if afterwards is not None and failure is None else {}
        folder.still_ours()
        at = at_least(steps, findings)
        verdict = told(verdict_of(protocol, at, findings, diagnosis, failure, run), findings)
        verdict = replace(verdict, provenance={**verdict.provenance, **more}) if more else verdict
        try:
            _write_state_diff(folder, findings, verdict.diagnosis)
        except OSError as error:
            observer.note(f"state_diff.json: {sentence(error)}")
        verdict.write(folder.verdict)
        if report is not None:
            try:
                report(plan, folder.path, verdict)
            except (OSError, HarnessError, ValueError) as error:
                observer.note(f"report: {error}")
        if verdict.passed and not options.keep_checkpoints:
            folder.remove_checkpoints()
    return verdict


@contextlib.contextmanager
def _taken_away(cell: Cell, run: Run, folder: ResultsFolder, again: Callable[[], str]) -> Iterator[None]:
    """A job that is told that it will be taken away: its cell was not run, neither green nor red."""
    try:
        yield
    except signals.TakenAway as told:
        error = NotRun(f"its job was to be taken away: {told} came")
        folder.still_ours()
        refused(error, cell, run, folder.path, again()).write(folder.verdict)
        raise error from None


def _check_protocol(options: Options) -> None:
    if options.protocol != "auto" and options.protocol not in PROTOCOLS:
        raise UsageError(f"protocol {options.protocol!r}: expected auto or one of {', '.join(PROTOCOLS)}")


def _judge(protocol: str, steps: Steps, findings: Findings) -> tuple[Diagnosis | None, HarnessError | None]:
    """Take the steps; what ends them early (a dead rank, an unreadable log) goes into the verdict too."""
    try:
        for found in PROTOCOLS[protocol](steps):
            findings.add(found)
        findings.add(what_passing_takes(steps, findings))
        findings.add(record_golden(steps, findings))
        return diagnose_run(at_least(steps, findings), of_one_run(findings)), None
    except MetricsError as error:  # it has trained to its end: a check failed, and nothing has crashed
        findings.add(Found(checks=(judge.not_logged(error),)))
        return None, None
    except _NO_NODES:
        raise
    except HarnessError as error:
        from harness.diagnosis import crash

        if isinstance(error, TrainerFailed) and not isinstance(error.__cause__, CheckpointError):
            findings.add(Found(checks=(judge.not_ended(error),)))
        return crash(error), error
    except Exception as error:  # noqa: BLE001 - whatever it is, the cell ends with a verdict that says so
        from harness.diagnosis import crash

        failure = _unforeseen(error, steps.phases.folder.path)
        return crash(failure), failure


def _unforeseen(error: Exception, folder: Path) -> Unforeseen:
    """In one sentence; where it happened stands in a file, unless the disk is what it is about."""
    if isinstance(error, OSError):
        return Unforeseen(f"the run could not go on: {sentence(error)}")
    told = folder / "traceback.txt"
    with contextlib.suppress(OSError):
        told.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    said = f"the harness itself has failed: {type(error).__name__}: {sentence(error)}"
    return Unforeseen(said, f"report it, with {told}")


def _write_state_diff(folder: ResultsFolder, findings: Findings, diagnosis: Diagnosis | None) -> None:
    """What differs, tensor by tensor, beside the verdict: the cause first."""
    state = findings.last(SavedState)
    if state is None or state.difference is None:
        return
    from harness.diagnosis import in_order_of_cause

    entries = in_order_of_cause(state.difference.entries, diagnosis)
    cause = None
    if diagnosis is not None and (entries or diagnosis.entry):
        lost = [one.name for one in entries[:1] if one.component == diagnosis.component]
        entry = diagnosis.entry or next(iter(lost), "")
        cause = {"component": diagnosis.component, "entry": entry, "evidence": diagnosis.evidence}
    written = {"cause": cause, **replace(state.difference, entries=entries).as_dict()}
    (folder.path / "state_diff.json").write_text(json.dumps(written, indent=1, default=str) + "\n")
