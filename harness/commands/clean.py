"""``harness clean``: jobs of cells and sweeps that nobody waits for any more."""

from __future__ import annotations

import argparse

from harness.errors import EXIT_FAILED, EXIT_NOTHING, EXIT_PASSED


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``harness clean``."""
    command = commands.add_parser(
        "clean",
        help="cancel jobs of Slurm that a harness has left which was killed",
        description="Cancel your jobs of Slurm whose names are ours, where the process is gone that asked "
        "for them. Those of a process on another machine are listed.",
    )
    command.set_defaults(do=_clean)
    command.add_argument("--all", action="store_true", help="cancel all of them, whoever waits for them")
    command.add_argument("--dry-run", action="store_true", help="say what would be cancelled")


def _clean(arguments: argparse.Namespace) -> int:
    from harness.engines.slurm import allocation, orphans

    found = orphans.jobs()
    if not found:
        print("no job of ours is in the queue")
        return EXIT_NOTHING
    left = False
    for job in found:
        if not (arguments.all or job.orphan):
            why = "its process runs" if job.orphan is False else "--all cancels it too"
            print(f"kept: {job.words()}: {why}")
        elif arguments.dry_run:
            print(f"would be cancelled: {job.words()}")
        elif allocation.cancel(job.name):
            print(f"cancelled: {job.words()}")
        else:
            left = True
            print(f"not out of the queue: {job.words()}")
    return EXIT_FAILED if left else EXIT_PASSED
