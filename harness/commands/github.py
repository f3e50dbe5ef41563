"""``harness github …``: what the workflows call."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.output import flag_since, flags_select
from harness.errors import EXIT_PASSED, UsageError

if TYPE_CHECKING:
    from harness.matrix import Cell
    from harness.night.night import Night
    from harness.night.quarantine import Entry
    from harness.report.github.matrix import Listed


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """The options."""
    group = commands.add_parser("github", help="what the workflows on GitHub call")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", required=True)

    text = "the matrix of jobs, one per (hardware, track), as JSON"
    matrix = verbs.add_parser("matrix", help=text, description=text)
    matrix.set_defaults(do=_matrix)
    _listing(matrix)
    flags_select(matrix)
    matrix.add_argument(
        "--gpu", dest="hardware", action="append_const", const="gpu", help="the same as --hardware gpu"
    )
    matrix.add_argument(
        "--runner-labels", metavar="JSON",
        help="of a GPU's runner: a list in which {hardware} and {track} stand for the job's; each job then "
        "has runs-on, which is GitHub's own machine for cpu",
    )  # fmt: skip

    add_sessions(verbs)

    text = "the job summary in Markdown; appended to $GITHUB_STEP_SUMMARY where that is set, else printed"
    summary = verbs.add_parser("summary", help=text, description=text)
    summary.set_defaults(do=_summary)
    flags_results(summary)

    text = "workflow commands: an annotation for the worst check of each red cell"
    annotations = verbs.add_parser("annotations", help=text, description=text)
    annotations.set_defaults(do=_annotations, workflow_commands=True)
    flags_results(annotations)
    for name, folder in (("goldens", "goldens"), ("cases", "test_cases")):
        annotations.add_argument(
            f"--{name}", metavar="FOLDER", type=Path, default=Path(folder),
            help=f"folder of {name}, default: {folder}",
        )  # fmt: skip


def add_sessions(verbs: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Add the command that names the sessions of a job."""
    text = "the sessions of one job of the matrix, one a line, as nox -s takes them"
    sessions = verbs.add_parser("sessions", help=text, description=text)
    sessions.set_defaults(do=_sessions)
    _listing(sessions)
    sessions.add_argument("--hardware", metavar="NAME", action="append", required=True)
    sessions.add_argument("--track", metavar="NAME", action="append", required=True)


def _listing(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "listing", metavar="LISTING", type=Path, nargs="?",
        help="the folder of cases, or a file that holds what nox -l --json prints, or - for standard input; "
        "default: run nox",
    )  # fmt: skip


def flags_results(command: argparse.ArgumentParser) -> None:
    """Add the folder of results, and what says which of them count."""
    command.add_argument("results", metavar="RESULTS", type=Path, help="folder of results")
    command.add_argument(
        "--expect", metavar="LISTING", type=Path,
        help="what nox -l --json prints, or the folder of cases: its cells are red when they have no verdict",
    )  # fmt: skip
    command.add_argument("--hardware", metavar="NAME", action="append", default=[], help="expect only this")
    command.add_argument("--track", metavar="NAME", action="append", default=[], help="expect only this")
    flag_since(command)
    command.add_argument("--quarantine", metavar="FILE", type=Path, help="default: quarantine.yaml, if there")


def _listed(arguments: argparse.Namespace) -> tuple[Listed, ...]:
    from harness.report.github.matrix import read_listing, read_listing_file, run_nox

    if arguments.listing is not None:
        return read_listing_file(arguments.listing)
    return read_listing(run_nox(), "nox -l --json")


def _matrix(arguments: argparse.Namespace) -> int:
    from harness.report.github.matrix import jobs, select
    from harness.report.runners import read_template

    labels = None
    if arguments.runner_labels is not None:
        labels = read_template(arguments.runner_labels, "--runner-labels")
        if not labels:
            raise UsageError(
                "--runner-labels []: expected a label at least", "GitHub has no runner without one"
            )
    made = jobs(select(_listed(arguments), hardware=arguments.hardware, tracks=arguments.track), labels)
    text = json.dumps(made, separators=(",", ":"))
    # A matrix without a job is an error of the whole workflow: whoever uses it asks `empty` first.
    _append("GITHUB_OUTPUT", f"matrix={text}\nempty={json.dumps(not made['include'])}\n")
    print(text)
    return EXIT_PASSED


def _sessions(arguments: argparse.Namespace) -> int:
    from harness.errors import NothingToDo
    from harness.report.github.matrix import select

    some = select(_listed(arguments), hardware=arguments.hardware, tracks=arguments.track)
    if not some:
        raise NothingToDo(f"no session for {' '.join(arguments.hardware)}, {' '.join(arguments.track)}")
    for one in some:
        print(one.session)
    return EXIT_PASSED


def judged(arguments: argparse.Namespace) -> tuple[Night, dict[Cell, Entry]]:
    """What :func:`flags_results` names, and the quarantine's entries of its cells."""
    from datetime import datetime, timezone

    from harness.night.night import read_night
    from harness.night.quarantine import read_quarantine
    from harness.night.when import since
    from harness.report.github.matrix import expected_cells

    expected = expected_cells(arguments.expect, hardware=arguments.hardware, tracks=arguments.track)
    night = read_night(arguments.results, expected, since(arguments.since))
    quarantine = read_quarantine(arguments.quarantine)
    today = datetime.now(timezone.utc).date()
    cells = [outcome.cell for outcome in night.outcomes]
    return night, {cell: entry for cell in cells if (entry := quarantine.holds(cell, today)) is not None}


def _summary(arguments: argparse.Namespace) -> int:
    from harness.report.github.summary import LIMIT, markdown

    night, held = judged(arguments)
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if not target:
        print(markdown(night.outcomes, held), end="")
        return EXIT_PASSED
    # Not into the log too: GitHub takes a line there for a command when it begins like one.
    room = LIMIT - (Path(target).stat().st_size if Path(target).exists() else 0)
    text = markdown(night.outcomes, held, room)
    # Over its limit GitHub shows nothing, also not what earlier commands of the step have written.
    if len(text.encode("utf-8", "replace")) > room:
        print("the step's summary is full", file=sys.stderr)
    else:
        _append("GITHUB_STEP_SUMMARY", text)
    return EXIT_PASSED


def _annotations(arguments: argparse.Namespace) -> int:
    from harness.matrix import cases_by_name
    from harness.report.github.annotations import commands

    night, held = judged(arguments)
    cases = cases_by_name(arguments.cases)
    lines = commands(night.outcomes, held, arguments.goldens, cases)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return EXIT_PASSED


def _append(variable: str, text: str) -> None:
    """To the file that GitHub names in ``variable``; nothing elsewhere."""
    target = os.environ.get(variable)
    if not target:
        return
    try:
        with Path(target).open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise UsageError(f"{variable}={target}: cannot be written: {error.strerror}") from error
