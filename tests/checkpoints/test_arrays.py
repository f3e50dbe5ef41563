"""Arrays in ``.npy``, ``.npz`` and other archives are compared by name; when they were packed is no state."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.checkpoints import diff, open_checkpoint, verify
from harness.errors import CheckpointError

Arrays = dict[str, Any]
PACKED: list[Callable[..., None]] = [np.savez, np.savez_compressed]


def arrays() -> Arrays:
    record = np.zeros(3, [("a", "<f4"), ("b", "<i8")])
    return {
        "order": np.arange(12).reshape(3, 4),
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "big_endian": np.arange(5, dtype=">f4"),
        "seed": np.array(3),
        "words": np.asfortranarray([["ab", "c"], ["d", "e"]]),
        "day": np.array(["2020-01-01"], "M8[D]"),
        "objects": np.array([{"a": 1}, None], dtype=object),
        "empty": np.zeros((0, 3)),
        "record": record,
        "large": np.random.default_rng(0).random((600, 1000)),
    }


def changed(name: str, at: tuple[int, ...], value: object) -> Arrays:
    held = {key: array.copy(order="K") for key, array in arrays().items()}
    held[name][at] = value
    return held


def saved(folder: Path, held: Arrays, save: Callable[..., None] = np.savez) -> Path:
    folder.mkdir()
    save(folder / "state.npz", **held)
    (folder / "step.json").write_text("1")
    return folder


@pytest.mark.torch
@pytest.mark.parametrize("save", PACKED)
def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path, save: Callable[..., None]) -> None:
    found = open_checkpoint(saved(tmp_path / "a", arrays(), save))
    for name in ("order", "fortran", "big_endian", "seed", "empty", "large"):
        expected = arrays()[name]
        assert found.meta(f"state.npz:{name}")[1] == expected.shape
        read = found.read(f"state.npz:{name}").numpy()
        assert np.array_equal(read, expected), name
    verify(tmp_path / "a", hashes=True)


@pytest.mark.parametrize("save", PACKED)
@pytest.mark.parametrize(
    ("name", "at", "value", "index"),
    [
        ("order", (2, 3), -1, (2, 3)), ("fortran", (1, 2), -1, (1, 2)), ("big_endian", (3,), 9, (3,)),
        ("seed", (), 4, None), ("words", (1, 0), "q", (1, 0, 0)), ("day", (0,), "2020-01-02", (0, 0)),
        ("objects", (0,), {"a": 2}, None), ("record", (1,), (0, 1), (1, 4)),
        ("large", (599, 999), 7, (599, 999)),
    ],
)  # fmt: skip
def test_a_changed_element_is_named(
    tmp_path: Path,
    save: Callable[..., None],
    name: str,
    at: tuple[int, ...],
    value: object,
    index: tuple[int, ...] | None,
) -> None:
    one = saved(tmp_path / "a", arrays(), save)
    assert diff(one, saved(tmp_path / "b", arrays(), save)).equal
    (entry,) = diff(one, saved(tmp_path / "c", changed(name, at, value), save)).entries
    assert entry.name.startswith(f"state.npz:{name}")
    assert entry.index == index


def test_packing_is_no_difference(tmp_path: Path) -> None:
    one, two = saved(tmp_path / "a", arrays()), saved(tmp_path / "b", arrays(), np.savez_compressed)
    found = diff(one, two)
    assert (found.equal, found.coverage.uncompared) == (True, 0)


def test_a_lost_array_is_named(tmp_path: Path) -> None:
    held = arrays()
    one = saved(tmp_path / "a", held)
    del held["seed"]
    (entry,) = diff(one, saved(tmp_path / "b", held)).entries
    assert (entry.name, entry.reason) == ("state.npz:seed", "only in a")


def test_one_array_in_a_file(tmp_path: Path) -> None:
    for name, value in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "order.npy", np.asfortranarray(np.arange(6).reshape(2, 3) + value))
        (tmp_path / name / "step.json").write_text("1")
    assert diff(tmp_path / "a", tmp_path / "b").equal
    (entry,) = diff(tmp_path / "a", tmp_path / "c").entries
    assert entry.name.startswith("order.npy:")
    path = tmp_path / "a" / "order.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"order\.npy"):
        verify(tmp_path / "a")


@pytest.mark.parametrize("save", PACKED)
def test_torn_archives_are_not_whole(tmp_path: Path, save: Callable[..., None]) -> None:
    folder = saved(tmp_path / "a", arrays(), save)
    path = folder / "state.npz"
    content = path.read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(CheckpointError, match=r"state\.npz"):
            verify(folder)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(CheckpointError, match=r"state\.npz"):
        verify(folder, hashes=True)


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.npy", bytes(300 << 20))
    with pytest.raises(CheckpointError, match="repeats what is stored"):
        open_checkpoint(tmp_path / "bomb.npz")


def test_objects_are_not_executed(tmp_path: Path) -> None:
    class Call:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (io.open, (str(tmp_path / "executed"), "w"))  # type: ignore[return-value]

    np.savez(tmp_path / "x.npz", o=np.array([Call()], dtype=object))
    try:
        open_checkpoint(tmp_path / "x.npz")
    except CheckpointError as error:
        assert "open" in str(error)  # noqa: PT017
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_a_script_packs_itself(tmp_path: Path, packing: int) -> None:
    """As stable-baselines3 does: JSON without an ending, texts, bytes, arrays."""
    for name, steps in (("a", 5), ("b", 5), ("c", 6)):
        (tmp_path / name).mkdir()
        with zipfile.ZipFile(tmp_path / name / "model.zip", "w", packing) as archive:
            moment = (2020, 1, 1, 0, 0, 2 * (ord(name) - 97))
            for member, content in (
                ("data", json.dumps({"num_timesteps": steps})),
                ("version", "2.3.0\n"),
                ("raw", bytes(range(256))),
            ):
                archive.writestr(zipfile.ZipInfo(member, moment), content, packing)
    found = diff(tmp_path / "a", tmp_path / "b")
    assert (found.equal, found.coverage.uncompared) == (True, 0)
    assert [e.name for e in diff(tmp_path / "a", tmp_path / "c").entries] == ["data:num_timesteps"]


# -- HDF5 ------------------------------------------------------------------------------------------


def test_hdf5_without_its_library_is_bytes_and_a_cut_one_is_torn(tmp_path: Path) -> None:
    addresses = b"".join(number.to_bytes(8, "little") for number in (0, 0, 96, 0, 0))
    head = b"\x89HDF\r\n\x1a\n" + bytes([2, 8, 8, 0]) + addresses
    (tmp_path / "w.h5").write_bytes(head + bytes(96 - len(head)))
    from harness.checkpoints import hdf5

    hdf5.require_whole(tmp_path / "w.h5")
    (tmp_path / "w.h5").write_bytes(head)
    with pytest.raises(CheckpointError, match=r"w\.h5: has 52 bytes, expected 96"):
        hdf5.require_whole(tmp_path / "w.h5")
    with pytest.raises(CheckpointError, match=r"w\.h5"):
        verify(tmp_path)


@pytest.mark.tools
def test_keras_by_dataset(tmp_path: Path) -> None:
    import h5py

    def model(folder: Path, *, moment: float = 1.0, saved: str = "now", shape: str = "x") -> Path:
        folder.mkdir()
        weights = io.BytesIO()
        with h5py.File(weights, "w") as file:
            file.create_dataset("layers/dense/vars/0", data=np.full((500, 700), 1.5), compression="gzip")
            file["optimizer/vars/1"] = np.float32(moment)
            file["layers/dense"].attrs["name"] = shape
        with zipfile.ZipFile(folder / "model.keras", "w") as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": "3", "date_saved": saved}))
            archive.writestr("config.json", json.dumps({"layers": 1}))
            archive.writestr("model.weights.h5", weights.getvalue())
        (folder / "alone.weights.h5").write_bytes(weights.getvalue())
        return folder

    one = model(tmp_path / "a")
    found = diff(one, model(tmp_path / "b", saved="later"))
    assert (found.equal, found.coverage.uncompared, found.coverage.entries.excluded) == (True, 0, 1)
    names = [entry.name for entry in diff(one, model(tmp_path / "c", moment=2.0)).entries]
    assert names == ["alone.weights.h5:optimizer/vars/1", "model.keras:model.weights.h5:optimizer/vars/1"]
    assert len(diff(one, model(tmp_path / "d", shape="y")).entries) == 2
    verify(one, hashes=True)
    path = one / "alone.weights.h5"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"alone\.weights\.h5"):
        verify(one)


RECORD, TURNED = np.dtype([("i", "i4"), ("f", "f4")]), np.dtype([("f", "f4"), ("i", "i4")])


@pytest.mark.parametrize("ending", ["npz", "pkl"])
@pytest.mark.parametrize(
    ("one", "two"),
    [
        (np.array([["ab", "cd"]]), np.array(["ab", "cd"])),
        (np.array(["ab", "cd"]), np.array(["abcd"])),
        (np.array([b"abcd"]), np.frombuffer(b"abcd", "V4")),
        (np.array([["ab", None]], object), np.array(["ab", None], object)),
        (np.zeros(2, RECORD), np.zeros(2, TURNED)),
        (np.array([60], "M8[s]"), np.array([60], "M8[m]")),
        (np.array([60], "M8[s]"), np.array([60], "m8[s]")),
    ],
    ids=["shape", "width", "text", "objects", "record", "unit", "span"],
)
def test_the_same_bytes_are_other_values_of_another_type(
    tmp_path: Path, ending: str, one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]
) -> None:
    paths = [tmp_path / name / f"state.{ending}" for name in ("a", "b", "c")]
    for path, array in zip(paths, (one, two, one), strict=True):
        path.parent.mkdir()
        if ending == "npz":
            np.savez(path, x=array)
        else:
            path.write_bytes(pickle.dumps({"x": array}))
    assert not diff(paths[0], paths[1]).equal
    assert diff(paths[0], paths[2]).equal
