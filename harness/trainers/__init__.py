"""The table of trainers. A new one is one row here and one module beside it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from harness.errors import CaseError

if TYPE_CHECKING:
    from harness.cases import Case
    from harness.trainers.base import Trainer

#: name → module:class; imported only when a case asks for it.
TRAINERS = {
    "native": "harness.trainers.native.adapter:NativeTrainer",
    "megatron": "harness.trainers.megatron.adapter:MegatronTrainer",
    "command": "harness.trainers.command.adapter:CommandTrainer",
}


def trainer_of(case: Case, hardware: str) -> Trainer:
    """What trains a case on that hardware.

    Raises:
        CaseError: the case asks for a trainer that there is not.
    """
    name = case.trainer(hardware)
    if name not in TRAINERS:
        raise CaseError(f"trainer {name!r} does not exist; expected one of {', '.join(TRAINERS)}")
    module, _, cls = TRAINERS[name].partition(":")
    return cast("Trainer", getattr(import_module(module), cls)(case, hardware))
