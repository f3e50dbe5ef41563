"""Cells of the cluster's tests: cases that are small, and the commands that run them on the head."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.slurm.cluster import Cluster

ROOT = Path(__file__).parents[2]
#: Two data-parallel ranks of a model that trains hundreds of iterations a second.
_TINY = """
ENV_VARS: {{CUDA_DEVICE_MAX_CONNECTIONS: 1}}
TEST_TYPE: ckpt-resume
MODEL_ARGS:
  --num-layers: 1
  --hidden-size: 16
  --num-attention-heads: 2
  --seq-length: 8
  --max-position-embeddings: 8
  --vocab-size: 32
  --make-vocab-size-divisible-by: 32
  --deterministic-mode: true
  --micro-batch-size: 1
  --global-batch-size: 2
  --train-iters: {iterations}
  --save-interval: {save}
  --lr: 0.005
  --data-path: synthetic-4908
  --split: 90,10,0
  --eval-interval: 1000000
  --eval-iters: 1
  --save: ${{CHECKPOINT_SAVE_PATH}}
  --load: ${{CHECKPOINT_LOAD_PATH}}
  --ckpt-format: torch_dist
  --tensorboard-dir: ${{TENSORBOARD_PATH}}
  --log-interval: 1
HARNESS: {{trainer: native, world_size: 2, nodes: 2}}
"""


#: One torchrun on each of two nodes, of two ranks each.
_SCRIPT = """
TEST_TYPE: ckpt-resume
MODEL_ARGS: {{--train-iters: 8, --save-interval: 4}}
HARNESS:
  trainer: command
  world_size: 4
  nodes: 2
  command:
    train: [torchrun, --nproc-per-node=2, {torchrun} {script},
            --iters, "${{TRAIN_ITERS}}", --stop, "${{EXIT_ITERS}}",
            --save, "${{CHECKPOINT_SAVE_PATH}}", --metrics, "${{OUTPUT_PATH}}/metrics.jsonl", {more}]
    resume: [torchrun, --nproc-per-node=2, {torchrun} {script},
             --iters, "${{TRAIN_ITERS}}", --stop, "${{EXIT_ITERS}}",
             --save, "${{CHECKPOINT_SAVE_PATH}}", --metrics, "${{OUTPUT_PATH}}/metrics.jsonl",
             --load, "${{CHECKPOINT_LOAD_PATH}}"]
"""


def scripted(folder: Path, *more: str, torchrun: str = "") -> Path:
    """A case of a user's script, which is told ``more``, and torchrun a word of its own; the folder."""
    case = folder / "cases" / "gpt" / "scripted"
    case.mkdir(parents=True)
    script = Path(__file__).with_name("script.py")
    (case / "model_config.yaml").write_text(
        _SCRIPT.format(
            script=script,
            more=", ".join(f'"{word}"' for word in more),
            torchrun=f'"{torchrun}",' if torchrun else "",
        )
    )
    return folder


_PLAIN = """
TEST_TYPE: ckpt-resume
MODEL_ARGS: {{--train-iters: 10, --save-interval: 5}}
HARNESS:
  trainer: command
  command:
    train: [python, {script}, --stop, "${{EXIT_ITERS}}", --save, "${{CHECKPOINT_SAVE_PATH}}",
            --metrics, "${{OUTPUT_PATH}}/metrics.jsonl"{more}]
    resume: [python, {script}, --stop, "${{EXIT_ITERS}}", --save, "${{CHECKPOINT_SAVE_PATH}}",
             --metrics, "${{OUTPUT_PATH}}/metrics.jsonl", --load, "${{CHECKPOINT_LOAD_PATH}}"{more}]
"""


def plain(folder: Path, *, keep: str = "") -> Path:
    """A case of a script that needs no torch, on one node; the folder.

    Args:
        keep: where the files of a checkpoint go, beside what names the last one.
    """
    case = folder / "cases" / "gpt" / "plain"
    case.mkdir(parents=True)
    more = f', --keep, "{keep}"' if keep else ""
    script = Path(__file__).with_name("kept.py")
    (case / "model_config.yaml").write_text(_PLAIN.format(script=script, more=more))
    return folder


def tiny(folder: Path, *, iterations: int = 20) -> Path:
    """A case of two ranks on two nodes; the folder."""
    case = folder / "cases" / "gpt" / "tiny"
    case.mkdir(parents=True)
    (case / "model_config.yaml").write_text(_TINY.format(iterations=iterations, save=iterations // 2))
    return folder


@dataclass
class Cell:
    """``harness run`` on the head, watched line by line.

    Args:
        cluster: whose head.
        folder: gets its results.
        words: more of the command line.
        cases, goldens, results: their folders; None: those of ``folder``.
        hardware: of the cell.
        env: more variables.
    """

    cluster: Cluster
    folder: Path
    words: tuple[str, ...] = ()
    cases: Path | None = None
    goldens: Path | None = None
    results: Path | None = None
    hardware: str = "cpu"
    env: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.results = self.results or self.folder / "results"
        cases, goldens = self.cases or self.folder / "cases", self.goldens or self.folder / "goldens"
        self.process = self.cluster.popen(
            sys.executable, "-m", "harness", "run", *self.words, "--cases", str(cases),
            "--goldens", str(goldens), "--results", str(self.results), "--engine", "slurm",
            "--hardware", self.hardware, "--track", "dev", cwd=ROOT, PYTHONPATH=str(ROOT), COLUMNS="1000",
            **self.env,
        )  # fmt: skip

    def __enter__(self) -> Cell:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def until(self, text: str) -> None:
        """Read what it says until a line has ``text``."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            if text in line:
                return
        raise AssertionError(f"it ended without {text!r}: {self.told}")

    def end(self, seconds: float = 120) -> int:
        """Its exit status, when it has ended."""
        out, _ = self.process.communicate(timeout=seconds)
        self.said += out.splitlines()
        return self.process.returncode

    @property
    def told(self) -> str:
        """All that it has said."""
        return "\n".join(self.said)

    @property
    def verdict(self) -> dict[str, Any]:
        """Of its only cell."""
        assert self.results
        (path,) = self.results.glob("*/*/*/verdict.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def trained(cell: Cell, phase: str = "continuous", at: int = 20) -> None:
    """Wait until the ranks of a phase have come to an iteration."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert cell.process.poll() is None, cell.end()
        assert cell.results
        logs = [*cell.results.glob(f"*/*/*/{phase}/tensorboard/*")]
        if logs and logs[0].stat().st_size > 1000 * at:
            return
        time.sleep(0.05)
    raise AssertionError(f"{phase} did not come to iteration {at}")
