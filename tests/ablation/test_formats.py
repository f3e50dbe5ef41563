"""Formats of several files, links, manifests: what is altered, and what is said of what cannot be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.ablation import Alterable, alter, alterable
from harness.checkpoints import diff, verify
from harness.checkpoints.rules import Rule
from harness.errors import CheckpointError
from tests.checkpoints import made

pytestmark = [pytest.mark.torch, pytest.mark.tools]


def _one_by_one(before: Path, copy: Callable[[], Path]) -> tuple[Alterable, ...]:
    """Alter the entries, by the digits of their numbers; each is seen to change, with no other."""
    found = alterable(before)
    can = [each for each in found if not each.reason]
    for digit in range(len(can).bit_length()):
        after = copy()
        some = [each for i, each in enumerate(can, 1) if i >> digit & 1]
        alter(after, [each.name for each in some])
        verify(after, hashes=True)
        changed = {entry.name for entry in diff(before, after).entries}
        assert changed == {name for each in some for name in (each.name, *each.together)}
    return found


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Makes copies of a checkpoint."""
    import shutil

    def copy(before: Path) -> Path:
        after = tmp_path / "copies" / f"of-{before.name}"
        if after.exists():
            shutil.rmtree(after) if after.is_dir() else after.unlink()
        after.parent.mkdir(exist_ok=True)
        shutil.copytree(before, after) if before.is_dir() else shutil.copy2(before, after)
        return after

    return copy


@pytest.mark.parametrize("kind", ["dist", "objects", "ranks"])
def test_folders(tmp_path: Path, copy_of: Callable[[Path], Path], kind: str) -> None:
    state: dict[str, Any] = made.state()
    if kind == "dist":
        made.dist(tmp_path / "saved", state)
    elif kind == "objects":
        more = {"args": {"lr": 0.1, "seed": 3, "name": "run"}, "steps": [1, 2], "model": dict(state)}
        made.dist(tmp_path / "saved", more, flat=False)
    else:
        made.ranks(tmp_path / "saved", state, tp=2)
    found = _one_by_one(tmp_path / "saved", lambda: copy_of(tmp_path / "saved"))
    assert [each for each in found if each.reason] == []
    assert len(found) >= len(state)


def test_arrays(tmp_path: Path, copy_of: Callable[[Path], Path]) -> None:
    held: dict[str, Any] = {
        "w": np.ones((3, 2)),
        "i": np.arange(4),
        "big": np.ones(3, ">f4"),
        "f": np.asfortranarray(np.eye(3)),
    }
    np.savez(tmp_path / "a.npz", **held)
    np.save(tmp_path / "b.npy", held["w"])
    np.savez_compressed(tmp_path / "c.npz", **held)
    cannot: dict[str, list[str]] = {}
    for name in ("a.npz", "b.npy", "c.npz"):
        found = _one_by_one(tmp_path / name, lambda name=name: copy_of(tmp_path / name))  # type: ignore[misc]
        cannot[name] = sorted(each.name for each in found if each.reason)
    assert cannot == {"a.npz": [], "b.npy": [], "c.npz": []}
    np.save(tmp_path / "d.npy", held["big"])
    _one_by_one(tmp_path / "d.npy", lambda: copy_of(tmp_path / "d.npy"))


def test_hdf5(tmp_path: Path, copy_of: Callable[[Path], Path]) -> None:
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["layer/kernel"] = np.ones((4, 3), "f4")
        file["steps"] = 7
        file.create_dataset("packed", data=np.ones(100), compression="gzip")
        file.attrs["name"] = "run"
    found = _one_by_one(tmp_path / "a.h5", lambda: copy_of(tmp_path / "a.h5"))
    assert {each.name for each in found if each.reason} == {"@name"}


@pytest.mark.parametrize("kind", ["zarr", "zarr3", "ocdbt"])
def test_stores(tmp_path: Path, copy_of: Callable[[Path], Path], kind: str) -> None:
    import tensorstore as ts

    folder = f"{tmp_path / 'saved'}/"
    arrays = {"w": np.ones((4, 3), "f4"), "n": np.array(7, "i8"), "order": np.arange(9, dtype="i4")}
    for name, array in arrays.items():
        place: dict[str, Any] = {"driver": "file", "path": f"{folder}{name}/"}
        if kind == "ocdbt":
            place = {"driver": "ocdbt", "base": {"driver": "file", "path": folder}, "path": f"{name}/"}
        spec = {"driver": "zarr3" if kind == "zarr3" else "zarr", "kvstore": place}
        ts.open(spec, create=True, dtype=array.dtype, shape=array.shape).result().write(array).result()
    found = _one_by_one(tmp_path / "saved", lambda: copy_of(tmp_path / "saved"))
    assert len(found) == len(arrays)
    assert [each for each in found if each.reason] == []


def test_hdf5_in_an_archive(tmp_path: Path, copy_of: Callable[[Path], Path]) -> None:
    """As Keras saves: a table of JSON and a file of HDF5 in a zip file, nothing compressed."""
    import zipfile

    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["layer/kernel"] = np.ones((4, 3), "f4")
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("config.json", '{"units": 4, "bias": true, "name": "dense"}')
        archive.write(tmp_path / "a.h5", "model.weights.h5")
    found = _one_by_one(tmp_path / "a.keras", lambda: copy_of(tmp_path / "a.keras"))
    assert {each.name: each.reason for each in found if each.reason} == {
        "config.json:bias": "another value would be longer or shorter, and the archive torn"
    }
    assert len(found) == 4


def test_links(tmp_path: Path) -> None:
    """A link is followed; of another name of the same file nothing is altered."""
    own, gathered, kept = tmp_path / "own", tmp_path / "gathered", tmp_path / "kept.pt"
    own.mkdir()
    gathered.mkdir()
    torch.save({"a": torch.ones(3), "b": 1}, own / "last.pt")
    os.link(own / "last.pt", kept)
    (gathered / "last.pt").symlink_to(own / "last.pt")
    before = kept.read_bytes()
    (own / "last.pt").chmod(0o640)
    alter(gathered, ["a"])
    assert kept.read_bytes() == before
    assert (gathered / "last.pt").is_symlink()
    assert [entry.name for entry in diff(kept, own / "last.pt").entries] == ["a"]
    assert (own / "last.pt").stat().st_mode & 0o777 == 0o640


def test_two_names_in_one_checkpoint(tmp_path: Path) -> None:
    """A file and a link to it are altered together, and each says so of the other."""
    torch.save({"a": torch.ones(3)}, tmp_path / "step-3.pt")
    (tmp_path / "last.pt").symlink_to("step-3.pt")
    found = {each.name: each.together for each in alterable(tmp_path)}
    assert found == {"last.pt:a": ("step-3.pt:a",), "step-3.pt:a": ("last.pt:a",)}
    alter(tmp_path, ["last.pt:a", "step-3.pt:a"])
    assert torch.load(tmp_path / "last.pt")["a"].tolist() == [1.5] * 3


def test_shared_values(tmp_path: Path) -> None:
    """A tuple that two groups share, and a text that is the name of something else too."""
    betas, word = (0.9, 0.999), "mode"
    nest = {"groups": [{"betas": betas}, {"betas": betas}], word: 1, "other": word}
    torch.save(nest, tmp_path / "a.pt")
    found = {each.name: each for each in alterable(tmp_path / "a.pt")}
    assert found["groups.0.betas"].together == ("groups.1.betas",)
    assert "names something else too" in found["other"].reason
    with pytest.raises(CheckpointError, match="other cannot be altered"):
        alter(tmp_path / "a.pt", ["other"])


def test_a_view_and_the_whole(tmp_path: Path) -> None:
    """Altered together, no byte is altered twice; a view by itself leaves the rest as it was."""
    flat = torch.arange(1.0, 7.0)
    torch.save({"flat": flat, "part": flat[2:4], "rows": flat.view(2, 3).T}, tmp_path / "a.pt")
    assert {each.name: set(each.together) for each in alterable(tmp_path / "a.pt")} == {
        "flat": {"part", "rows"}, "part": {"flat", "rows"}, "rows": {"flat", "part"}
    }  # fmt: skip
    alter(tmp_path / "a.pt", ["part"])
    assert torch.load(tmp_path / "a.pt")["flat"].tolist() == [1, 2, 2, 6, 5, 6]
    alter(tmp_path / "a.pt", ["flat", "part", "rows"])
    assert torch.load(tmp_path / "a.pt")["flat"].tolist() == [1.5, 3, 3, 4, 7, 4]


def test_rules_and_broken_files(tmp_path: Path) -> None:
    """What rules take out is not listed; what cannot be read is, and says why."""
    torch.save({"a": 1, "time": 2.5}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"PK\x03\x04 torn")
    found = {each.name: each.reason for each in alterable(tmp_path, [Rule("case", "time", "a clock")])}
    assert found.keys() == {"a.pt:a", "b.pt"}
    assert not found["a.pt:a"]
    assert "cut or damaged" in found["b.pt"]


def test_names_that_are_not_there(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="holds no b, c, d"):
        alter(tmp_path / "a.pt", ["d", "c", "b", "a", "e"])
    with pytest.raises(CheckpointError, match="not found"):
        alter(tmp_path / "none", ["a"])


def test_a_native_checkpoint(tmp_path: Path, copy_of: Callable[[Path], Path]) -> None:
    """The sizes and hashes in the manifest are those of the files that are there."""
    import hashlib
    import json

    folder = made.ranks(tmp_path / "iter_0000050", made.state(), tp=1)
    file = next(folder.rglob("*.pt"))
    about = {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    layout = {"tp": 1, "pp": 1, "dp": 1}
    files = {file.relative_to(folder).as_posix(): about}
    (folder / "manifest.json").write_text(json.dumps({"iteration": 50, "layout": layout, "files": files}))
    found = _one_by_one(folder, lambda: copy_of(folder))
    assert [each for each in found if each.reason] == []
