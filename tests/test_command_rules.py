"""What of frameworks' checkpoints is no state: only that, and only as its reason says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.checkpoints import diff
from harness.checkpoints.components import foreign
from harness.trainers.command.rules import RULES

pytestmark = pytest.mark.torch


def apart(folder: Path, file: str, one: Any, two: Any) -> list[str]:
    """Names that differ, where the first is of an uninterrupted run and the second of a resumed one."""
    import torch

    for side, value in (("a", one), ("b", two)):
        path = folder / side / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".json", ".log"):
            path.write_text(json.dumps(value))
        else:
            torch.save(value, path)
        torch.save({"w": torch.ones(2)}, folder / side / "model.pt")
    return [entry.name for entry in diff(folder / "a", folder / "b", rules=RULES).entries]


def progress(**changed: int) -> dict[str, Any]:
    total = {"ready": 4, "started": 4, "processed": 3, "completed": 3} | changed
    return {"loops": {"fit_loop": {"epoch_progress": {"total": total, "current": total}}}}


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"ready": 3, "started": 3}, set()),
        ({"ready": 2}, {"total.ready", "current.ready"}),
        ({"ready": 5}, {"total.ready", "current.ready"}),
        ({"completed": 2}, {"total.completed", "current.completed"}),
    ],
)
def test_lightning_may_have_begun_one_epoch_less_and_completed_none(
    changed: dict[str, int], found: set[str], tmp_path: Path
) -> None:
    names = apart(tmp_path, "step=20.ckpt", progress(), progress(**changed))
    assert {name.rpartition("epoch_progress.")[2] for name in names} == found


def test_which_of_lightnings_checkpoints_were_best_is_not_taken_over_and_its_patience_is(
    tmp_path: Path,
) -> None:
    def callbacks(best: float, score: float, wait: int) -> dict[str, Any]:
        keeper = {"best_k_models": {"a.ckpt": best}, "kth_value": best, "best_model_score": best}
        stopper = {"wait_count": wait, "best_score": score}
        about = "{'monitor': 'val_loss', 'mode': 'min'}"
        keeper |= {"current_score": score}
        return {"callbacks": {f"ModelCheckpoint{about}": keeper, f"EarlyStopping{about}": stopper}}

    one = callbacks(0.5, 0.5, 1)
    assert apart(tmp_path, "step=20.ckpt", one, callbacks(0.25, 0.5, 1)) == []
    names = apart(tmp_path, "step=20.ckpt", one, callbacks(0.25, 0.125, 2))
    assert {name.rpartition(".")[2] for name in names} == {"current_score", "best_score", "wait_count"}


def test_what_a_callback_was_told_names_no_component() -> None:
    about = "{'monitor': 'val_loss', 'every_n_epochs': 0, 'every_n_train_steps': 20}"
    assert foreign(f"callbacks.ModelCheckpoint{about}.current_score") == "unknown"
    assert foreign("callbacks.EMA.ema_weights.0") == "buffers"
    assert foreign(f"callbacks.Averaging{about}.model.w") == "weights"


def test_the_mean_of_a_launch_is_none_and_a_loss_of_a_step_is(tmp_path: Path) -> None:
    history = [{"step": 40, "loss": 0.5}, {"step": 40, "train_loss": 3.5, "eval_runtime": 1.0}]
    other = [history[0], {"step": 40, "train_loss": 3.25, "eval_runtime": 2.0}]
    assert apart(tmp_path, "trainer_state.json", {"log_history": history}, {"log_history": other}) == []
    other = [{"step": 40, "loss": 0.25}, history[1]]
    assert apart(tmp_path, "trainer_state.json", {"log_history": history}, {"log_history": other}) != []
    assert apart(tmp_path, "mine.json", {"log_history": history}, {"log_history": other[::-1]}) != []


def test_mmengines_log_is_none_and_what_else_lies_there_is(tmp_path: Path) -> None:
    stamp = "20261127_200517"
    assert apart(tmp_path, f"{stamp}/{stamp}.log", "a", "b") == []
    assert apart(tmp_path, f"{stamp}/vis_data/scalars.json", [1], [2]) == []
    assert apart(tmp_path, f"{stamp}/state.json", [1], [2]) != []
    assert apart(tmp_path / "py", f"{stamp}.py", 1, 2) == []
    assert apart(tmp_path / "py", "state.py", 1, 2) != []


def test_how_long_its_steps_took_is_none_and_their_loss_is(tmp_path: Path) -> None:
    import numpy as np

    def hub(time: float, loss: float) -> dict[str, Any]:
        scalars = {
            f"train/{name}": {"_log_history": np.array([value, value])}
            for name, value in (("time", time), ("data_time", time), ("loss", loss))
        }
        return {"message_hub": {"log_scalars": scalars, "runtime_info": {"eta": float(time), "iter": loss}}}

    assert apart(tmp_path, "epoch_2.pth", hub(1, 3), hub(2, 3)) == []
    names = apart(tmp_path, "epoch_2.pth", hub(1, 3), hub(2, 4))
    assert [name.rpartition("message_hub.")[2] for name in sorted(names)] == [
        "log_scalars.train/loss._log_history", "runtime_info.iter",
    ]  # fmt: skip
