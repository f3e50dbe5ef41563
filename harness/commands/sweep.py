"""``harness sweep``: many cells on a cluster, a job array for each kind of them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands import run
from harness.engines.base import OURS
from harness.errors import EXIT_INTERRUPTED, UsageError

if TYPE_CHECKING:
    from harness.sweep.sweep import How

_OURS = ("--hardware", "--track", "--cases", "--goldens", "--results", "--engine", "--time-limit")
_MOST_MINUTES = 30 * 24 * 60


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``harness sweep --hardware NAME [CASE …]``."""
    sweep = commands.add_parser(
        "sweep",
        help="all cells of a kind of hardware on a cluster: a job array for each track, then one summary",
        description="Run cells as job arrays of Slurm: their environments first, one for each track, then a "
        "task a cell. The exit status is as of harness run.",
    )
    sweep.set_defaults(do=_sweep)
    say = sweep.add_argument
    say("case", metavar="CASE", nargs="*", help="a name, a path or a folder of cases; default: every case")
    say("--engine", metavar="NAME", default="slurm", help="slurm, default; on one machine nox is the sweep")
    say(
        "--hardware",
        metavar="NAME",
        action="append",
        required=True,
        help="whose cells; may be repeated; gpu: all but cpu",
    )
    say("--track", metavar="NAME", action="append", default=[], help="may be repeated; default: every track")
    for name in ("cases", "goldens", "results"):
        default = Path("test_cases" if name == "cases" else name)
        text = f"folder of {name}, which the nodes see too, default: %(default)s"
        say(f"--{name}", metavar="FOLDER", type=Path, default=default, help=text)
    say("--at-most", metavar="M", type=int, help="tasks of an array at a time; default: as there is room")
    say("--time-limit", metavar="MINUTES", type=int, default=60, help="of a task; default: %(default)s")
    say(
        "--requeue",
        action="store_true",
        help="let Slurm start a task again that was preempted or lost its node; its cell begins anew",
    )
    say(
        "--slurm-option",
        metavar="WORD",
        action="append",
        default=[],
        help="a word for sbatch, as --slurm-option=--partition=gpu; may be repeated",
    )
    say(
        "--run-option",
        metavar="WORD",
        action="append",
        default=[],
        help="a word for each cell's harness run, as --run-option=--protocol=full; may be repeated",
    )
    say(
        "--prefix",
        metavar="WORD",
        action="append",
        default=[],
        help="a word before each cell's command, as of a container: --prefix=apptainer --prefix=exec …; "
        "its python is then the one behind it, where the track makes no environment",
    )
    say(
        "--environments",
        metavar="WHERE",
        default="node",
        help="where nox makes them: node, in a job, or here, where nodes reach no package index; "
        "default: %(default)s",
    )


def _sweep(arguments: argparse.Namespace) -> int:
    how = _how(arguments)
    from rich.console import Console

    from harness.engines.slurm import programs

    programs.require("sbatch", "squeue", "scancel")
    from harness.sweep.asked import asked_for
    from harness.sweep.sweep import Sweep

    words = run.cases_asked(arguments.case, arguments.cases) if arguments.case else []
    asked = asked_for(
        words, arguments.cases, hardware=arguments.hardware, tracks=arguments.track, nodes=how.nodes
    )
    console = Console(file=sys.stdout, highlight=False, markup=False)
    sweep = Sweep(asked, how, console)
    try:
        return sweep.run()
    except KeyboardInterrupt:
        told = "are left in the queue: scancel --name=" if sweep.left else "are cancelled: "
        print(f"harness: interrupted; its jobs {told}{sweep.name}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception:
        if sweep.left:
            print(f"harness: its jobs are left in the queue: scancel --name={sweep.name}", file=sys.stderr)
        raise


def _how(arguments: argparse.Namespace) -> How:
    """All that can be refused without asking anybody."""
    from harness.sweep.sweep import How

    if arguments.engine == "local":
        raise UsageError(
            "--engine local: found this machine, expected a cluster (slurm)",
            "nox is the sweep on one machine: nox -t <hardware>, with -j N for N sessions at a time",
        )
    if arguments.engine != "slurm":
        raise UsageError(f"--engine {arguments.engine}: expected slurm")
    if arguments.at_most is not None and not 1 <= arguments.at_most <= 100_000:
        raise UsageError(f"--at-most {arguments.at_most}: expected 1 or more")
    if not 1 <= arguments.time_limit <= _MOST_MINUTES:
        raise UsageError(f"--time-limit {arguments.time_limit}: expected minutes, 1 to {_MOST_MINUTES}")
    if arguments.environments not in ("node", "here"):
        raise UsageError(f"--environments {arguments.environments}: expected node or here")
    for option, words, example in (
        ("--slurm-option", arguments.slurm_option, "--slurm-option=--partition=gpu"),
        ("--run-option", arguments.run_option, "--run-option=--protocol=full"),
    ):
        for word in words:
            if not word.startswith("-"):
                raise UsageError(f"{option} {word}: expected an option", f"as in {example}")
    for word in arguments.slurm_option:
        if word.startswith(OURS):
            raise UsageError(f"--slurm-option {word}: expected another option", "our jobs are found by it")
    for word in arguments.run_option:
        if word.partition("=")[0] in (*_OURS, "--dry-run", "--new-job-per-phase"):
            raise UsageError(
                f"--run-option {word}: expected another option of harness run",
                "where a cell runs, the sweep says",
            )
    return How(
        cases=arguments.cases,
        goldens=arguments.goldens,
        results=arguments.results,
        at_most=arguments.at_most,
        minutes=arguments.time_limit,
        options=tuple(arguments.slurm_option),
        requeue=arguments.requeue,
        prefix=tuple(arguments.prefix),
        words=tuple(arguments.run_option),
        here=arguments.environments == "here",
        nodes=run.parsed(["any", *arguments.run_option]).nodes,
    )
