"""Every format, and anybody's nest, is read as what torch itself reads in it."""

from __future__ import annotations

import collections
import json
import pickle
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.checkpoints import diff, fingerprint, open_checkpoint, verify
from harness.errors import CheckpointError
from tests.checkpoints.made import WEIGHT, dist, ranks, save, state

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    torch.complex64, torch.complex128,
]  # fmt: skip


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a.dtype, a.shape) == (b.dtype, b.shape) and a.contiguous().reshape(-1).view(
        torch.uint8
    ).tolist() == b.contiguous().reshape(-1).view(torch.uint8).tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_tensor_is_read_as_torch_saved_it(tmp_path: Path, dtype: torch.dtype, *, legacy: bool) -> None:
    tensor = (torch.arange(24).reshape(2, 3, 4) % 5).to(dtype)
    path = save({"x": tensor}, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    assert same_bits(open_checkpoint(path).read("x"), tensor)


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.T, lambda t: t[::2], lambda t: t[:, 1:3], lambda t: t[3], lambda t: t.flatten()[5:17:3],
        lambda t: t.expand(2, *t.shape), lambda t: t[0:0], lambda t: t.sum(), lambda t: t[:, ::2].T,
    ],
)  # fmt: skip
def test_view_is_read_with_its_strides(tmp_path: Path, view: Any) -> None:
    tensor = view(torch.randn(6, 8))
    path = save([tensor], tmp_path / "a.pt")
    assert same_bits(open_checkpoint(path).read("0"), tensor)


def test_two_views_of_one_storage_are_two_names(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    found = open_checkpoint(save({"a": base[:4], "b": base[4:], "c": base}, tmp_path / "a.pt"))
    assert found.names() == ["a", "b", "c"]
    assert found.read("b").tolist() == base[4:].tolist()


def test_nest_of_anything_is_flattened_to_dotted_names(tmp_path: Path) -> None:
    nest = {
        "epoch": 3, "rate": 0.5, "done": False, "name": "größe", "none": None, "big": 1 << 80, "raw": b"\0\1",
        "z": 1 + 2j, "list": [1, 2, 3], "mixed": [1, "a", {"deep": torch.ones(2)}], 7: "seven", "empty": {},
        "args": Namespace(lr=0.1, layers=[1, 2]), "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, b=[1.5]), "array": np.arange(6, dtype=">f4").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "scalar": np.float64(2.5), "set": {3, 1},
        "dtype": torch.bfloat16, "device": torch.device("cpu"), "size": torch.Size([2, 3]),
        "parameter": torch.nn.Parameter(torch.ones(2)), "queue": collections.deque([1, 2]),
    }  # fmt: skip
    found = open_checkpoint(save(nest, tmp_path / "a.pt"))
    read: dict[str, Any] = {name: found.read(name) for name in found.names()}
    assert read["epoch"].tolist() == 3
    assert read["rate"].tolist() == 0.5
    assert read["done"].tolist() is False
    assert bytes(read["name"].tolist()).decode() == "größe"
    assert read["z"].tolist() == 1 + 2j
    assert read["list"].tolist() == [1, 2, 3]
    assert read["mixed.2.deep"].tolist() == [1.0, 1.0]
    assert bytes(read["7"].tolist()) == b"seven"
    assert read["args.lr"].tolist() == 0.1
    assert read["default.b"].tolist() == [1.5]
    assert read["array"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert read["fortran"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert read["scalar"].tolist() == 2.5
    assert read["parameter"].tolist() == [1.0, 1.0]
    assert {"empty", "none", "big", "raw", "dtype", "device", "size", "set", "queue"} <= set(read)


def test_optimizer_and_rng_of_plain_torch_are_read_whole(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    schedule.step()
    nest = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "torch_rng": torch.get_rng_state(), "numpy_rng": np.random.default_rng(1).bit_generator.state,
        "step": 1, "sampler": {"epoch": 2}, "scaler": {"scale": 65536.0},
    }  # fmt: skip
    found = open_checkpoint(save(nest, tmp_path / "last.ckpt"))
    by = {name: found.component(name) for name in found.names()}
    assert by["model.weight"] == "weights"
    assert by["optimizer.state.0.exp_avg"] == "optimizer"
    assert by["lr_scheduler.last_epoch"] == "lr-schedule"
    assert by["optimizer.param_groups.0.lr"] == "lr-schedule"
    assert by["torch_rng"] == by["numpy_rng.state.state"] == "rng"
    assert by["sampler.epoch"] == "data-order"
    assert by["scaler.scale"] == "grad-scaler"
    assert by["step"] == "iteration"


def test_three_native_forms_of_one_state_are_equal_and_have_one_fingerprint(tmp_path: Path) -> None:
    tensors = state()
    one, two = ranks(tmp_path / "tp1", tensors), ranks(tmp_path / "tp2", tensors, tp=2)
    distributed = dist(tmp_path / "dist", tensors)
    forms = [open_checkpoint(path) for path in (one, two, distributed)]
    assert [(form.format, form.native) for form in forms] == [
        ("torch", True),
        ("torch", True),
        ("torch_dist", True),
    ]
    for form in forms:
        assert form.names() == sorted(tensors)
        for name, tensor in tensors.items():
            assert same_bits(form.read(name), tensor), name
    for other in (two, distributed):
        found = diff(one, other)
        assert found.equal, found.entries
        assert found.compared == len(tensors)
        assert fingerprint(other) == fingerprint(one)
    assert set(fingerprint(one)) == {
        "weights", "embedding", "optimizer", "lr-schedule", "data-order", "rng", "iteration",
    }  # fmt: skip


def test_fingerprint_changes_with_one_bit_in_its_own_component_only(tmp_path: Path) -> None:
    tensors = state()
    before = fingerprint(ranks(tmp_path / "a", tensors))
    tensors[f"model.{WEIGHT}"].view(torch.int32)[0, 0] ^= 1
    after = fingerprint(ranks(tmp_path / "b", tensors))
    assert {name for name in before if before[name] != after[name]} == {"weights"}


def test_folder_with_a_tracker_is_its_latest_iteration(tmp_path: Path) -> None:
    for iteration in (5, 10):
        save({"step": iteration}, tmp_path / f"iter_{iteration:07d}" / "state.pt")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("5\n")
    assert open_checkpoint(tmp_path).read("step").item() == 5


def test_folder_of_anybodys_files_has_their_names_and_texts_by_line(tmp_path: Path) -> None:
    save({"w": torch.ones(2)}, tmp_path / "c" / "model.pt")
    (tmp_path / "c" / "trainer.json").write_text(json.dumps({"global_step": 7, "lr": [0.1, 0.2]}))
    (tmp_path / "c" / "shard.bin").write_bytes(b"12345")
    (tmp_path / "c" / "train.log").write_text("hello")
    found = open_checkpoint(tmp_path / "c")
    assert found.names() == [
        "model.pt:w", "shard.bin:line 1", "train.log:line 1", "trainer.json:global_step", "trainer.json:lr",
    ]  # fmt: skip
    assert found.files == ("model.pt", "shard.bin", "train.log", "trainer.json")


def test_distributed_checkpoint_with_pickled_objects_is_read(tmp_path: Path) -> None:
    found = open_checkpoint(dist(tmp_path / "d", {"w": torch.ones(3), "extra": {"step": 4, "name": "x"}}))
    assert found.read("w").tolist() == [1.0, 1.0, 1.0]
    assert found.read("extra.step").item() == 4


def test_name_that_is_not_there_is_an_error_by_its_name(tmp_path: Path) -> None:
    from harness.errors import CheckpointError

    with pytest.raises(CheckpointError, match="holds no y"):
        open_checkpoint(save({"x": 1}, tmp_path / "a.pt")).read("y")


@pytest.mark.parametrize(
    "name", ["model_0000019.pth", "ckpt.pt", "last.ckpt", "optimizer.bin", "last.pth.tar"]
)
@pytest.mark.parametrize("write", [json.dumps, pickle.dumps], ids=["JSON", "pickle"])
def test_what_is_only_called_like_a_file_of_torch_is_read_as_what_it_is(
    name: str, write: Callable[[Any], str | bytes], tmp_path: Path
) -> None:
    paths = [tmp_path / side / name for side in "ab"]
    for path, last in zip(paths, (0.5, 0.75), strict=True):
        path.parent.mkdir()
        content = write({"step": 20, "momentum": [0.25, last]})
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        verify(path)
    assert [d.name for d in diff(*paths).entries] == ["momentum"]
    paths[0].write_bytes(paths[1].read_bytes()[:-4])
    if name.endswith((".pt", ".pth", ".ckpt")):
        with pytest.raises(CheckpointError, match=r"expected a torch\.save archive"):
            verify(paths[0])


def test_json_with_a_value_a_line_is_a_list_of_them(tmp_path: Path) -> None:
    for side, loss in (("a", 2.5), ("same", 2.5), ("b", 2.75)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "step.json").write_text("20")
        lines = [json.dumps({"step": i, "loss": loss if i == 1 else i}) for i in range(3)]
        (tmp_path / side / "history.json").write_text(("\n\n" if side == "same" else "\n").join(lines))
    assert diff(tmp_path / "a", tmp_path / "same").equal
    found = diff(tmp_path / "a", tmp_path / "b")
    assert [d.name for d in found.entries] == ["history.json:1.loss"]
    assert not found.unread


def test_folders_of_ranks_that_hold_no_file_of_torch_are_anybodys(tmp_path: Path) -> None:
    for side, last in (("a", 1), ("b", 2)):
        (tmp_path / side / "mp_rank_00").mkdir(parents=True)
        (tmp_path / side / "mp_rank_00" / "state.json").write_text(json.dumps({"momentum": last}))
    assert [d.key for d in diff(tmp_path / "a", tmp_path / "b").entries] == ["momentum"]
