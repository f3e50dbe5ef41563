"""``harness …``: the same as the nox sessions do, in the present environment.

Nothing heavy is imported before it is known what to do, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands import alarm, cases, checkpoint, github, goldens, report
from harness.errors import EXIT_INTERRUPTED, EXIT_PASSED, EXIT_USAGE, HarnessError, UsageError
from harness.text import guarded

if TYPE_CHECKING:
    from harness.cases import Case
    from harness.matrix import Cell


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="harness",
        description="Prove that distributed training survives stop and resume.",
        epilog="exit status: 0 passed, 1 a check failed, 2 usage or bad input, 3 nothing to do, "
        "4 the trainer crashed or hung, 130 interrupted",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="train, save, stop, resume, compare: one case in this environment",
        description="Train, save, stop, resume, compare; say what was lost.",
    )
    run.set_defaults(do=_run)
    run.add_argument("case", metavar="CASE", help="a name, or the path of a case's folder or file")
    run.add_argument("--hardware", metavar="NAME", help="default: what is here, cpu without a GPU")
    run.add_argument("--track", metavar="NAME", default="dev", help="default: %(default)s")
    run.add_argument(
        "--protocol",
        metavar="NAME",
        default="auto",
        help="auto (fast where the golden is exact, else full), full, fast, crash or reshard",
    )
    for name in ("cases", "goldens", "results"):
        default = Path("test_cases" if name == "cases" else name)
        text = f"folder of {name}, default: %(default)s"
        run.add_argument(f"--{name}", metavar="FOLDER", type=Path, default=default, help=text)
    run.add_argument("--golden-update", action="store_true", help="record the golden; the run then fails")
    run.add_argument(
        "--repeats",
        metavar="N",
        type=int,
        default=1,
        help="with --golden-update: uninterrupted runs that the golden's statistics come from",
    )
    run.add_argument(
        "--crash-at",
        metavar="MOMENT",
        default="between-steps",
        help="protocol crash: between-steps, saving or before-tracker; default: %(default)s",
    )
    run.add_argument(
        "--crash-rank", metavar="RANK", default="all", help="protocol crash: who is killed; default: all"
    )
    run.add_argument("--keep-checkpoints", action="store_true", help="also when everything has passed")
    run.add_argument(
        "--heartbeat-timeout",
        metavar="SECONDS",
        type=float,
        help="a rank without an iteration for so long has hung",
    )
    run.add_argument(
        "--dry-run", action="store_true", help="print each phase's environment and command; start nothing"
    )
    run.add_argument(
        "--megatron-lm", metavar="FOLDER", type=Path, help="the checkout to test; default: $MEGATRON_LM_PATH"
    )
    run.add_argument(
        "--allow-scripts",
        action="store_true",
        help="run a case's BEFORE_SCRIPT and AFTER_SCRIPT, which are shell",
    )
    for module in (cases, goldens, checkpoint, report, github, alarm):
        module.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    arguments = parser().parse_args(argv)
    # Whoever ends us politely wants what an interrupt does: nothing left running.
    signal.signal(signal.SIGTERM, _interrupt)
    out = sys.stdout if getattr(arguments, "workflow_commands", False) else guarded(sys.stdout)
    with redirect_stdout(out), redirect_stderr(guarded(sys.stderr)):
        return _done(arguments)


def _done(arguments: argparse.Namespace) -> int:
    try:
        status: int = arguments.do(arguments)
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE  # as a shell says it; what was found may not have been said
    except OSError as error:
        # A path that no file can have, a disk that is full: nobody needs to see where in our code.
        where = f"{error.filename}: " if error.filename else ""
        print(f"harness: {where}{error.strerror or error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("harness: interrupted; nothing is left running", file=sys.stderr)
        return EXIT_INTERRUPTED
    return status


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _run(arguments: argparse.Namespace) -> int:
    from harness.cases import case_is_there, case_name, find_case
    from harness.machine.hardware import hardware_here
    from harness.matrix import NAME, Cell
    from harness.protocol.plan import Options
    from harness.protocol.run import run_cell
    from harness.report.html import write_report_of
    from harness.report.terminal import Terminal

    name = case_name(arguments.case)
    if not NAME.fullmatch(name):
        find_case(arguments.case, arguments.cases)  # says so
    cell = Cell(arguments.hardware or hardware_here(), arguments.track, name)
    _for_megatron(arguments)
    if arguments.dry_run:
        return _dry_run(find_case(arguments.case, arguments.cases), cell, arguments)
    results: Path = arguments.results / cell.hardware / cell.track / cell.case
    if not case_is_there(arguments.case) and not results.exists():
        find_case(
            arguments.case, arguments.cases
        )  # no cell's name, and no verdict that could be taken for its
    with Terminal.on(sys.stdout) as terminal:
        verdict = run_cell(
            cell,
            asked=arguments.case,
            cases=arguments.cases,
            goldens=arguments.goldens,
            results=arguments.results,
            options=Options(
                protocol=arguments.protocol,
                golden_update=arguments.golden_update,
                repeats=arguments.repeats,
                keep_checkpoints=arguments.keep_checkpoints,
                heartbeat_timeout=arguments.heartbeat_timeout,
                crash_at=arguments.crash_at,
                crash_rank=arguments.crash_rank,
            ),
            observer=terminal,
            report=write_report_of,
        )
        terminal.verdict(verdict)
    return verdict.exit_code


def _for_megatron(arguments: argparse.Namespace) -> None:
    """What its trainer looks for in the environment, from where a user's own settings come too."""
    from harness.trainers.megatron.adapter import ALLOW_SCRIPTS, CHECKOUT

    if arguments.megatron_lm:
        os.environ[CHECKOUT] = str(arguments.megatron_lm.absolute())
    if arguments.allow_scripts:
        os.environ[ALLOW_SCRIPTS] = "1"


def _dry_run(case: Case, cell: Cell, arguments: argparse.Namespace) -> int:
    from harness.goldens import resolve
    from harness.matrix import HARDWARE, Cell
    from harness.protocol.dry_run import dry_run, golden_line, phases
    from harness.protocol.results import ResultsFolder
    from harness.trainers import trainer_of

    Cell.parse(cell.id)
    trainer = trainer_of(case, cell.hardware)
    try:
        trainer.check()
    except UsageError as error:  # what is not installed here may be where this is going to be pasted
        print(f"# not here: {error}")
    golden = resolve(arguments.goldens, case.name, cell.track, HARDWARE[cell.hardware].platform)
    folder = ResultsFolder((arguments.results / cell.hardware / cell.track / cell.case).absolute())
    text = dry_run(trainer, phases(trainer, folder))
    print(golden_line(golden), text, sep="\n", end="")
    return EXIT_PASSED
