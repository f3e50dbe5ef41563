"""Where the ranks of a cell run: on this machine, or on the nodes of a cluster.

One module an engine, and one row in :data:`ENGINES`.
"""

from __future__ import annotations

from typing import Final

from harness.engines.base import Agents, Engine, Gone, Wanted, Where

__all__ = ["ENGINES", "Agents", "Engine", "Gone", "Wanted", "Where", "engine_of"]

#: By name: ``module:class``, which is imported when it is asked for; it is made of a :class:`Wanted`.
ENGINES: Final = {"local": "harness.engines.local:Local", "slurm": "harness.engines.slurm:Slurm"}


def engine_of(wanted: Wanted) -> Engine:
    """The engine of that name.

    Raises:
        UsageError: what it needs is not here.
    """
    from importlib import import_module

    module, _, name = ENGINES[wanted.where.engine].partition(":")
    made: Engine = getattr(import_module(module), name)(wanted)
    return made
