"""How a plant changes the trainer: methods replaced from outside, in the process of one rank.

A rank lives for one phase, so nothing needs to be undone.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

from harness.trainers.native.checkpoint import Checkpointer
from harness.trainers.native.state import Entry, TrainingState

Method = Callable[..., Any]


def instead_of(owner: Any, name: str) -> Callable[[Method], Method]:
    """Put the decorated function in the place of ``owner.name``; it gets the original first."""

    def install(function: Method) -> Method:
        original = getattr(owner, name)

        @functools.wraps(original)
        def method(*args: Any, **kwargs: Any) -> Any:
            return function(original, *args, **kwargs)

        static = isinstance(inspect.getattr_static(owner, name), staticmethod)
        setattr(owner, name, staticmethod(method) if static else method)
        return function

    return install


def after_load(change: Callable[[TrainingState], None]) -> None:
    """Have ``change`` made whenever a checkpoint has been loaded."""

    @instead_of(Checkpointer, "load")
    def load(original: Method, self: Checkpointer) -> bool:
        loaded: bool = original(self)
        if loaded:
            change(self.state)
        return loaded


def forget(pattern: str) -> None:
    """Leave the keys that ``pattern`` finds out of every checkpoint.

    After a load they are what the new process made them.
    """
    lost = re.compile(pattern)

    @instead_of(TrainingState, "entries")
    def entries(original: Method, self: TrainingState, **parts: bool) -> dict[str, Entry]:
        return {key: e for key, e in original(self, **parts).items() if not lost.search(key)}

    every = inspect.unwrap(TrainingState.entries)

    @instead_of(TrainingState, "restore")
    def restore(original: Method, self: TrainingState, values: Any, **parts: bool) -> None:
        own = {k: e.local.clone() for k, e in every(self).items() if lost.search(k)}
        original(self, {**values, **own}, **parts)


def forget_on_load(pattern: str) -> None:
    """Save everything, and do not restore the keys that ``pattern`` finds."""
    lost = re.compile(pattern)

    @instead_of(TrainingState, "restore")
    def restore(original: Method, self: TrainingState, values: Any, **parts: bool) -> None:
        own = {k: e.local.clone() for k, e in self.entries().items() if lost.search(k)}
        original(self, {**values, **own}, **parts)
