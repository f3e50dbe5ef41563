"""What ``.metadata`` says beside where tensors are: plans, and classes that no table knows."""

from __future__ import annotations

import io
import pickle
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata
from torch.distributed.checkpoint.planner import SavePlan, WriteItem

from harness.checkpoints import diff, fingerprint, open_checkpoint, safe_reader, verify
from harness.checkpoints.fingerprints import fingerprint_of
from harness.errors import CheckpointError
from tests.checkpoints.made import dist

NEST = {"w": torch.arange(6.0).reshape(2, 3), "optimizer.state.w": torch.ones(3), "extra": [1, "a"]}


def rewritten(folder: Path, change: Callable[[Metadata], object]) -> Path:
    """With another ``.metadata``."""
    found = pickle.loads((folder / ".metadata").read_bytes())
    changed = change(found) or found
    (folder / ".metadata").write_bytes(pickle.dumps(changed))
    return folder


def plans(metadata: Metadata) -> None:
    """The plans of all ranks, as Megatron-core caches them."""
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
    from torch.distributed.checkpoint.planner import TensorWriteData, WriteItemType

    chunk = ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([2, 3]))
    data = TensorWriteData(chunk, TensorProperties(), torch.Size([2, 3]))
    item = WriteItem(MetadataIndex("w"), WriteItemType.SHARD, tensor_data=data)
    metadata.all_local_plans = [SavePlan([item], planner_data={"a": ("b",)})]  # type: ignore[attr-defined]


class _Strange:
    """Stands for a class of a module that is not here."""

    __module__ = "nobody.knows"

    def __init__(self, fqn: str = "") -> None:
        self.fqn = fqn


class _StrangeTable(dict[str, int]):
    __module__ = "nobody.knows"


class _StrangeList(list[int]):
    __module__ = "nobody.knows"


@pytest.fixture(autouse=True)
def _of_a_module_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("nobody.knows")
    for kind in (_Strange, _StrangeTable, _StrangeList):
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "nobody", types.ModuleType("nobody"))
    monkeypatch.setitem(sys.modules, "nobody.knows", module)


def strange(metadata: Metadata) -> None:
    """Objects of unknown classes, of every way to be pickled, in fields that nobody needs."""
    table, parts = _StrangeTable(a=1), _StrangeList([1, 2])
    table.more = _Strange("x")  # type: ignore[attr-defined]
    held = [table, parts, _Strange, {_Strange("a"): 1}, {_Strange("b")}, torch.ones(2), io.BytesIO(b"x")]
    metadata.planner_data = held
    metadata.of_a_newer_torch = {"a function": len, "held": held}  # type: ignore[attr-defined]
    metadata.all_local_plans = [_Strange("plan")]  # type: ignore[attr-defined]


@pytest.mark.parametrize("change", [plans, strange], ids=["plans", "unknown classes"])
def test_what_is_not_needed_is_no_hindrance_and_no_state(
    change: Callable[[Metadata], None], tmp_path: Path
) -> None:
    plain, other = dist(tmp_path / "a", NEST), rewritten(dist(tmp_path / "b", NEST), change)
    found = diff(plain, other)
    assert found.equal
    assert found.coverage.uncompared == 0
    assert fingerprint(plain) == fingerprint(other)
    assert verify(other).files == verify(plain).files
    assert torch.equal(open_checkpoint(other).read("w"), torch.as_tensor(NEST["w"]))


def test_a_plan_is_no_hindrance_to_loading(tmp_path: Path) -> None:
    folder = rewritten(dist(tmp_path / "a", {"w": torch.ones(2)}), plans)
    into = {"w": torch.zeros(2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(into, storage_reader=safe_reader(folder), no_dist=True)
    assert into["w"].tolist() == [1.0, 1.0]


class _Call:
    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.text,)


def test_a_call_in_a_field_that_is_not_needed_is_never_made(tmp_path: Path) -> None:
    def evil(metadata: Metadata) -> None:
        metadata.all_local_plans = [_Call(f"open({str(tmp_path / 'executed')!r}, 'w')")]  # type: ignore[attr-defined]

    folder = rewritten(dist(tmp_path / "a", NEST), evil)
    assert len(open_checkpoint(folder).entries) == 4
    fingerprint(folder)
    assert not (tmp_path / "executed").exists()


def as_strange_class(metadata: Metadata) -> None:
    metadata.state_dict_metadata["w"] = _Strange("w")  # type: ignore[assignment]


def as_strange_dtype(metadata: Metadata) -> None:
    metadata.state_dict_metadata["w"].properties.dtype = _Strange  # type: ignore[union-attr]


def as_strange_chunk(metadata: Metadata) -> None:
    metadata.state_dict_metadata["w"].chunks = [_Strange()]  # type: ignore[union-attr]


def as_strange_place(metadata: Metadata) -> None:
    data = metadata.storage_data
    data[next(index for index in data if index.fqn == "w")] = _Strange()


def as_strange_index(metadata: Metadata) -> None:
    data = metadata.storage_data
    data[_Strange("w")] = data.pop(next(index for index in data if index.fqn == "w"))


def as_nameless_index(metadata: Metadata) -> None:
    data = metadata.storage_data
    data[_Strange()] = data.pop(next(index for index in data if index.fqn == "w"))


@pytest.mark.parametrize(
    "change",
    [as_strange_class, as_strange_dtype, as_strange_chunk, as_strange_place, as_strange_index,
     as_nameless_index],
)  # fmt: skip
def test_state_of_an_unknown_class_is_seen_and_never_held(
    change: Callable[[Metadata], None], tmp_path: Path
) -> None:
    one, two = (rewritten(dist(tmp_path / name, NEST), change) for name in "ab")
    found = diff(one, two)
    assert found.coverage.entries.uncompared >= 1
    assert not found.equal
    assert "w" in open_checkpoint(one).names()
    assert "optimizer" in fingerprint(one)
    assert "weights" not in fingerprint(one)
    assert fingerprint_of(one).coverage.uncompared >= 1
    with pytest.raises(CheckpointError):
        open_checkpoint(one).read("w")
    with pytest.raises(CheckpointError, match=r"nobody\.knows|pickled object"):
        safe_reader(one).read_metadata()


def test_an_object_and_a_tensor_of_one_name_are_two_entries(tmp_path: Path) -> None:
    folder = dist(tmp_path / "a", {"a": {"b": 1}, "a.b": torch.ones(2)}, flat=False)
    assert open_checkpoint(folder).names() == ["a.b", "a.b'"]


def test_what_is_listed_and_not_stored_is_still_torn(tmp_path: Path) -> None:
    def more(metadata: Metadata) -> None:
        metadata.state_dict_metadata["lost"] = BytesStorageMetadata()

    folder = rewritten(dist(tmp_path / "a", NEST), more)
    with pytest.raises(CheckpointError, match="lost is not stored"):
        open_checkpoint(folder)
