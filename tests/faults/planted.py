"""What a rank of a planted trainer runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

#: First word of a planted rank's arguments; the second names the plants, ``module:function,…``.
FLAG = "--plants"


def preload() -> None:
    """Import everything slow, once, before ranks are forked; nothing is patched here."""
    from harness.trainers.native.main import preload as preload_trainer

    preload_trainer()


def run(
    argv: Sequence[str],
    rank: int,
    world_size: int,
    folder: str,
    rendezvous: str,
    heartbeat: Callable[[int], None],
) -> None:
    """Plant what the arguments begin with, then train with the rest of them."""
    from harness.trainers.native.main import run as train

    flag, plants, *rest = argv
    assert flag == FLAG, flag
    for name in filter(None, plants.split(",")):
        module, _, function = name.partition(":")
        getattr(import_module(module), function)()
    train(rest, rank, world_size, folder, rendezvous, heartbeat)
