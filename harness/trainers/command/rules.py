"""What is no state of what frameworks write into their checkpoints: logs, and counts of one launch."""

from __future__ import annotations

from typing import Final

from harness.checkpoints.conditions import ONE_LESS
from harness.checkpoints.rules import Rule

#: Summaries of transformers' Trainer: over what this launch trained, divided by all steps.
_OF_A_LAUNCH = "a mean over the steps of one launch, which the Trainer logs when it ends; no launch reads it"
#: Lightning 2.6 finds nothing left of the epoch that the checkpoint was in, and does not count it as begun.
_LIGHTNING = (
    "Lightning counts an epoch less as begun where it resumes at the last batch of one; those that were "
    "processed and completed are compared (resumed twice so, they are one behind)"
)
#: ``ModelCheckpoint.load_state_dict`` of Lightning asks whether ``dirpath`` is the one that was saved.
_ELSEWHERE = (
    "Lightning takes over which checkpoints were best only in the folder that they were saved to; the "
    "resumed run's is another, a copy of it"
)
_STAMP = "[0-9]" * 8 + "_" + "[0-9]" * 6

RULES: Final = (
    Rule("trainer", "log_history.*.train_loss", _OF_A_LAUNCH, "*trainer_state.json"),
    *(
        Rule("trainer", f"log_history.*{name}", "how fast it went", "*trainer_state.json")
        for name in ("_runtime", "_samples_per_second", "_steps_per_second")
    ),
    *(
        Rule("trainer", f"*fit_loop.epoch_progress.{part}.{name}", _LIGHTNING, when=ONE_LESS)
        for part in ("current", "total")
        for name in ("ready", "started")
    ),
    *(
        Rule("trainer", f"callbacks.*{{'monitor': *}}.{name}", _ELSEWHERE, "*.ckpt")
        for name in ("best_k_models*", "best_model_*", "kth_*", "last_model_path")
    ),
    *(
        Rule("trainer", f"message_hub.log_scalars.*{name}._log_history", "how long its steps took", "*.pth")
        for name in ("/time", "/data_time")
    ),
    Rule("trainer", "message_hub.runtime_info.eta", "how long it would still take", "*.pth"),
    Rule(
        "trainer",
        "*",
        "mmengine's configuration, named by when the launch began",
        f"*{_STAMP}.py",
    ),
    *(
        Rule("trainer", "*", "mmengine's log of one launch", f"*{_STAMP}/{name}")
        for name in (
            f"{_STAMP}.log",
            "vis_data/*.json",
            "vis_data/config.py",
            "vis_data/events.out.tfevents.*",
        )
    ),
)
