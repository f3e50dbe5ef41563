"""Faults that a resume from the middle does not show: they need another k, or a second resume."""

from __future__ import annotations

from typing import Any

from harness.trainers.native.data import Sampler
from harness.trainers.native.state import TrainingState
from tests.faults.plants.data_order import same_shuffle
from tests.faults.plants.patching import Method, after_load, instead_of

#: Resumed in a later epoch, the sampler goes on as if it were still the first.
epoch_forgotten = same_shuffle


def position_since_the_resume() -> None:
    """The place in an epoch is counted from where this process took it up, until the epoch is over."""

    def note(state: TrainingState) -> None:
        sampler = state.data.train.sampler
        sampler.taken_up = (sampler.epoch, sampler.position)  # type: ignore[attr-defined]

    after_load(note)

    @instead_of(Sampler, "state")
    def state(original: Method, self: Sampler) -> dict[str, int]:
        found: dict[str, int] = original(self)
        epoch, position = getattr(self, "taken_up", (-1, 0))
        return {**found, "position": found["position"] - position} if found["epoch"] == epoch else found


def iteration_of_the_first_resume() -> None:
    """The iteration that is saved is an object that a resumed run no longer counts in; at its end it is."""
    loaded = [0]
    after_load(lambda state: loaded.__setitem__(0, state.iteration))

    @instead_of(TrainingState, "_scalars")
    def scalars(original: Method, self: TrainingState, **parts: bool) -> dict[str, Any]:
        found: dict[str, Any] = original(self, **parts)
        at_the_end = self.iteration == self.data.args.train_iters
        return {**found, "iteration": loaded[0]} if loaded[0] and not at_the_end else found


def warm_up_again() -> None:
    """Where the warm-up is not over yet, its count begins anew."""

    def anew(state: TrainingState) -> None:
        scheduler = state.scheduler
        if scheduler.num_steps < scheduler.warmup_steps:
            scheduler.step(-scheduler.num_steps)

    after_load(anew)


def first_order_after_an_epochs_end() -> None:
    """Resumed where an epoch ends, the iterator of the next one is made before its epoch is set."""

    def note(state: TrainingState) -> None:
        sampler = state.data.train.sampler
        sampler.made_early = sampler.position == sampler.size  # type: ignore[attr-defined]

    after_load(note)

    @instead_of(Sampler, "_shuffle")
    def shuffle(original: Method, self: Sampler) -> Any:
        if not getattr(self, "made_early", False):
            return original(self)
        self.made_early = False  # type: ignore[attr-defined]
        epoch, self.epoch = self.epoch, 0
        try:
            return original(self)
        finally:
            self.epoch = epoch
