"""Stores of arrays (zarr, OCDBT) are compared by array by tensorstore; without it they are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.checkpoints import diff, fingerprint, open_checkpoint, stores, verify
from harness.errors import CheckpointError

KINDS = ("ocdbt", "ocdbt3", "zarr", "zarr3")
ADVICE = "pip install resume-harness[tensorstore]"


def made(folder: Path, kind: str, *, at: int = -1, key: int = 0, when: int = 1) -> Path:
    """What orbax leaves, as far as arrays go: two steps of it are the same but for what it says of time."""
    import tensorstore as ts

    weights = np.random.default_rng(1).random((300, 40)).astype("f4")
    if at >= 0:
        weights.reshape(-1)[at] += 1
    arrays: dict[str, Any] = {
        "params.a": weights, "opt.mu": np.zeros((4, 3), "f4"), "key": np.array([0, key], "u4"),
        "step": np.array(20, "i8"),
    }  # fmt: skip
    inner = folder / "default"
    inner.mkdir(parents=True)
    base = {"driver": "file", "path": f"{inner}/"}
    for name, array in arrays.items():
        store = {"driver": "ocdbt", "base": base} if kind.startswith("ocdbt") else base
        where = {**store, "path": f"{store.get('path', '')}{name}/"}
        driver = "zarr3" if kind.endswith("3") else "zarr"
        spec: dict[str, Any] = {"driver": driver, "kvstore": where}
        if driver == "zarr":
            spec["metadata"] = {"compressor": {"id": "zstd"}, "chunks": [min(n, 100) for n in array.shape]}
        opened = ts.open(spec, create=True, dtype=array.dtype, shape=array.shape).result()
        opened.write(array).result()
    (folder / "_CHECKPOINT_METADATA").write_text(json.dumps({"init_timestamp_nsecs": when, "metrics": {}}))
    (folder / "commit_success.txt").write_text(f"Checkpoint commit was successful to {folder}.tmp-{when}")
    (inner / "_METADATA").write_text(json.dumps({"tree_metadata": {"params": 1}}))
    return folder


@pytest.mark.tools
@pytest.mark.parametrize("kind", KINDS)
def test_equal_states_are_equal_and_a_changed_element_is_named(tmp_path: Path, kind: str) -> None:
    one = made(tmp_path / "a", kind)
    two = made(tmp_path / "b", kind, when=2)
    found = diff(one, two)
    assert not found.entries
    assert (found.equal, found.coverage.uncompared) == (True, 0)
    assert fingerprint(one) == fingerprint(two)
    (entry,) = diff(one, made(tmp_path / "c", kind, at=299 * 40 + 7)).entries
    assert entry.name.removeprefix("default").lstrip("/:") == "params.a"
    assert (entry.index, entry.differing, entry.component) == ((299, 7), 1, "weights")
    (entry,) = diff(one, made(tmp_path / "d", kind, key=5)).entries
    assert entry.component == "rng"


@pytest.mark.tools
@pytest.mark.parametrize("kind", KINDS)
def test_torn_stores_are_not_whole(tmp_path: Path, kind: str) -> None:
    folder = made(tmp_path / "a", kind)
    assert verify(folder).files > 5
    data = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size > 10_000)
    assert data
    for path in data:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(CheckpointError, match="default"):
            verify(folder)
        other = made(tmp_path / f"b{data.index(path)}", kind)
        found = diff(other, folder)
        assert not found.equal
        assert found.coverage.uncompared > 0
        path.write_bytes(content)
        verify(folder)


@pytest.mark.tools
def test_what_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    one, two = made(tmp_path / "a", "ocdbt"), made(tmp_path / "b", "ocdbt")
    assert diff(one, two).equal
    import shutil

    shutil.rmtree(two)
    made(two, "ocdbt", at=3)
    assert not diff(one, two).equal


@pytest.mark.tools
def test_an_unfinished_save_is_torn(tmp_path: Path) -> None:
    folder = made(tmp_path / "a", "ocdbt")
    inner = folder / "default"
    process = inner / "ocdbt.process_0"
    process.mkdir()
    (inner / "manifest.ocdbt").rename(process / "manifest.ocdbt")
    (inner / "d").rename(process / "d")
    with pytest.raises(CheckpointError, match="the save was not finished"):
        verify(folder)


@pytest.mark.parametrize("name", ["manifest.ocdbt", "w/.zarray", "w/zarr.json"])
def test_without_tensorstore_one_note_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(stores, "readable", lambda: False)
    for side in ("a", "b"):
        for place in ("one", "two"):
            file = tmp_path / side / place / name
            file.parent.mkdir(parents=True)
            file.write_text('{"node_type": "array"}')
            piece = file.parent / ("d" if name.startswith("manifest") else "c") / "0"
            piece.parent.mkdir()
            piece.write_bytes(side.encode())
        (tmp_path / side / "step.json").write_text("1")
    found = diff(tmp_path / "a", tmp_path / "b")
    assert (found.equal, found.compared, found.entries) == (False, 1, ())
    assert found.coverage.uncompared > 0
    (note,) = found.unread.values()
    assert ADVICE in note
    with pytest.raises(CheckpointError, match="2 stores of arrays") as error:
        verify(tmp_path / "a")
    assert error.value.advice == ADVICE
    assert open_checkpoint(tmp_path / "a").names()


@pytest.mark.tools
@pytest.mark.parametrize("kind", ["zarr", "zarr3"])
def test_an_array_of_more_than_anybody_could_read_is_refused(tmp_path: Path, kind: str) -> None:
    folder = made(tmp_path / "a", kind)
    file = folder / "default" / "params.a" / (".zarray" if kind == "zarr" else "zarr.json")
    content = json.loads(file.read_text())
    content["shape"] = [1 << 40, 40]
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="repeats what is stored"):
        verify(folder)
    assert not diff(folder, made(tmp_path / "b", kind)).equal
