"""The case of a script that needs no torch (``tests/stand_ins/plain_script.py``)."""

from __future__ import annotations

import shutil
from pathlib import Path

SCRIPT = Path(__file__).parent / "stand_ins" / "plain_script.py"
CASE = """
TEST_TYPE: ckpt-resume
MODEL_ARGS: {--train-iters: 10, --save-interval: 5}
HARNESS:
  trainer: command
  command:
    train: [python, plain_script.py, --iters, "${TRAIN_ITERS}", --stop, "${EXIT_ITERS}", --every, "5",
            --save, "${CHECKPOINT_SAVE_PATH}", --metrics, "${OUTPUT_PATH}/metrics.jsonl"]
    resume: [python, plain_script.py, --iters, "${TRAIN_ITERS}", --stop, "${EXIT_ITERS}", --every, "5",
             --save, "${CHECKPOINT_SAVE_PATH}", --metrics, "${OUTPUT_PATH}/metrics.jsonl",
             --load, "${CHECKPOINT_LOAD_PATH}"]
"""


def write_case(folder: Path) -> None:
    """Make ``folder``, with the case and its script."""
    folder.mkdir(parents=True)
    (folder / "model_config.yaml").write_text(CASE)
    shutil.copy(SCRIPT, folder)
