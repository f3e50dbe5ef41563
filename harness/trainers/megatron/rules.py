"""What of a checkpoint of Megatron-LM is no state: its arguments speak of the process that saved it too.

``args`` also holds state (``consumed_train_samples``) and arguments that decide numbers: it is compared, but
for the rows below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

#: What ``args`` holds of the state.
_STATE: Final = ("consumed_train_samples", "consumed_valid_samples", "skipped_train_samples")

RULES: Final = (
    *(Rule("trainer", f"args.{name}", reason) for name, reason in _ARGUMENTS.items()),
    Rule("trainer", "*torch_rng_state", _LOADERS, when=SEEDS_DRAWN),
)

#: Of a checkpoint that was loaded and saved at once: what is loaded of the arguments are counts of samples.
PROBED: Final = (
    Rule(
        "trainer", "args.*",
        "the arguments of the process that saved: one that loads and saves at once has its own, and has made "
        "no data; counts of samples, which are loaded, are compared",
        but=("args.*sample*", "args.*consumed*", "args.*skipped*", "args.*seen*"),
    ),
    Rule(
        "trainer", "*rerun_state_machine.current_iteration",
        "the training loop sets it to the iteration that it begins at, and one that loads and saves at once "
        "begins none; the iteration itself is compared",
    ),
)  # fmt: skip


def rules_of(first: Mapping[str, object], second: Mapping[str, object]) -> tuple[Rule, ...]:
    """The table, and a row for each argument that a case itself has otherwise in the resumed phase.

    Args:
        first, second: the arguments of either phase.
    """
    others = sorted(key for key in {*first, *second} if str(first.get(key)) != str(second.get(key)))
    words = [key.lstrip("-").replace("-", "_") for key in others]
    names = dict.fromkeys(name for word in words for name in (word, *_without_no(word)) if name not in _STATE)
    reason = "the case itself has it otherwise in MODEL_ARGS_2"
    return (*RULES, *(Rule("trainer", f"args.{name}", reason) for name in names))


def _without_no(word: str) -> tuple[str, ...]:
    """``no_x`` and ``disable_x`` are kept as ``x`` by some arguments."""
    short = word.removeprefix("no_").removeprefix("disable_")
    return (short,) if short != word else ()


def rules_for(names: Iterable[str]) -> tuple[Rule, ...]:
    """The table, for a checkpoint of these names that is Megatron-LM's."""
    ours = any(name.endswith("args.consumed_train_samples") for name in names)
    return RULES if ours else ()
