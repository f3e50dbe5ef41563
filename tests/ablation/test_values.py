"""What a value becomes: another one by a sizeable amount, valid, and as long as it was."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.ablation import alter, alterable
from harness.ablation import values as altering
from harness.commands.cli import main

_SIGN, _ALL = 0x80, range(256)


def _altered(bits: Any, dtype: str, *, alone: bool = False) -> Any:
    made = bits.copy()
    assert altering.alter(dtype, made, alone=alone) == ""
    return made


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_floats(dtype: str) -> None:
    values = np.array([0.0, -0.0, 1.0, -3.5, 0.999, 1e-7, 6e4, np.inf, -np.inf, np.nan, 5e-8], dtype)
    size = values.itemsize
    made = _altered(values.view(f"<u{size}"), dtype).view(dtype)
    assert np.isfinite(made).all()
    assert (made != 0).all()
    assert (np.signbit(made) == np.signbit(values))[:9].all()
    with np.errstate(all="ignore"):
        apart = np.abs(made - values) / np.abs(values)
    assert (apart[2:7] >= 0.25).all()
    assert 0.5 <= made[4] < 1


@pytest.mark.torch
@pytest.mark.parametrize(
    "name",
    ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"],
)
def test_every_bit_pattern_of_small_floats(name: str) -> None:
    """Whatever it was, it is finite and another number; a sixth more or less, where it was one."""
    import torch

    size = 2 if name == "bfloat16" else 1
    bits = np.arange(1 << 8 * size, dtype=f"<u{size}")
    made = _altered(bits, name)

    def floats(held: Any) -> Any:
        return torch.from_numpy(held.view("u1").copy()).view(getattr(torch, name)).to(torch.float64).numpy()

    before, after = floats(bits), floats(made)
    assert np.isfinite(after).all()
    assert (after != 0).all()
    finite = np.isfinite(before)
    assert (before[finite] != after[finite]).all()
    normal = finite & (np.abs(before) > 2.0**-6)
    if name != "float8_e8m0fnu":
        assert (np.signbit(before) == np.signbit(after))[normal].all()
        assert (np.abs(after - before)[normal] >= 0.15 * np.abs(before)[normal]).all()


def test_an_epsilon_is_seen() -> None:
    made = _altered(np.array([1e-8]).view("<u8"), "float64", alone=True).view("<f8")
    assert 1e-5 < made[0] < 1e-3
    many = _altered(np.array([1e-8, 1e-8]).view("<u8"), "float64", alone=True).view("<f8")
    assert (many < 2e-8).all()


def test_whole_numbers() -> None:
    assert _altered(np.array([7], "u8"), "int64").tolist() == [6]
    assert _altered(np.array([255], "u1"), "uint8").tolist() == [254]
    assert _altered(np.array([10, 10], "u8"), "int64").tolist() == [11, 11]
    assert _altered(np.array([0, 1, 1], "u1"), "bool").tolist() == [1, 0, 0]
    order = np.random.default_rng(1).permutation(9).astype("u8")
    made = _altered(order, "int64")
    assert sorted(made) == sorted(order)
    assert (made != order).sum() == 8
    assert sorted(_altered(np.array([4, 4, 4, 4, 9, 9, 9, 9], "u4"), "int32")) == [4] * 4 + [9] * 4


def test_random_streams_are_valid_still(tmp_path: Path) -> None:
    """Python and numpy take what became of their states, and draw other numbers."""
    source = np.random.RandomState(4)
    bits = {name: getattr(np.random, name)(4) for name in ("PCG64", "Philox", "SFC64", "MT19937")}
    nest = {"python": random.Random(4).getstate(), "legacy": source.get_state(),
            **{name: each.state for name, each in bits.items()}}  # fmt: skip
    (tmp_path / "rng.pkl").write_bytes(pickle.dumps(nest))
    words = {"python.1", "legacy.1", "PCG64.state.state", "MT19937.state.key", "SFC64.state.state",
             "Philox.state.key"}  # fmt: skip
    assert words <= {each.name for each in alterable(tmp_path / "rng.pkl") if not each.reason}
    alter(tmp_path / "rng.pkl", words)
    found = pickle.loads((tmp_path / "rng.pkl").read_bytes())
    python = random.Random(4)
    python.setstate(found["python"])
    assert python.random() != random.Random(4).random()
    other = np.random.RandomState(1)
    other.set_state(found["legacy"])
    assert other.rand() != np.random.RandomState(4).rand()
    for name, each in bits.items():
        again = getattr(np.random, name)(1)
        again.state = found[name]
        assert again.random_raw() != each.random_raw()


@pytest.mark.torch
def test_torch_takes_its_streams(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(3)
    torch.save({"rng": torch.get_rng_state()}, tmp_path / "a.pt")
    expected = torch.rand(3)
    alter(tmp_path / "a.pt", ["rng"])
    torch.set_rng_state(torch.load(tmp_path / "a.pt")["rng"])
    assert not torch.equal(torch.rand(3), expected)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy, in which what was named is another; the list; and one sentence for what cannot be done."""
    source, target = tmp_path / "state.json", tmp_path / "new" / "state.json"
    source.write_text(json.dumps({"lr": 0.9, "optimizer": {"a": 1, "b": None}, "name": "x1"}))
    before = source.read_bytes()
    assert (
        main(["checkpoint", "alter", str(source), str(target), "--entry", "lr", "--component", "optimizer"])
        == 0
    )
    assert "altered 2 of 4 entries: lr, optimizer.a" in capsys.readouterr().out
    assert source.read_bytes() == before
    assert json.loads(target.read_text()) == {"lr": 0.6, "optimizer": {"a": 0, "b": None}, "name": "x1"}
    assert main(["checkpoint", "alter", str(source), "--list"]) == 0
    out = capsys.readouterr().out
    assert "3 of 4 entries can be altered" in out
    assert "it is None: there is no value to alter" in out
    for words, said in (
        ([str(target), "--entry", "lr"], "is there already"),
        ([str(tmp_path / "c"), "--entry", "nothing"], "holds no nothing that can be altered"),
        ([str(tmp_path / "c"), "--entry", "optimizer.b"], "optimizer.b cannot be altered: it is None"),
        ([str(tmp_path / "c"), "--component", "rng"], "holds nothing of rng to alter, only of"),
        ([str(tmp_path / "c")], "no entry was named"),
        ([], "DST is missing"),
    ):
        assert main(["checkpoint", "alter", str(source), *words]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_a_table_of_very_many_numbers_is_listed_at_once(tmp_path: Path) -> None:
    """Each knows where it lies, and is no int of Python's own: a range would be walked through for it."""
    import json

    numbers = {str(i): i for i in range(3000)}
    (tmp_path / "state.json").write_text(json.dumps({"vocabulary": numbers, "step": 3, "w": 0.5}))
    names = {entry.name for entry in alterable(tmp_path / "state.json")}
    assert {"vocabulary", "step", "w"} <= names
