"""What a command line or pytest's has said of a run, as :class:`harness.protocol.plan.Options`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.engines import Where
from harness.protocol.plan import Options, stops_of


def options_of(said: Callable[[str], Any]) -> Options:
    """The options of a run.

    Args:
        said: the value of an option by its name with underscores, as ``crash_at``.

    Raises:
        UsageError: one of them is out of its range, or needs another.
    """
    return Options(
        protocol=said("protocol"),
        golden_update=said("golden_update"),
        repeats=said("repeats"),
        keep_checkpoints=said("keep_checkpoints"),
        heartbeat_timeout=said("heartbeat_timeout"),
        crash_at=said("crash_at"),
        crash_rank=said("crash_rank"),
        crash_times=said("crash_times"),
        crash_seed=said("crash_seed"),
        trainer=said("trainer"),
        resume_at=said("resume_at"),
        stops=stops_of(said("stops") or ""),
        budget=said("budget"),
        trials=said("trials"),
        where=Where(
            engine=said("engine") or "local",
            nodes=said("nodes"),
            rotate=not said("no_rotation"),
            new_job=said("new_job_per_phase"),
            minutes=Where.minutes if said("time_limit") is None else said("time_limit"),
            options=tuple(said("slurm_option") or ()),
        ),
    )
