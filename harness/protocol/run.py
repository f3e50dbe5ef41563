"""One cell run from its plan to its verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError, UsageError
from harness.machine.leases import lease
from harness.matrix import Cell
from harness.protocol.conclusions import diagnose_run, record_golden, verdict_of, what_passing_takes
from harness.protocol.findings import Findings, SavedState
from harness.protocol.observer import Observer, Silent
from harness.protocol.phases import Phases
from harness.protocol.plan import Options, Plan, prepare
from harness.protocol.protocols import PROTOCOLS, choose
from harness.protocol.results import ResultsFolder, claim
from harness.protocol.steps import Steps

if TYPE_CHECKING:
    from harness.cases import Case
    from harness.diagnosis import Diagnosis
    from harness.launch.launcher import Launcher
    from harness.verdict import Verdict

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
    observer: Observer | None = None,
    launcher: Launcher | None = None,
    report: Report | None = None,
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
        report: called while the results are still this run's own; what keeps it from being written is
            said, and changes no verdict.

    Raises:
        HarnessError: the cell cannot be run at all; raised before anything is started.
        KeyboardInterrupt: nothing is left running, and no verdict is written.
    """
    options = options or Options()
    if options.protocol != "auto" and options.protocol not in PROTOCOLS:
        raise UsageError(f"protocol {options.protocol!r}: expected auto or one of {', '.join(PROTOCOLS)}")
    plan = prepare(cell, case=case, cases=cases, goldens=goldens, results=results, options=options)
    protocol = choose(plan)
    observer = observer or Silent()
    wait = observer.note
    with claim(results, cell.hardware, cell.track, cell.case, waiting=wait) as folder:
        with (
            lease(cell.hardware, plan.world_size, wait) as devices,
            Phases(plan, folder, observer, devices, launcher) as phases,
        ):
            steps, findings = Steps(phases), Findings()
            diagnosis, failure = _judge(protocol, steps, findings)
        verdict = verdict_of(protocol, steps, findings, diagnosis, failure)
        _write_state_diff(folder, findings)
        verdict.write(folder.verdict)
        if report is not None:
            try:
                report(plan, folder.path, verdict)
            except (OSError, HarnessError, ValueError) as error:
                observer.note(f"report: {error}")
        if verdict.passed and not options.keep_checkpoints:
            folder.remove_checkpoints()
    return verdict


def _judge(protocol: str, steps: Steps, findings: Findings) -> tuple[Diagnosis | None, HarnessError | None]:
    """Take the steps; what ends them early (a dead rank, a torn file) goes into the verdict too."""
    try:
        for found in PROTOCOLS[protocol](steps):
            findings.add(found)
        findings.add(what_passing_takes(steps, findings))
        findings.add(record_golden(steps, findings))
        return diagnose_run(steps, findings), None
    except HarnessError as error:
        from harness.diagnosis import crash

        return crash(error), error


def _write_state_diff(folder: ResultsFolder, findings: Findings) -> None:
    """What differs, tensor by tensor, beside the verdict."""
    state = findings.last(SavedState)
    if state is not None and state.difference is not None:
        path = folder.path / "state_diff.json"
        path.write_text(json.dumps(state.difference.as_dict(), indent=1, default=str) + "\n")
