"""``harness cross CASE --by track,layout``: saved by one, resumed by another."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import EXIT_CRASHED, EXIT_FAILED, EXIT_PASSED, CaseError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.protocol.cross import Pair


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``harness cross [CASE …]``."""
    cross = commands.add_parser(
        "cross",
        help="saved under one track or layout, resumed under another: each with each",
        description="Save under one track or parallel layout, resume under another: each pair is exact, "
        "within what the two sides' own runs measure, or cannot be; with the component.",
        epilog="exit status: 0 whatever is loaded loses nothing, 1 something was lost without a word, 4 a "
        "side does not train; that a checkpoint is refused with a sentence is no failure",
    )
    cross.set_defaults(do=_cross)
    cross.add_argument(
        "case",
        metavar="CASE",
        nargs="*",
        help="a name, the path of a case's folder or file, or a folder of cases; default: every case",
    )
    cross.add_argument(
        "--by", metavar="AXES", default="layout", help="track, layout or both; default: %(default)s"
    )
    cross.add_argument(
        "--layout",
        metavar="NAMES",
        action="append",
        default=[],
        help="what they change: own, tp2, tp1pp2, …; default: own,tp2,tp1,pp2,pp1 as far as they fit",
    )
    cross.add_argument("--hardware", metavar="NAME", help="default: what is here, cpu without a GPU")
    cross.add_argument(
        "--track", metavar="NAME", default="", help="whose environment crosses layouts; default: dev"
    )
    cross.add_argument(
        "--python",
        metavar="TRACK=PATH",
        action="append",
        default=[],
        help="the Python of a track's environment; default: this one's, for the track whose torch it has",
    )
    cross.add_argument(
        "--argument",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="an argument of the case that all sides have otherwise, e.g. hidden-dropout=0",
    )
    cross.add_argument(
        "--trainer", metavar="NAME", default="", help="native, megatron or command; default: the case's"
    )
    for name in ("cases", "results"):
        default = Path("test_cases" if name == "cases" else name)
        cross.add_argument(
            f"--{name}",
            metavar="FOLDER",
            type=Path,
            default=default,
            help=f"folder of {name}, default: %(default)s",
        )
    cross.add_argument("--keep-checkpoints", action="store_true", help="also where nothing was lost")
    cross.add_argument(
        "--heartbeat-timeout",
        metavar="SECONDS",
        type=float,
        help="a rank without an iteration for so long has hung",
    )


def _cross(arguments: argparse.Namespace) -> int:
    from harness.cases import find_case
    from harness.commands.run import cases_asked
    from harness.machine.hardware import hardware_here
    from harness.protocol.cross_run import run_cross
    from harness.protocol.sides import Asked
    from harness.report.cross_page import print_matrix, write_cross_page
    from harness.report.terminal import Terminal

    set_otherwise = _pairs("--argument", "NAME=VALUE", arguments.argument)
    asked = Asked(
        by=_list([arguments.by]),
        layouts=_list(arguments.layout),
        track=arguments.track,
        pythons=_pairs("--python", "TRACK=PATH", arguments.python),
        arguments={f"--{name.lstrip('-')}": value for name, value in set_otherwise.items()},
        trainer=arguments.trainer,
        heartbeat_timeout=arguments.heartbeat_timeout,
    )
    hardware = arguments.hardware or hardware_here()
    words = cases_asked(arguments.case, arguments.cases)
    cases = [find_case(word, arguments.cases) for word in words]
    found, left_out = [], []
    for case in cases:
        with Terminal.on(sys.stdout) as terminal:
            try:
                matrix = run_cross(
                    case, hardware, asked, arguments.results, terminal,
                    keep_checkpoints=arguments.keep_checkpoints,
                )  # fmt: skip
            except (UsageError, CaseError) as error:
                if len(cases) == 1:
                    raise
                left_out.append(str(error))
                terminal.note(f"left out: {error}")
                continue
        found.append(matrix)
    if not found:
        raise UsageError(f"no case can be crossed: {left_out[0]}")
    page = write_cross_page(found, arguments.results, left_out)
    for matrix in found:
        print_matrix(matrix, sys.stdout)
    print(page)
    return max(status_of(matrix.pairs) for matrix in found)


def status_of(pairs: Sequence[Pair]) -> int:
    """Of a matrix: what was loaded and lost something is a failure, what was refused is not."""
    if any(pair.result == "error" for pair in pairs):
        return EXIT_CRASHED
    return EXIT_FAILED if any(pair.lost for pair in pairs) else EXIT_PASSED


def _list(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(part for word in words for part in word.replace(",", " ").split())


def _pairs(option: str, expected: str, words: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if not (name and value) or name in found:
            raise UsageError(f"{option} {word}: expected {expected}, each name once")
        found[name] = value
    return found
