"""What of a checkpoint of Megatron-LM is no state: its arguments speak of the process that saved it too.

``args`` also holds state (``consumed_train_samples``) and arguments that decide numbers: it is compared, but
for the rows below.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from harness.checkpoints.conditions import MOST_SEEDS, SEEDS_DRAWN
from harness.checkpoints.rules import Rule

#: An argument, and why the resumed run's is another though nothing was lost.
_ARGUMENTS = {
    "save": "where this process saved to",
    "load": "where this process loaded from: the uninterrupted run loads from nowhere",
    "iteration": "the iteration that this process began at; the one that was saved stands beside `args`",
    "num_floating_point_operations_so_far": (
        "the sum that this process began with; the one that was saved stands beside `args`"
    ),
    "exit_interval": "where this phase was told to stop",
}

#: Megatron-LM restores the host's stream first, and then makes its iterators.
_LOADERS = (
    "the uninterrupted run's stream, further on by a whole number of seeds (at most "
    f"{MOST_SEEDS}): an iterator of each DataLoader is made after the stream was restored, and draws one"
)

RULES: Final = (
    *(Rule("trainer", f"args.{name}", reason) for name, reason in _ARGUMENTS.items()),
    Rule("trainer", "*torch_rng_state", _LOADERS, when=SEEDS_DRAWN),
)


def rules_for(names: Iterable[str]) -> tuple[Rule, ...]:
    """The table, for a checkpoint of these names that is Megatron-LM's."""
    ours = any(name.endswith("args.consumed_train_samples") for name in names)
    return RULES if ours else ()
