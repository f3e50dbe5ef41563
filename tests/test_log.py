"""harness.log: two lines in a script that has no log of its own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness.cases import load_case
from harness.metrics import read_metrics
from harness.trainers.command.remarks import remarks

ROOT = Path(__file__).parents[1]


def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "metrics.jsonl"
    monkeypatch.setenv(harness.LOG_VARIABLE, str(path))
    monkeypatch.delenv("RANK", raising=False)
    return path


def test_outside_of_the_harness_it_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(harness.LOG_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    harness.log(1, loss="no number, and nobody looks")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_what_is_logged_is_read_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged(tmp_path, monkeypatch)
    harness.log(1, loss=0.1, tokens=2**60 + 1)
    harness.log(2, loss=math.inf, tokens=3)
    found = read_metrics(tmp_path / "tensorboard", tmp_path)
    assert list(found["loss"].values) == [0.1, math.inf]
    assert list(found["tokens"].values) == [2**60 + 1, 3]
    assert list(found["loss"].steps) == [1, 2]


@pytest.mark.torch
def test_a_tensor_of_one_element_is_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    path = logged(tmp_path, monkeypatch)
    harness.log(int(torch.tensor(3)), loss=torch.tensor(0.5, requires_grad=True))
    assert json.loads(path.read_text()) == {"step": 3, "loss": 0.5}
    with pytest.raises((ValueError, RuntimeError)):
        harness.log(4, loss=torch.ones(2))


@pytest.mark.parametrize(("step", "loss"), [(1.5, 0.0), (1, "0.5")])
def test_what_is_no_number_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, loss: float
) -> None:
    path = logged(tmp_path, monkeypatch)
    with pytest.raises(TypeError, match=r"harness.log: (the step is 1.5|loss is '0.5')"):
        harness.log(step, loss=loss)
    assert not path.exists()


def test_a_metric_does_not_take_the_steps_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = logged(tmp_path, monkeypatch)
    with pytest.raises(TypeError, match="a metric is named step"):
        harness.log(2, step=7, loss=0.5)
    assert not path.exists()


def test_of_several_ranks_one_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = logged(tmp_path, monkeypatch)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        harness.log(1, loss=float(rank))
    assert json.loads(path.read_text()) == {"step": 1, "loss": 0.0}


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = "import sys, harness; harness.log(1, loss=1.0); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    roots = {name.partition(".")[0] for name in done.stdout.split()}
    assert {name for name in roots if not name.startswith("_")} <= {*sys.stdlib_module_names, "harness"}


SCRIPT = """
import argparse, json, pathlib
import harness

p = argparse.ArgumentParser()
for name in ("--iters", "--stop"):
    p.add_argument(name, type=int)
for name in ("--save", "--load"):
    p.add_argument(name, type=pathlib.Path)
a = p.parse_args()
step, w = json.loads((a.load / "last.json").read_text()) if a.load else (0, 1.0)
while step < a.stop:
    step, w = step + 1, w * 0.9
    harness.log(step, loss=w)
(a.save / "last.json").write_text(json.dumps([step, w]))
"""
CASE = """
MODEL_ARGS: {--train-iters: 4, --save-interval: 2}
HARNESS:
  trainer: command
  command:
    train: [python, train.py, --iters, "${TRAIN_ITERS}", --stop, "${EXIT_ITERS}",
            --save, "${CHECKPOINT_SAVE_PATH}"]
    resume: [python, train.py, --iters, "${TRAIN_ITERS}", --stop, "${EXIT_ITERS}",
             --save, "${CHECKPOINT_SAVE_PATH}", --load, "${CHECKPOINT_LOAD_PATH}"]
"""


def test_a_script_that_logs_by_it_gets_a_verdict_and_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from harness.commands.cli import main

    folder = tmp_path / "cases" / "mine" / "logs"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(SCRIPT)
    (folder / "model_config.yaml").write_text(CASE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))
    assert remarks(load_case(folder), "cpu") == ()
    assert main(["run", "cases/mine/logs", "--golden-update"]) == 1
    assert main(["run", "cases/mine/logs"]) == 0
    (folder / "train.py").write_text(
        SCRIPT.replace("w * 0.9", "w * (0.9 if step < 3 or not a.load else 0.8)")
    )
    assert main(["run", "cases/mine/logs", "--protocol", "full"]) == 1
    assert "continuous: loss" in capsys.readouterr().out
    (folder / "train.py").write_text(SCRIPT.replace("import harness", "").replace("harness.log", "print"))
    assert [one.kind for one in remarks(load_case(folder), "cpu")] == ["metrics"]


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("from transformers import (\n    Trainer,\n)\n", False),
        ("import torch, trl\nx = trl.SFTTrainer\n", True),  # nobody writes it so
        ("from trl import SFTConfig, SFTTrainer\n", False),
        ("from transformers import AutoModel\n", True),
        ("from harness import log\n", False),
        ("# import harness\n", True),
    ],
)
def test_no_place_for_metrics_is_remarked_only_where_the_script_has_none(
    tmp_path: Path, text: str, warned: bool
) -> None:
    folder = tmp_path / "cases" / "mine" / "logs"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(text)
    (folder / "model_config.yaml").write_text(CASE)
    assert [one.kind for one in remarks(load_case(folder), "cpu")] == ["metrics"] * warned
