"""What is killed: cases of the native trainer, and scripts that save in different ways, sound and not."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.cases import Case, load_case
from harness.matrix import CASE_FILE

_HERE: Final = Path(__file__).parent
_NATIVE: Final = _HERE.parent / "faults" / "cases"


@dataclass(frozen=True)
class Row:
    """One of them.

    Args:
        name: of the case, and of its row in the table.
        trainer: ``native`` or ``command``.
        words: of the command, before those that all have.
        ranks: processes.
        planted: what is wrong with it; empty for a sound one.
        share: how many kills of a round it gets.
        limit: seconds that its ranks may be silent for; where one of two is killed and
            nobody tells the other, that limit applies.
    """

    name: str
    trainer: str
    words: tuple[str, ...] = ()
    ranks: int = 1
    planted: str = ""
    share: int = 1
    limit: float = 30.0

    def case(self, root: Path) -> Case:
        """The case, written below ``root`` where it is a script's."""
        folder = root / "cases" / "kills" / self.name
        if self.trainer == "native":
            folder.mkdir(parents=True, exist_ok=True)
            text = next(_NATIVE.glob(f"*/{self.name}/{CASE_FILE}")).read_text(encoding="utf-8")
            # Two saves are little to be killed between.
            text = re.sub(r"--save-interval: \d+", "--save-interval: 4", text)
            (folder / CASE_FILE).write_text(text, encoding="utf-8")
        elif not folder.is_dir():
            folder.mkdir(parents=True)
            for script in (_HERE / "scripts").glob("*.py"):
                shutil.copy(script, folder)
            words = [*self.words, "--iters", "${TRAIN_ITERS}", "--every", "${SAVE_INTERVAL}",
                     "--save", "${CHECKPOINT_SAVE_PATH}", "--out", "${OUTPUT_PATH}"]  # fmt: skip
            command = {"train": words, "resume": [*words, "--load", "${CHECKPOINT_LOAD_PATH}"]}
            keys = {
                "TEST_TYPE": "ckpt-resume",
                "MODEL_ARGS": {"--train-iters": 20, "--save-interval": 5},
                "HARNESS": {"trainer": "command", "world_size": self.ranks, "command": command},
            }
            (folder / CASE_FILE).write_text(json.dumps(keys))  # which is YAML too
        return load_case(folder)


def _plain(how: str, planted: str = "") -> Row:
    words = ("python", "plain.py", "--how", how)
    return Row(f"plain-{how}", "command", words, planted=planted, share=1 if planted else 3)


_TORCHRUN = ("torchrun", "--standalone", "--nproc_per_node", "2", "ddp.py")
ROWS: Final = (
    Row("dense_torch", "native", share=2),
    Row("dense_torch_dist_async", "native"),
    Row("bf16_dp2", "native", ranks=2),
    Row("tp2_ep2_torch_dist", "native", ranks=2),
    _plain("atomic"),
    _plain("last"),
    _plain("checked"),
    Row("pair", "command", ("python", "pair.py"), ranks=2, share=2, limit=4.0),
    Row("torchrun", "command", _TORCHRUN, ranks=2),
    _plain("lenient", "in place, the tracker first, and what is missing is made up"),
    _plain("lenient-last", "one file in place, and what is missing is made up"),
    _plain("parts", "two files in place, the tracker first, and what is missing is made up"),
    _plain("strict", "in place, the tracker first, and no way back to an older one"),
    _plain("forgiving", "in place, the tracker first, and begun anew though an older one is whole"),
)


def rows(trainer: str, *, planted: bool) -> list[Row]:
    """Those of a trainer, each as often as it has a share."""
    chosen = [row for row in ROWS if row.trainer == trainer and bool(row.planted) is planted]
    return [row for row in chosen for _ in range(row.share)]
