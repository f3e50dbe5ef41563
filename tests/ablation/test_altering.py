"""Of a checkpoint, the entries that were asked for are altered, and nothing else is."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.ablation import alter, alterable
from harness.checkpoints import diff, open_checkpoint

pytestmark = pytest.mark.torch


_TYPES = (
    "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "int64",
    "int8", "uint8", "bool",
)  # fmt: skip


def _training() -> dict[str, Any]:
    """What a script keeps: every kind of value in one nest."""
    torch.manual_seed(1)
    random.seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    whole = torch.arange(12.0)
    bits = np.random.PCG64(3)
    legacy = np.random.RandomState(3)
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "views": {"columns": whole.view(3, 4)[:, ::2], "others": whole.view(3, 4)[:, 1::2]},
        "tied": {"one": model[0].weight, "two": model[0].weight},
        "types": {name: torch.tensor([0.0, 1.5, -2.0, 0.25]).to(getattr(torch, name)) for name in _TYPES},
        "permutation": torch.randperm(7),
        "order": [3, 0, 2, 1, 300, 4000],
        "rng": {"cpu": torch.get_rng_state(), "python": random.getstate(), "numpy": legacy.get_state(),
                "pcg": bits.state, "gpu": torch.tensor([7, *[0] * 7, 8, *[0] * 7], dtype=torch.uint8)},
        "epoch": 3, "step": 70_000, "far": 1 << 40, "huge": 1 << 100, "less": -1, "none": None, "best": 0.125,
        "zero": 0.0, "endless": float("inf"), "eps": 1e-8, "done": False, "name": "run-a", "note": "—",
        "empty": {}, "blob": b"\x00\x01\x02", "array": np.arange(5, dtype="<i4"),
        "floats": np.array([0.0, 1.0, -3.0]), "pair": (0.9, 0.999), "scalar": np.float64(2.5),
    }  # fmt: skip


def _saved(path: Path) -> None:
    torch.save(_training(), path)


def _legacy(path: Path) -> None:
    nest = _training()
    for name in [name for name in nest["types"] if name.startswith("float8")]:
        del nest["types"][name]  # torch cannot read what it writes of these
    torch.save(nest, path, _use_new_zipfile_serialization=False)


def _pickled(protocol: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        plain = {key: value for key, value in _training().items() if not _has_tensors(value)}
        path.write_bytes(pickle.dumps(plain, protocol=protocol))

    return write


def _has_tensors(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_tensors, value.values()))
    return isinstance(value, torch.Tensor)


_STATE = {
    "epoch": 3, "lr": 0.001, "rate": 1e-05, "zero": 0.0, "nothing": 0, "done": True, "name": 'a "b" ü',
    "none": None, "list": [1, 2, 2], "order": [2, 0, 1], "nest": {"deep": [{"x": -7}]},
    "rng": [3, list(random.Random(5).getstate()[1]), None],
}  # fmt: skip


def _json(path: Path) -> None:
    path.write_text(json.dumps(_STATE, ensure_ascii=False, indent=1), "utf-8")


def _rows(path: Path) -> None:
    path.write_text("".join(f"{json.dumps({'step': i, 'loss': i / 2})}\n" for i in range(3)), "utf-8")


def _tensors(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2, 3), "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.tensor(5)}, path)


def _lines(path: Path) -> None:
    path.write_text("epoch 3\nname: ü\n\nstep=12\n", "utf-8")


_FORMATS = {
    "new.pt": _saved, "old.pt": _legacy, "state.json": _json, "rows.json": _rows,
    "model.safetensors": _tensors, "state.txt": _lines, **{f"state{n}.pkl": _pickled(n) for n in range(6)},
}  # fmt: skip


@pytest.mark.parametrize("name", _FORMATS)
def test_each_entry_and_no_other(tmp_path: Path, name: str) -> None:
    """Whatever is said to be alterable, and only that, differs afterwards; the library reads it still.

    The entries are altered by the digits of their numbers: no two of them are altered in the same copies.
    """
    before, after = tmp_path / name, tmp_path / f"after-{name}"
    _FORMATS[name](before)
    found = alterable(before)
    assert {each.name for each in found} == set(open_checkpoint(before).entries)
    can = [each for each in found if not each.reason]
    cannot = {each.name for each in found if each.reason and not _holds_nothing(each.reason)}
    assert cannot == ({"array", "blob", "floats", "scalar"} if name == "state0.pkl" else set())
    for digit in range(len(can).bit_length()):
        after.write_bytes(before.read_bytes())
        some = [each for i, each in enumerate(can, 1) if i >> digit & 1]
        alter(after, [each.name for each in some])
        changed = {entry.name for entry in diff(before, after).entries}
        assert changed == {name for each in some for name in (each.name, *each.together)}
        assert _read(name, after) is not None
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def _holds_nothing(reason: str) -> bool:
    words = (
        "there is no value to alter",
        "an empty text",
        "random stream",
        "no letter and no",
    )
    return any(word in reason for word in words)


def _read(name: str, path: Path) -> Any:
    if name.endswith(".pt"):
        return torch.load(path, weights_only=False)
    if name.endswith(".pkl"):
        return pickle.loads(path.read_bytes())
    if name.endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path)
    return path.read_text("utf-8")
