"""The table of trainers. A new one is one row here and one module beside it."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from harness.errors import CaseError
from harness.trainers.base import Trainer

#: name → module:class; imported only when a case asks for it.
TRAINERS = {
    "native": "harness.trainers.native.adapter:NativeTrainer",
    "megatron": "harness.trainers.megatron.adapter:MegatronTrainer",
    "command": "harness.trainers.command.adapter:CommandTrainer",
}


def get_trainer(name: str) -> Trainer:
    """The trainer called ``name``.

    Raises:
        CaseError: there is none of that name.
    """
    if name not in TRAINERS:
        raise CaseError(f"trainer {name!r} does not exist; expected one of {', '.join(TRAINERS)}")
    module, _, cls = TRAINERS[name].partition(":")
    return cast("Trainer", getattr(import_module(module), cls)())
