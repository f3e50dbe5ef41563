"""Two values that differ in anything are never read as the same."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.checkpoints import diff


def attributed(value: int) -> torch.Tensor:
    tensor = torch.ones(1, requires_grad=True)
    tensor.mark = value  # type: ignore[attr-defined]
    return tensor


PAIRS: dict[str, Callable[[int], Any]] = {
    "texts of another shape": lambda v: np.array(["a", "b"]).reshape((2,) if v == 1 else (1, 2)),
    "texts of another length": lambda v: np.array(["a", "b"]).view("U1" if v == 1 else "U2"),
    "records of other types": lambda v: np.zeros(3, [("a", "f4" if v == 1 else "i4")]),
    "objects of another shape": lambda v: np.array([1, 2, 3, "d"], object).reshape(4 if v == 1 else (2, 2)),
    "a tensor as a key": lambda v: {torch.tensor([float(v)]): 5},
    "a tensor within a key": lambda v: {("w", torch.tensor([float(v)])): 5},
    "a tensor with a gradient and an attribute": attributed,
    "a whole number of many digits": lambda v: {10**5000 + v: 1},
    "many of them": lambda v: [10**5000 + v] * 2000,
    "a table of them": lambda v: dict.fromkeys(range(2000), 10**5000 + v),
}


@pytest.mark.parametrize("what", PAIRS)
def test_no_difference_is_lost_in_reading(tmp_path: Path, what: str) -> None:
    paths = [tmp_path / f"{side}.pt" for side in "abc"]
    for path, value in zip(paths, (1, 2, 1), strict=True):
        torch.save({"x": PAIRS[what](value)}, path)
    assert diff(paths[0], paths[2]).equal
    found = diff(paths[0], paths[1])
    assert found.entries
    assert found.coverage.uncompared == 0


@pytest.mark.parametrize("kind", [("M8[s]", "M8[D]"), ("a:f4,b:i4", "b:i4,a:f4"), ("S4", "V4")])
@pytest.mark.parametrize("packed", [False, True])
def test_arrays_of_other_types_with_the_same_bytes(
    tmp_path: Path, kind: tuple[str, str], packed: bool
) -> None:
    types = [[tuple(f.split(":")) for f in one.split(",")] if ":" in one else one for one in kind]
    paths = [tmp_path / f"{side}.np{'z' if packed else 'y'}" for side in "abc"]
    for path, name in zip(paths, (0, 1, 0), strict=True):
        array = np.zeros(48, "u1").view(np.dtype(types[name]))
        np.savez(path, x=array) if packed else np.save(path, array)
    assert diff(paths[0], paths[2]).equal
    found = diff(paths[0], paths[1])
    assert found.entries
    assert found.coverage.uncompared == 0


def test_a_pickle_of_a_number_that_nobody_could_write_down(tmp_path: Path) -> None:
    for side in "ab":
        (tmp_path / f"{side}.pkl").write_bytes(pickle.dumps({frozenset({10**5000}): 1}))
    assert diff(tmp_path / "a.pkl", tmp_path / "b.pkl").equal


def test_types_of_less_than_a_byte_with_the_same_bytes(tmp_path: Path) -> None:
    for side, kind in (("a", "F6_E2M3"), ("b", "F6_E3M2"), ("c", "F6_E2M3")):
        head = json.dumps({"w": {"dtype": kind, "shape": [4], "data_offsets": [0, 3]}}).encode()
        content = len(head).to_bytes(8, "little") + head + b"abc"
        (tmp_path / f"{side}.safetensors").write_bytes(content)
    paths = [tmp_path / f"{side}.safetensors" for side in "abc"]
    assert diff(paths[0], paths[2]).equal
    assert [entry.name for entry in diff(paths[0], paths[1]).entries] == ["w (type)"]
