"""safetensors are compared by tensor, whatever shards they lie in, and a torn one is not whole."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.checkpoints import StateDiff, diff, fingerprint, open_checkpoint, verify
from harness.errors import CheckpointError

Tensors = dict[str, Any]
WHOLE = "model.safetensors"


def tensors(**changed: Any) -> Tensors:
    made = {
        "embed.weight": np.arange(12, dtype="f4").reshape(4, 3),
        "layers.0.mlp.weight": np.ones((3, 3), "f4"),
        "layers.0.norm.weight": np.arange(3, dtype="f8"),
        "empty": np.zeros((0, 4), "f4"),
        "step": np.array(7, "i8"),
    }
    return made | changed


def whole(folder: Path, held: Tensors, metadata: Mapping[str, str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(held, folder / WHOLE, dict(metadata) if metadata else None)
    return folder


def sharded(folder: Path, held: Tensors, count: int, *, index: bool = True, about: object = None) -> Path:
    folder.mkdir(parents=True)
    names = list(held)
    where: dict[str, str] = {}
    for i in range(count):
        file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        save_file({name: held[name] for name in names[i::count]}, folder / file)
        where |= dict.fromkeys(names[i::count], file)
    if index:
        content = {"metadata": {"total_size": 1} if about is None else about, "weight_map": where}
        (folder / f"{WHOLE}.index.json").write_text(json.dumps(content))
    return folder


def raw(path: Path, header: Mapping[str, Any], data: bytes) -> Path:
    """Types that numpy has no word for."""
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path.parent


def names(found: StateDiff) -> list[str]:
    return [entry.name for entry in found.entries]


def test_order_and_what_is_said_about_the_file_are_no_difference(tmp_path: Path) -> None:
    one = whole(tmp_path / "a", tensors(), {"format": "pt"})
    two = whole(tmp_path / "b", dict(reversed(tensors().items())), {"format": "np", "saved": "later"})
    found = diff(one, two)
    assert found.equal
    assert found.compared == len(tensors())
    said = [rule for rule in found.coverage.rules if rule.entry == "__metadata__.*"]
    assert [rule.matched for rule in said] == [2]  # left out, and told
    assert fingerprint(one) == fingerprint(two)


def test_state_that_a_script_keeps_in_the_metadata_is_compared(tmp_path: Path) -> None:
    one = whole(tmp_path / "a", tensors(), {"global_step": "20", "format": "pt"})
    two = whole(tmp_path / "b", tensors(), {"global_step": "10", "format": "pt"})
    assert names(diff(one, two)) == ["__metadata__.global_step"]
    assert names(diff(one, whole(tmp_path / "c", tensors()))) == ["__metadata__.global_step"]


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("counts", [(1, 2), (2, 3), (2, 5)])
def test_how_tensors_are_spread_is_no_difference(
    tmp_path: Path, counts: tuple[int, int], index: bool
) -> None:
    one = sharded(tmp_path / "a", tensors(), counts[0], index=index)
    two = sharded(tmp_path / "b", tensors(), counts[1], index=index)
    for left, right in ((one, two), (one, whole(tmp_path / "c", tensors()))):
        found = diff(left, right)
        assert not names(found)
        assert (found.equal, found.compared) == (True, len(tensors()))
    changed = np.ones((3, 3), "f4")
    changed[2, 1] = 2
    other = sharded(tmp_path / "d", tensors(**{"layers.0.mlp.weight": changed}), 3, index=index)
    (entry,) = diff(one, other).entries
    assert (entry.name, entry.index, entry.a, entry.b) == (f"{WHOLE}:layers.0.mlp.weight", (2, 1), 1.0, 2.0)


def test_a_lost_tensor_is_named(tmp_path: Path) -> None:
    held = tensors()
    one = sharded(tmp_path / "a", held, 2)
    del held["embed.weight"]
    (entry,) = diff(one, sharded(tmp_path / "b", held, 2)).entries
    assert (entry.name, entry.reason) == (f"{WHOLE}:embed.weight", "only in a")


def test_other_files_beside_it_keep_their_names(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "a", tensors(), 2)
    save_file({"m": np.ones(2)}, folder / "optimizer.safetensors")
    (folder / "config.json").write_text('{"hidden": 3}')
    found = open_checkpoint(folder)
    assert {"optimizer.safetensors:m", "config.json:hidden", f"{WHOLE}:step"} <= set(found.entries)
    assert diff(folder, folder).coverage.uncompared == 0


@pytest.mark.torch
def test_shards_of_two_savings_are_not_mixed(tmp_path: Path) -> None:
    """Files that a longer list of shards has left behind are nobody's."""
    one = sharded(tmp_path / "a", tensors(), 2)
    save_file({"step": np.array(1)}, one / "model-00003-of-00003.safetensors")
    found = open_checkpoint(one)
    assert found.read(f"{WHOLE}:step").item() == 7
    assert found.read("model-00003-of-00003.safetensors:step").item() == 1


def test_shards_by_rank_are_boxes_of_one_tensor(tmp_path: Path) -> None:
    """As torch's distributed writer of safetensors leaves them."""
    value = np.arange(24, dtype="f4").reshape(6, 4)

    def ranked(folder: Path, rows: list[tuple[int, int]], held: Any) -> Path:
        folder.mkdir()
        for rank, (start, stop) in enumerate(rows):
            said = {"w": {"saved_offsets": [start, 0]}, "b": {"saved_offsets": [0]}}
            save_file(
                {"w": held[start:stop], "b": np.ones(2)},
                folder / f"shard-{rank:05d}-model-00001-of-00001.safetensors",
                {"DCP_SHARDING_INFO": json.dumps(said), "DCP_VERSION": "1.0"},
            )
        return folder

    two = ranked(tmp_path / "a", [(0, 3), (3, 6)], value)
    three = ranked(tmp_path / "b", [(0, 1), (1, 4), (4, 6)], value)
    assert open_checkpoint(two).meta(f"{WHOLE}:w") == ("float32", (6, 4))
    found = diff(two, three)
    assert not names(found)
    assert found.coverage.copies.compared == 2  # of b, which every rank has
    assert diff(two, whole(tmp_path / "c", {"w": value, "b": np.ones(2)})).equal
    changed = value.copy()
    changed[5, 3] = -1
    (entry,) = diff(two, ranked(tmp_path / "d", [(0, 5), (5, 6)], changed)).entries
    assert entry.index == (5, 3)
    (two / "shard-00001-model-00001-of-00001.safetensors").unlink()
    assert not diff(three, two).equal


@pytest.mark.parametrize(
    ("kind", "shape", "data", "dtype"),
    [
        ("BF16", [2], b"\x80\x3f\x00\x40", "bfloat16"),
        pytest.param("F8_E4M3", [2], b"\x38\x40", "float8_e4m3fn", marks=pytest.mark.torch),
        ("BOOL", [2], b"\0\1", "bool"),
        ("U16", [1], b"\1\0", "uint16"),
    ],
)  # fmt: skip
def test_types_that_numpy_lacks(tmp_path: Path, kind: str, shape: list[int], data: bytes, dtype: str) -> None:
    header = {"w": {"dtype": kind, "shape": shape, "data_offsets": [0, len(data)]}}
    one = raw(tmp_path / "a" / WHOLE, header, data)
    assert open_checkpoint(one).meta("w") == (dtype, tuple(shape))
    two = raw(tmp_path / "b" / WHOLE, header, data[:-1] + bytes([data[-1] ^ 1]))
    assert [entry.differing for entry in diff(one, two).entries] == [1]


@pytest.mark.parametrize("cut", [-1, -100, 40, 8, 4, 0])
def test_a_cut_file_is_not_whole(tmp_path: Path, cut: int) -> None:
    folder = whole(tmp_path / "a", tensors())
    verify(folder, hashes=True)
    path = folder / WHOLE
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=WHOLE):
        verify(folder)
    with pytest.raises(CheckpointError, match=WHOLE):
        diff(folder, whole(tmp_path / "b", tensors()))


@pytest.mark.parametrize("name", [WHOLE, "pytorch_model.bin", "arrays.npz", "w.h5", "model.pt"])
def test_what_git_leaves_in_the_place_of_a_file_is_not_it(tmp_path: Path, name: str) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 292\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(CheckpointError, match=f"{name}: is a pointer of Git LFS") as error:
        verify(tmp_path)
    assert error.value.advice == "git lfs pull"


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("gone", [1, 2, 3])
def test_a_missing_shard_is_named(tmp_path: Path, index: bool, gone: int) -> None:
    folder = sharded(tmp_path / "a", tensors(), 3, index=index)
    assert verify(folder, hashes=True).files == 3 + index
    name = f"model-0000{gone}-of-00003.safetensors"
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: not found"):
        verify(folder)
    other = sharded(tmp_path / "b", tensors(), 3, index=index)
    with pytest.raises(CheckpointError, match=f"{name}: not found"):
        diff(folder, other)
    (folder / "step.json").write_text("1")  # beside something that can be read, it is not compared
    (other / "step.json").write_text("1")
    found = diff(folder, other)
    assert not found.equal
    assert found.coverage.uncompared > 0
    assert found.compared == 1


def test_an_index_that_names_what_is_not_there_is_torn(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "a", tensors(), 2)
    index = folder / f"{WHOLE}.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["head.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"holds no head\.weight"):
        verify(folder)


def test_an_index_that_points_outside_is_no_index(tmp_path: Path) -> None:
    whole(tmp_path, {"secret": np.ones(1)})
    folder = whole(tmp_path / "a", {"w": np.ones(1)})
    content = {"weight_map": {"secret": "../model.safetensors"}}
    (folder / "other.safetensors.index.json").write_text(json.dumps(content))
    assert not any("secret" in name for name in open_checkpoint(folder).entries if "index" not in name)


def test_a_header_that_lies_is_refused(tmp_path: Path) -> None:
    header = {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}
    folder = raw(tmp_path / "a" / WHOLE, header, b"\0" * 4)
    with pytest.raises(CheckpointError, match="expected safetensors"):
        verify(folder)


def test_a_file_without_a_tensor_was_looked_at(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = whole(tmp_path / name, {})
        (folder / "step.json").write_text("1")
    found = diff(tmp_path / "a", tmp_path / "b")
    assert (found.equal, found.coverage.uncompared) == (True, 0)


@pytest.mark.parametrize(
    ("content", "torn"),
    [
        ("", True),
        ('{"weight_map": {', True),
        ('{"a": 1}\n{"a": 2}\n', False),
        ('{"a": 1}\n{"a": 2}\n{"a"', True),
    ],
)
def test_json_that_was_cut_is_not_whole(tmp_path: Path, content: str, torn: bool) -> None:
    folder = sharded(tmp_path / "a", tensors(), 2)
    index = folder / f"{WHOLE}.index.json"
    index.write_text(content)
    if torn:
        with pytest.raises(CheckpointError, match=index.name):
            verify(folder)
    else:
        verify(folder)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_that_was_cut_is_not_whole(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "loader.pkl"
    content = pickle.dumps({"order": list(range(40)), "seed": 3}, protocol)
    path.write_bytes(content)
    assert verify(tmp_path).files == 1
    for cut in (-1, len(content) // 2, 0):
        path.write_bytes(content[:cut])
        with pytest.raises(CheckpointError, match=path.name):
            verify(tmp_path)


@pytest.mark.parametrize("name", ["last.pth.tar", "random_states_0.pkl", "state.json.gz"])
def test_an_archive_of_no_bytes_is_not_whole(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "COMMIT").touch()
    with pytest.raises(CheckpointError, match=f"{name}: has 0 bytes"):
        verify(tmp_path)
