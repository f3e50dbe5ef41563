"""What formats of files say of themselves: no state of a training, and left out by a rule that says so."""

from __future__ import annotations

from harness.checkpoints.rules import Rule

#: Of what a script writes about a file of tensors, what says how far training has come is state.
_STATE = tuple(
    f"*{word}*"
    for word in (
        "step", "epoch", "iter", "progress", "position", "consumed", "seen", "rng", "random", "seed", "state",
        "sched", "optim", "scale", "lr",
    )
)  # fmt: skip
_SAID = "what is said about the file, not a tensor in it"

RULES = (
    Rule("trainer", "__metadata__.*", _SAID, "*.safetensors", but=_STATE),
    Rule("trainer", "__metadata__.*", _SAID, "*.index*.json", but=_STATE),
    Rule("trainer", "metadata.json:date_saved", "when the file was written", "*.keras"),
    Rule("trainer", "*_timestamp_nsecs", "when the checkpoint was written", "*_CHECKPOINT_METADATA"),
    Rule("trainer", "performance_metrics*", "how fast the checkpoint was written", "*_CHECKPOINT_METADATA"),
    Rule("trainer", "line *", "that, and under which name, the save was finished", "*commit_success.txt"),
    Rule("trainer", "line *", "DeepSpeed's program, which it puts beside the checkpoint", "*zero_to_fp32.py"),
)
