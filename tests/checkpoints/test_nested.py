"""Folders of torch's distributed format anywhere in a checkpoint: every item of every file, by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from harness.checkpoints import diff, open_checkpoint, verify
from harness.errors import CheckpointError
from tests.checkpoints.made import dist, save

MODEL = "deep/er/pytorch_model_fsdp_0"


def fsdp(folder: Path, *, first: float = 1.0, last: float = 3.0) -> Path:
    """As accelerate saves it, but deeper."""
    model = {"a": torch.full((4,), first), "b": torch.full((5,), 2.0), "c": torch.full((6,), last)}
    dist(folder / MODEL, {"model": model, "step": torch.tensor(20)})
    dist(folder / "optimizer_0", {"optimizer": {"exp_avg": torch.ones(4)}, "note": "a text"})
    save({"last_epoch": 20}, folder / "scheduler.bin")
    return folder


def test_equal_states_are_equal_and_all_of_them_is_looked_at(tmp_path: Path) -> None:
    found = diff(fsdp(tmp_path / "a"), fsdp(tmp_path / "b"))
    assert (found.equal, found.coverage.uncompared) == (True, 0)
    names = set(open_checkpoint(tmp_path / "a").entries)
    assert names == {
        f"{MODEL}:model.a", f"{MODEL}:model.b", f"{MODEL}:model.c", f"{MODEL}:step",
        "optimizer_0:optimizer.exp_avg", "optimizer_0:note", "scheduler.bin:last_epoch",
    }  # fmt: skip


@pytest.mark.parametrize(("changed", "name"), [({"first": 9.0}, "model.a"), ({"last": 9.0}, "model.c")])
def test_the_changed_tensor_is_named_wherever_it_lies(
    tmp_path: Path, changed: dict[str, float], name: str
) -> None:
    (entry,) = diff(fsdp(tmp_path / "a"), fsdp(tmp_path / "b", **changed)).entries
    assert entry.name == f"{MODEL}:{name}"


def test_below_a_root_that_is_one_itself(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        dist(tmp_path / name, {"w": torch.ones(3)})
        dist(tmp_path / name / "ema", {"w": torch.full((3,), value)})
    (entry,) = diff(tmp_path / "a", tmp_path / "b").entries
    assert entry.name == "ema:w"


def test_verify(tmp_path: Path) -> None:
    folder = fsdp(tmp_path / "a")
    assert verify(folder, hashes=True).files == 5
    data = folder / MODEL / "__0_0.distcp"
    content = data.read_bytes()
    flipped = bytearray(content)
    flipped[content.index(torch.full((5,), 2.0).numpy().tobytes())] ^= 1
    data.write_bytes(flipped)
    verify(folder)
    with pytest.raises(CheckpointError, match=r"model\.b"):
        verify(folder, hashes=True)
    data.write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match="__0_0"):
        verify(folder)
    data.write_bytes(content)
    (folder / MODEL / ".metadata").unlink()
    with pytest.raises(CheckpointError, match=r"\.metadata"):
        verify(folder)


def test_several_torn_files_are_all_named(tmp_path: Path) -> None:
    folder = fsdp(tmp_path / "a")
    for data in folder.rglob("*.distcp"):
        os.truncate(data, 10)
    with pytest.raises(CheckpointError, match=rf"{MODEL}.*; also .*optimizer_0"):
        verify(folder)


def test_a_torn_folder_hides_nothing_of_the_others(tmp_path: Path) -> None:
    one, two = fsdp(tmp_path / "a"), fsdp(tmp_path / "b", first=9.0)
    os.truncate(two / "optimizer_0" / "__0_0.distcp", 10)
    found = diff(one, two)
    assert [entry.name for entry in found.entries] == [f"{MODEL}:model.a"]
    assert found.coverage.uncompared > 0
    assert not found.equal


def test_what_others_call_metadata(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".metadata").write_text("kind: ours\n")
        save({"w": 1}, tmp_path / name / "model.pt")
    assert diff(tmp_path / "a", tmp_path / "b").equal
