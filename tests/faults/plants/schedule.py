"""Learning rates and loss scale that are not what they were."""

from __future__ import annotations

from harness.trainers.native.schedules import LossScaler
from harness.trainers.native.state import TrainingState
from tests.faults.plants.patching import after_load, forget


def position_doubled() -> None:
    """The loaded scheduler is moved forward once more by all that is past."""
    after_load(lambda state: state.scheduler.step(state.scheduler.num_steps))


def not_saved() -> None:
    """The scheduler is in no checkpoint."""
    forget(r"^scheduler\.")


def off_by_one() -> None:
    """The scheduler is stepped once when it is taken up."""
    after_load(lambda state: state.scheduler.step(state.data.args.global_batch_size))


def initial_rate_at_first() -> None:
    """The optimizer begins with the rate that it was made with, until the scheduler's next step."""

    def initial(state: TrainingState) -> None:
        for group in state.scheduler.groups:
            group["lr"] = state.data.args.lr

    after_load(initial)


def group_limits_overwritten() -> None:
    """The arguments' one pair of rates goes into every parameter group."""

    def overwrite(state: TrainingState) -> None:
        for group in state.scheduler.groups:
            group["max_lr"], group["min_lr"] = state.data.args.lr, state.data.args.min_lr
        state.scheduler.step(0)

    after_load(overwrite)


def scaler_made_later() -> None:
    """The loss scaler is made after the load."""

    def make(state: TrainingState) -> None:
        state.scaler = LossScaler(state.data.args)

    after_load(make)
