"""A repository of small cells that need no torch, and ``harness sweep`` of them on the head of a cluster."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.plain_case import SCRIPT
from tests.slurm.cluster import Cluster

ROOT = Path(__file__).parents[2]
CPUS = 2  # of a task; a node of the cluster has four
_PYPROJECT = "[tool.harness.tracks]\nhere = {group = false}\n"
_COMMAND = (
    'python, train.py, --iters, "${TRAIN_ITERS}", --stop, "${EXIT_ITERS}", --every, "5", '
    '--save, "${CHECKPOINT_SAVE_PATH}", --metrics, "${OUTPUT_PATH}/metrics.jsonl"'
)
_CASE = """
TEST_TYPE: ckpt-resume
MODEL_ARGS: {{--train-iters: 10, --save-interval: 5}}
HARNESS:
  trainer: command
  command:
    train: [{command}]
    resume: [{command}, --load, "${{CHECKPOINT_LOAD_PATH}}"]
"""
#: How long a step is and where it loses what is no argument: all cases have the golden of one.
_SCRIPT = """
import platform, runpy, sys
sys.argv += ["--pause", "{pause}"]
if "--load" in sys.argv and platform.node() in {bad}:
    sys.argv += ["--forgets", "optimizer"]
runpy.run_path("plain_script.py", run_name="__main__")
"""
#: All machines of a cluster.
EVERYWHERE = ("head", "n1", "n2", "n3")


def environment() -> dict[str, str]:
    """The tests' Python is the first on PATH, and has this harness."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "CI": ""}


def case(root: Path, name: str, *, bad: Sequence[str] = (), pause: float = 0.0) -> None:
    """Add a case to a repository.

    Args:
        bad: machines on which its script resumes without its momentum.
        pause: seconds a step.
    """
    folder = root / "test_cases" / "plain" / name
    folder.mkdir(parents=True)
    shutil.copy(SCRIPT, folder)
    (folder / "train.py").write_text(_SCRIPT.format(pause=pause, bad=tuple(bad)))
    (folder / "model_config.yaml").write_text(_CASE.format(command=_COMMAND))


def repository(root: Path) -> Path:
    """An empty one, with a track for which no environment is made."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "pyproject.toml").write_text(_PYPROJECT)
    return root


def record(root: Path) -> Path:
    """The golden of a case such as all of these are, with its path."""
    case(repository(root), "any")
    words = ["run", "any", "--hardware", "cpu", "--track", "here", "--golden-update"]
    subprocess.run(
        [sys.executable, "-m", "harness", *words],
        cwd=root, env={**os.environ, **environment()}, capture_output=True, check=False,
    )  # fmt: skip
    return root / "goldens" / "any"


def golden(root: Path, recorded: Path) -> None:
    """Give it to every case of a repository."""
    for folder in (root / "test_cases" / "plain").iterdir():
        shutil.copytree(recorded, root / "goldens" / folder.name)


@dataclass
class Sweep:
    """``harness sweep`` on the head; a context manager that ends it.

    Args:
        cluster: whose head.
        root: of the repository.
        words: more of the command line.
    """

    cluster: Cluster
    root: Path
    words: Sequence[str] = ()
    env: dict[str, str] = field(default_factory=dict)
    said: str = ""

    def __post_init__(self) -> None:
        words = ["sweep", "--hardware", "cpu", f"--slurm-option=--cpus-per-task={CPUS}", *self.words]
        self.process = self.cluster.popen(
            sys.executable, "-m", "harness", *words, cwd=self.root, **{**environment(), **self.env}
        )

    def __enter__(self) -> Sweep:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.process.poll() is None:
                self.process.terminate()
                self.process.wait(70)
        self.process.kill()
        self.process.communicate()

    def end(self, seconds: float = 240) -> int:
        """Its exit status, when it has ended."""
        self.said, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode

    def begun(self, name: str, *, restart: int = 0, seconds: float = 120) -> dict[str, Any]:
        """The marker of a cell whose run has come to training.

        Raises:
            AssertionError: it has not, in time.
        """
        folder = self.folder(name)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError, ValueError):
                found: dict[str, Any] = json.loads((folder / ".harness-cell").read_text())
                trains = any(path.stat().st_size for path in folder.glob("*/metrics.jsonl"))
                if found["restart"] == restart and trains:
                    return found
            time.sleep(0.1)
        self.process.kill()
        raise AssertionError(f"{name} did not begin: {self.process.communicate()[0]}")

    def folder(self, name: str) -> Path:
        """Of a cell's results."""
        return self.root / "results" / "cpu" / "here" / name

    def verdict(self, name: str) -> dict[str, Any]:
        """Of a cell."""
        found: dict[str, Any] = json.loads((self.folder(name) / "verdict.json").read_text())
        return found
