"""``harness run``: cells in this environment, one after the other."""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness.errors import (
    EXIT_FAILED,
    EXIT_NOTHING,
    EXIT_PASSED,
    EXIT_USAGE,
    HarnessError,
    NothingToDo,
    UsageError,
)

if TYPE_CHECKING:
    from harness.cases import Case
    from harness.launch.launcher import Launcher
    from harness.matrix import Cell
    from harness.protocol.plan import Options
    from harness.report.terminal import Terminal
    from harness.verdict import Verdict


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``harness run [CASE …]``."""
    run = commands.add_parser(
        "run",
        help="train, save, stop, resume, compare: cases in this environment",
        description="Train, save, stop, resume, compare; say what was lost.",
    )
    run.set_defaults(do=_run)
    run.add_argument(
        "case",
        metavar="CASE",
        nargs="*",
        help="a name, the path of a case's folder or file, or a folder of cases; default: every case",
    )
    run.add_argument("--hardware", metavar="NAME", help="default: what is here, cpu without a GPU")
    run.add_argument("--track", metavar="NAME", help="default: dev, or the first that this repository has")
    run.add_argument(
        "--protocol",
        metavar="NAME",
        default="auto",
        help="auto (fast where the golden is exact, else full), full, fast, crash, reshard, every or chain",
    )
    run.add_argument(
        "--resume-at",
        metavar="K",
        type=int,
        help="the iteration to resume after; default: the last save at or before the middle",
    )
    run.add_argument(
        "--stops",
        metavar="K,…",
        default="",
        help="protocols every and chain: where to stop, as in 4,8; default: where there are checkpoints",
    )
    run.add_argument(
        "--budget",
        metavar="SECONDS",
        type=float,
        help="protocols every and chain: begin nothing that would end later; what was not tried is said",
    )
    run.add_argument(
        "--trials",
        metavar="SECONDS",
        type=float,
        help="where resuming lost something: how long it may be resumed from altered checkpoints to find out "
        "what; 0: not at all; default: three times the run, a minute at least",
    )
    run.add_argument(
        "--trainer",
        metavar="NAME",
        default="",
        help="native, megatron (on cpu: behind a stand-in for the GPU) or command; default: the case's",
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
        help="protocol crash: between-steps, saving, before-tracker or random; default: %(default)s",
    )
    run.add_argument(
        "--crash-rank",
        metavar="RANK",
        default="all",
        help="protocol crash: who is killed: all, the number of a rank, or any (drawn); default: all",
    )
    run.add_argument(
        "--crash-times",
        metavar="N",
        type=int,
        default=1,
        help="protocol crash: kill and resume so often, each time at another moment; default: %(default)s",
    )
    run.add_argument(
        "--crash-seed",
        metavar="SEED",
        type=int,
        default=0,
        help="protocol crash: of moments and ranks that are drawn; default: %(default)s",
    )
    run.add_argument("--keep-checkpoints", action="store_true", help="also when everything has passed")
    run.add_argument(
        "--heartbeat-timeout",
        metavar="SECONDS",
        type=float,
        help="a rank without an iteration for so long has hung",
    )
    where_options(run)
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


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """What words after ``harness run`` mean.

    Raises:
        UsageError: they mean nothing; argparse would end the process.
    """
    parser = _Raising(prog="harness")
    add(parser.add_subparsers(required=True, parser_class=_Raising))
    return parser.parse_args(["run", *words])


class _Raising(argparse.ArgumentParser):
    def __init__(self, **how: Any) -> None:
        super().__init__(**{**how, "add_help": False, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"harness run: {message}", "harness run --help has its options")


def where_options(command: argparse.ArgumentParser) -> None:
    """Options of the engine."""
    add = command.add_argument
    add(
        "--engine",
        metavar="NAME",
        default="local",
        help="local, or slurm: the nodes of a cluster; default: %(default)s",
    )
    add("--nodes", metavar="N", type=int, help="slurm: that each phase runs on; default: HARNESS.nodes, or 1")
    add(
        "--no-rotation",
        action="store_true",
        help="slurm: allocate no node more than a phase has: ranks are resumed where they were saved",
    )
    add(
        "--new-job-per-phase",
        action="store_true",
        help="slurm: an allocation for each phase instead of one for the cell",
    )
    add(
        "--time-limit",
        metavar="MINUTES",
        type=int,
        default=60,
        help="slurm: of an allocation; default: %(default)s",
    )
    add(
        "--slurm-option",
        metavar="WORD",
        action="append",
        default=[],
        help="slurm: a word for salloc, as --slurm-option=--partition=gpu; may be repeated",
    )


def _run(arguments: argparse.Namespace) -> int:
    from harness.machine.hardware import hardware_here

    hardware, track = arguments.hardware or hardware_here(), arguments.track or _track()
    _for_megatron(arguments)
    asked = cases_asked(arguments.case, arguments.cases)
    cells = [_cell(one, hardware, track, arguments) for one in asked]
    if arguments.dry_run:
        from harness.cases import find_case

        for one, cell in zip(asked, cells, strict=True):
            _dry_run(find_case(one, arguments.cases), cell, arguments)
        return EXIT_PASSED
    if len(cells) == 1:
        from harness.launch.launcher import Launcher
        from harness.report.terminal import Terminal

        with Launcher() as launcher, Terminal.on(sys.stdout) as terminal:
            return _one(cells[0], asked[0], arguments, terminal, launcher).exit_code
    return _several(cells, asked, arguments)


def _track() -> str:
    from harness.matrix import TRACKS

    return "dev" if "dev" in TRACKS else next(iter(TRACKS))


def cases_asked(words: Sequence[str], folder: Path) -> list[str]:
    """A name or a path for each case that is meant, in order, each once.

    Raises:
        NothingToDo: every case is meant, and there is none.
    """
    from harness.matrix import cases_by_name
    from harness.repository import from_the_root

    found: list[str] = []
    for word in words or [str(folder)]:
        if not words or _holds_cases(word, folder):
            below = cases_by_name(Path(word))
            if not below:
                said = f"{word}: holds no case, expected <family>/<case>/model_config.yaml"
                raise NothingToDo(said, from_the_root(Path(word)) or "harness init writes one")
            found += [str(path) for _, path in sorted(below.items())] if words else sorted(below)
        else:
            found.append(word)
    return list(dict.fromkeys(found))


def _holds_cases(word: str, folder: Path) -> bool:
    """Whether it is the path of a folder of cases: by its look, or because no case has that name."""
    from harness.cases import case_is_there
    from harness.matrix import cases_by_name

    if not os.path.isdir(word) or case_is_there(os.path.join(word, "")):
        return False
    if not cases_by_name(Path(word)):
        return False  # a case that is gone, or whatever it is: looking for its file says so
    return "/" in word or word in (".", "..") or word not in cases_by_name(folder)


def cell_of(asked: str, arguments: argparse.Namespace) -> Cell:
    """The cell that a command line means by a case."""
    from harness.machine.hardware import hardware_here

    hardware, track = arguments.hardware or hardware_here(), arguments.track or _track()
    return _cell(asked, hardware, track, arguments)


def _cell(asked: str, hardware: str, track: str, arguments: argparse.Namespace) -> Cell:
    from harness.cases import case_is_there, case_name, find_case
    from harness.matrix import NAME, Cell

    name = case_name(asked)
    if not NAME.fullmatch(name):
        find_case(asked, arguments.cases)  # says so
    cell = Cell(hardware, track, name)
    results: Path = arguments.results / cell.hardware / cell.track / cell.case
    if not getattr(arguments, "dry_run", False) and not case_is_there(asked) and not results.exists():
        find_case(asked, arguments.cases)  # no cell's name, and no verdict that could be taken for its
    return cell


def _options(arguments: argparse.Namespace) -> Options:
    from harness.protocol.asked import options_of

    return options_of(functools.partial(getattr, arguments))


def _one(
    cell: Cell, asked: str, arguments: argparse.Namespace, terminal: Terminal, launcher: Launcher
) -> Verdict:
    from harness.protocol.run import run_cell
    from harness.report.html import write_report_of

    verdict = run_cell(
        cell,
        asked=asked,
        cases=arguments.cases,
        goldens=arguments.goldens,
        results=arguments.results,
        options=_options(arguments),
        observer=terminal,
        launcher=launcher,
        report=write_report_of,
    )
    terminal.verdict(verdict)
    return verdict


def _several(cells: Sequence[Cell], asked: Sequence[str], arguments: argparse.Namespace) -> int:
    """Every one of them, whatever the others do; the exit status that all bad ones share, else 1."""
    from rich.console import Console

    from harness.launch.launcher import Launcher
    from harness.protocol.refusal import status_of
    from harness.report.summary import summary_of
    from harness.report.terminal import Terminal

    twice = {cell.case for cell in cells if [one.case for one in cells].count(cell.case) > 1}
    if twice:
        said = f"{', '.join(sorted(twice))}: two cases of one name, which would share their results"
        raise UsageError(said, "rename one of them, or run one at a time")
    print(f"{len(cells)} cells:", *(f"  {cell.id}" for cell in cells), sep="\n", flush=True)
    codes = []
    with Launcher() as launcher:
        for cell, one in zip(cells, asked, strict=True):
            with Terminal.on(sys.stdout) as terminal:
                try:
                    codes.append(_one(cell, one, arguments, terminal, launcher).exit_code)
                except (HarnessError, OSError) as error:
                    print(f"harness: {cell.id}: {error}", file=sys.stderr, flush=True)
                    refused = error.exit_code if isinstance(error, HarnessError) else EXIT_USAGE
                    codes.append(EXIT_NOTHING if status_of(error) == "skipped" else refused)
    summary_of(arguments.results, cells, Console(file=sys.stdout, highlight=False, markup=False))
    bad = {code for code in codes if code not in (EXIT_PASSED, EXIT_NOTHING)}
    if not bad:
        return EXIT_PASSED if EXIT_PASSED in codes else EXIT_NOTHING
    return bad.pop() if len(bad) == 1 else EXIT_FAILED


def _for_megatron(arguments: argparse.Namespace) -> None:
    """What its trainer looks for in the environment, from where a user's own settings come too."""
    from harness.trainers.megatron.adapter import ALLOW_SCRIPTS
    from harness.trainers.megatron.checkout import CHECKOUT

    if arguments.megatron_lm:
        os.environ[CHECKOUT] = str(arguments.megatron_lm.absolute())
    if arguments.allow_scripts:
        os.environ[ALLOW_SCRIPTS] = "1"


def _dry_run(case: Case, cell: Cell, arguments: argparse.Namespace) -> None:
    from harness.goldens import resolve
    from harness.matrix import Cell
    from harness.protocol.dry_run import dry_run, golden_line, phases
    from harness.protocol.results import ResultsFolder
    from harness.trainers import trainer_of

    Cell.parse(cell.id)
    if arguments.trainer:
        case = case.trained_by(arguments.trainer, cell.hardware)
    trainer = trainer_of(case, cell.hardware)
    try:
        trainer.check()
    except UsageError as error:  # what is not installed here may be where this is going to be pasted
        print(f"# not here: {error}")
    golden = resolve(arguments.goldens, case.name, cell.track, case.platform(cell.hardware))
    folder = ResultsFolder((arguments.results / cell.hardware / cell.track / cell.case).absolute())
    options = _options(arguments)
    killed = shlex.join(options.crash_words) if options.protocol == "crash" else ""
    text = dry_run(trainer, phases(trainer, folder, options), killed=killed)
    print(golden_line(golden), text, sep="\n", end="")
