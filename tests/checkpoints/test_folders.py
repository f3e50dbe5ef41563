"""Trackers, iterations, manifests: whether what a run left is whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from harness.checkpoints import iter_dir, iterations, latest, verify
from harness.errors import CheckpointError
from tests.checkpoints.made import dist, save, state

TRACKER = "latest_checkpointed_iteration.txt"


def with_manifest(folder: Path) -> Path:
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in folder.rglob("*")
        if path.is_file()
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps({"files": files, "layout": {"tp": 1}}))
    return folder


def test_iterations_are_those_that_have_a_folder(tmp_path: Path) -> None:
    for name in ("iter_0000100", "iter_0000050", "iter_7", "iter_x", "iter_00000500", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "iter_0000099").write_text("a file")
    assert iterations(tmp_path) == (50, 100, 500)
    assert iter_dir(tmp_path, 50).name == "iter_0000050"


def test_tracker_names_the_latest_and_none_is_none(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    (tmp_path / "iter_0000050").mkdir()
    (tmp_path / TRACKER).write_text(" 50\n")
    assert latest(tmp_path) == 50


@pytest.mark.parametrize(
    ("text", "said"), [("", "found 0 bytes"), ("fifty", "fifty"), ("60", "names iteration 60"), ("-1", "-1")]
)
def test_tracker_that_names_nothing_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "iter_0000050").mkdir()
    (tmp_path / TRACKER).write_text(text)
    with pytest.raises(CheckpointError, match=TRACKER) as error:
        latest(tmp_path)
    assert said in error.value.message


def test_manifest_finds_what_is_missing_cut_or_changed(tmp_path: Path) -> None:
    folder = with_manifest(save({"w": torch.ones(100)}, tmp_path / "it" / "model.pt").parent)
    found = verify(folder, hashes=True, manifest=True)
    assert (found.files, found.manifest, found.hashed) == (1, True, True)
    path = folder / "model.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=f"has {len(whole) - 1} bytes, expected {len(whole)}"):
        verify(folder)
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    verify(folder)
    with pytest.raises(CheckpointError, match="sha256"):
        verify(folder, hashes=True)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"model\.pt: not found"):
        verify(folder)


def test_missing_manifest_is_an_error_where_one_belongs(tmp_path: Path) -> None:
    folder = save({"w": 1}, tmp_path / "it" / "model.pt").parent
    assert not verify(folder).manifest
    with pytest.raises(CheckpointError, match=r"has no manifest\.json"):
        verify(folder, manifest=True)


@pytest.mark.parametrize("text", ["{}", "[1]", '{"files": [1]}'])
def test_manifest_of_somebody_else_is_none_and_no_excuse_where_one_belongs(tmp_path: Path, text: str) -> None:
    folder = save({"w": 1}, tmp_path / "it" / "model.pt").parent
    (folder / "manifest.json").write_text(text)
    assert not verify(folder).manifest
    with pytest.raises(CheckpointError, match=r"manifest\.json: lists no files"):
        verify(folder, manifest=True)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd"])
def test_manifest_that_points_outside_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "manifest.json").write_text(
        json.dumps({"files": {name: {"bytes": 1, "sha256": ""}}, "layout": {}})
    )
    with pytest.raises(CheckpointError, match="outside the checkpoint"):
        verify(tmp_path)


def test_without_a_manifest_the_files_themselves_are_checked(tmp_path: Path) -> None:
    path = save({"w": torch.ones(1000)}, tmp_path / "it" / "model.pt")
    verify(path, hashes=True)
    data = bytearray(path.read_bytes())
    at = data.index(torch.ones(8).numpy().tobytes())
    data[at] ^= 1
    path.write_bytes(data)
    verify(path)  # the directory of the archive is as it was
    with pytest.raises(CheckpointError, match=r"checksum|Bad CRC"):
        verify(path, hashes=True)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="has 0 bytes"):
        verify(path)


def test_distributed_checkpoint_with_a_cut_file_is_not_whole(tmp_path: Path) -> None:
    folder = dist(tmp_path / "d", state())
    assert verify(folder).files == 2
    path = folder / "__0_0.distcp"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="__0_0"):
        verify(folder)


@pytest.mark.parametrize("what", ["nowhere", "empty"])
def test_nothing_is_not_whole(tmp_path: Path, what: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=what):
        verify(tmp_path / what)
