"""``harness gitlab …``: what gitlab/cells.yml and the pipeline that it makes call."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.commands.github import add_sessions, flags_results, judged
from harness.commands.output import flags_select
from harness.errors import EXIT_PASSED, NothingToDo


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """The options."""
    group = commands.add_parser("gitlab", help="what the pipelines on GitLab call")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", required=True)

    text = "the child pipeline, a job per (hardware, track), as YAML"
    child = verbs.add_parser("child", help=text, description=text)
    child.set_defaults(do=_child)
    child.add_argument("cases", metavar="CASES", type=Path, help="the folder of cases")
    flags_select(child)
    child.add_argument(
        "--runner-tags", metavar="JSON", default='["gpu", "{hardware}"]',
        help="of a GPU's runner: a list in which {hardware} and {track} stand for the job's; "
        "default: %(default)s",
    )  # fmt: skip
    child.add_argument(
        "--cpu-tags", metavar="JSON", default="[]", help="of the other runners; default: %(default)s"
    )
    child.add_argument(
        "--image", metavar="IMAGE", default="python:3.11",
        help="of the jobs' container; {hardware} and {track} as above; default: %(default)s",
    )  # fmt: skip
    child.add_argument("--night", action="store_true", help="one job more: the page, and the alarm")

    add_sessions(verbs)

    text = "a night in JUnit's format: a test case for each cell"
    junit = verbs.add_parser("junit", help=text, description=text)
    junit.set_defaults(do=_junit)
    flags_results(junit)


def _child(arguments: argparse.Namespace) -> int:
    from harness.report.github.matrix import jobs, read_listing_file, select
    from harness.report.gitlab.child import Runners, child
    from harness.report.runners import check_template, read_template

    runners = Runners(
        read_template(arguments.runner_tags, "--runner-tags"),
        read_template(arguments.cpu_tags, "--cpu-tags"),
        check_template(arguments.image, "--image"),
    )
    some = select(read_listing_file(arguments.cases), hardware=arguments.hardware, tracks=arguments.track)
    pairs = [(job["hardware"], job["track"]) for job in jobs(some)["include"]]
    if not pairs:  # GitLab takes no pipeline without a job
        raise NothingToDo(f"{arguments.cases}: no cell of what --hardware and --track name")
    print(child(pairs, runners, night=arguments.night), end="")
    return EXIT_PASSED


def _junit(arguments: argparse.Namespace) -> int:
    from harness.report.gitlab.junit import junit

    night, held = judged(arguments)
    print(junit(night.outcomes, held), end="")
    return EXIT_PASSED
