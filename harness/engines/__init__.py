"""Where the ranks of a cell run: on this machine, or on the nodes of a cluster.

One module an engine, and one row in :data:`ENGINES`.
"""

from __future__ import annotations

from harness.engines.base import ENGINES, Agents, Engine, Gone, Wanted, Where

__all__ = ["ENGINES", "Agents", "Engine", "Gone", "Wanted", "Where", "engine_of"]


def engine_of(wanted: Wanted) -> Engine:
    """The engine of that name.

    Raises:
        UsageError: what it needs is not here.
    """
    from importlib import import_module

    module, _, name = ENGINES[wanted.where.engine].partition(":")
    made: Engine = getattr(import_module(module), name)(wanted)
    return made
