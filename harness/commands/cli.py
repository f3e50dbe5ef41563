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

from harness.commands import (
    alarm,
    cases,
    checkpoint,
    clean,
    cross,
    github,
    gitlab,
    goldens,
    init,
    report,
    run,
    sensitivity,
    sweep,
)
from harness.errors import EXIT_INTERRUPTED, EXIT_USAGE, HarnessError
from harness.machine import signals
from harness.text import guarded


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="harness",
        description="Prove that distributed training survives stop and resume.",
        epilog="exit status: 0 passed, 1 a check failed, 2 usage or bad input, 3 nothing to do, "
        "4 the trainer crashed or hung, 130 interrupted",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (
        run, sweep, cross, sensitivity, init, cases, goldens, checkpoint, report, github, gitlab, alarm,
        clean,
    ):  # fmt: skip
        module.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    try:
        arguments = parser().parse_args(argv)
    except HarnessError as error:  # of the repository's own tables, which options are made of
        print(f"harness: {error}", file=guarded(sys.stderr))
        return error.exit_code
    # Whoever ends us politely wants what an interrupt does: nothing left running.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        signals.check()
        if (told := signals.preemption()) is not None:
            signal.signal(told, _taken_away)
    except HarnessError as error:
        print(f"harness: {error}", file=guarded(sys.stderr))
        return error.exit_code
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


def _taken_away(number: int, _frame: object) -> None:
    raise signals.TakenAway(signal.Signals(number).name)
