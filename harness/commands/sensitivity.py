"""``harness sensitivity CASE``: what a resumed run depends on, and what of it the checks would miss."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.output import as_json, flag_json, line, table
from harness.errors import EXIT_FAILED, EXIT_PASSED, HarnessError, UsageError

if TYPE_CHECKING:
    from harness.protocol.certificate import Certificate
    from harness.protocol.findings import Findings
    from harness.protocol.steps import Steps

#: Seconds that the trials of a case may take, beside the run itself.
_BUDGET = 600.0


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """The options."""
    command = commands.add_parser(
        "sensitivity",
        help="which saved entries a resumed run depends on, and which the checks would miss",
        description="Run a case; then alter each group of entries of its checkpoint, resume, and judge.",
    )
    command.set_defaults(do=_sensitivity)
    command.add_argument("case", metavar="CASE", help="a name, or the path of a case's folder or file")
    command.add_argument("--hardware", metavar="NAME", help="default: what is here, cpu without a GPU")
    command.add_argument("--track", metavar="NAME", help="default: dev, or the first of this repository")
    command.add_argument("--trainer", metavar="NAME", default="", help="default: the case's")
    for name in ("cases", "goldens", "results"):
        default = Path("test_cases" if name == "cases" else name)
        text = f"folder of {name}, default: %(default)s"
        command.add_argument(f"--{name}", metavar="FOLDER", type=Path, default=default, help=text)
    command.add_argument(
        "--entry",
        metavar="NAME",
        action="append",
        default=[],
        help="only this one, also where the case fails",
    )
    command.add_argument(
        "--budget", metavar="SECONDS", type=float, default=_BUDGET,
        help="that the trials may take; groups are as small as it allows; default: %(default)g",
    )  # fmt: skip
    command.add_argument("--heartbeat-timeout", metavar="SECONDS", type=float, help="as for run")
    flag_json(command)


def _sensitivity(arguments: argparse.Namespace) -> int:
    from harness.commands.run import cell_of
    from harness.launch.launcher import Launcher
    from harness.protocol.plan import Options
    from harness.protocol.run import run_cell
    from harness.report.html import write_report_of
    from harness.report.terminal import Terminal

    if not 0 < arguments.budget < 1e7:
        raise UsageError(f"--budget {arguments.budget:g}: expected seconds, above 0")
    cell = cell_of(arguments.case, arguments)
    made: list[Certificate] = []
    problems: list[HarnessError] = []

    def afterwards(steps: Steps, findings: Findings) -> dict[str, object]:
        try:
            found = _certificate(steps, findings, arguments)
        except HarnessError as error:  # the verdict of the run itself stands
            problems.append(error)
            return {}
        if found is None:
            return {}
        made.append(found)
        folder = steps.phases.folder.path
        (folder / "sensitivity.json").write_text(json.dumps(found.as_dict(), indent=1) + "\n", "utf-8")
        (folder / "sensitivity.md").write_text(found.page(cell.id), "utf-8")
        return {"sensitivity": found.sentence()}

    out = sys.stderr if arguments.json else sys.stdout
    with Launcher() as launcher, Terminal.on(out) as terminal:
        verdict = run_cell(
            cell,
            asked=arguments.case,
            cases=arguments.cases,
            goldens=arguments.goldens,
            results=arguments.results,
            options=Options(
                protocol="full", trainer=arguments.trainer, heartbeat_timeout=arguments.heartbeat_timeout
            ),
            observer=terminal,
            launcher=launcher,
            report=write_report_of,
            afterwards=afterwards,
        )
        terminal.verdict(verdict)
    if problems:
        raise problems[0]
    if not made:
        if verdict.passed:
            raise UsageError(
                f"{cell.id}: is not resumed: nothing depends on what is saved", "name another case"
            )
        return verdict.exit_code
    found = made[0]
    if arguments.json:
        as_json(found.as_dict())
    else:
        table(("component", "entries", "if lost", "iteration", "by"), found.rows())
        line(f"{found.sentence()}; {found.iterations} iterations more, {found.seconds:.0f} s")
    missed = any(each.outcome == "missed" for each in found.lines)
    return EXIT_FAILED if missed else EXIT_PASSED if verdict.passed else verdict.exit_code


def _certificate(steps: Steps, findings: Findings, arguments: argparse.Namespace) -> Certificate | None:
    """Of a sound case, or of the entries that were asked for; None where nothing was resumed."""
    from harness.protocol.certificate import certify

    source, resumed = findings.source, findings.phase("resumed")
    continuous = findings.phase("continuous")
    sound = not [check for check in findings.failures if check.against != "golden"]
    if source is None or resumed is None or continuous is None or not (sound or arguments.entry):
        return None
    reference = continuous if sound else resumed
    return certify(steps, source, resumed, reference, seconds=arguments.budget, only=tuple(arguments.entry))
