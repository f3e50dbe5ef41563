"""Two states, name by name and bit by bit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.checkpoints import diff
from harness.checkpoints.compare import StateDiff, TensorDiff
from harness.checkpoints.entries import blocks
from harness.checkpoints.numbers import Tally
from tests.checkpoints.made import WEIGHT, dist, ranks, save, state


def of(tmp_path: Path, a: Any, b: Any) -> StateDiff:
    return diff(save(a, tmp_path / "a.pt"), save(b, tmp_path / "b.pt"))


def only(found: StateDiff) -> TensorDiff:
    (entry,) = found.entries
    return entry


def test_one_element_is_found_with_its_index_and_size(tmp_path: Path) -> None:
    a = torch.arange(12.0).reshape(3, 4)
    b = a.clone()
    b[1, 2] += 0.5
    entry = only(of(tmp_path, {"model.w": a}, {"model.w": b}))
    assert (entry.name, entry.component, entry.reason) == ("model.w", "weights", "values")
    assert (entry.elements, entry.differing, entry.index, entry.rows) == (12, 1, (1, 2), (1, 1))
    assert (entry.a, entry.b, entry.max_abs) == (6.0, 6.5, 0.5)
    assert entry.max_rel == pytest.approx(0.5 / 6)
    assert "1 of 12 elements differ, at most by 0.5; first at [1, 2]: 6.0 against 6.5" in entry.sentence()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_one_bit_of_a_float_is_a_difference(tmp_path: Path, dtype: torch.dtype) -> None:
    a = torch.ones(5, dtype=dtype)
    b = a.clone()
    b.view(torch.uint8)[0] ^= 1
    assert only(of(tmp_path, {"w": a}, {"w": b})).differing == 1


def test_zeros_of_either_sign_differ_and_nan_of_the_same_bits_does_not(tmp_path: Path) -> None:
    assert of(tmp_path, {"w": torch.tensor([math.nan])}, {"w": torch.tensor([math.nan])}).equal
    entry = only(of(tmp_path, {"w": torch.tensor([0.0])}, {"w": torch.tensor([-0.0])}))
    assert (entry.differing, entry.max_abs) == (1, 0.0)
    entry = only(of(tmp_path, {"w": torch.tensor([1.0])}, {"w": torch.tensor([math.nan])}))
    assert (entry.b, entry.max_abs) == ("nan", None)


@pytest.mark.parametrize(
    ("a", "b", "reason", "detail"),
    [
        ({"w": torch.ones(2)}, {"w": torch.ones(3)}, "shape", "[2] against [3]"),
        ({"w": torch.ones(2)}, {"w": torch.ones(2).double()}, "dtype", "float32 against float64"),
        ({"w": 1}, {"w": 1.0}, "dtype", "Python int against Python float"),
        ({"w": 1, "x": 1}, {"w": 1}, "only in a", "Python int"),
        ({"w": 1}, {"w": 1, "x": torch.ones(2)}, "only in b", "float32 [2]"),
        ({"w": None}, {"w": 0}, "dtype", "None against Python int"),
    ],
)
def test_difference_in_kind_is_said(tmp_path: Path, a: Any, b: Any, reason: str, detail: str) -> None:
    entry = only(of(tmp_path, a, b))
    assert (entry.reason, entry.detail) == (reason, detail)


def test_text_that_differs_is_shown_where_it_does(tmp_path: Path) -> None:
    entry = only(of(tmp_path, {"t": "a" * 50 + "left"}, {"t": "a" * 50 + "right"}))
    assert (entry.index, str(entry.a)[-4:], str(entry.b)[-5:]) == ((50,), "left", "right")


@pytest.mark.parametrize(
    "name", ["args", "config", "hyper_parameters", "metadata", "version", "saved_at", "duration", "user_path"]
)
def test_no_name_waives_a_value(tmp_path: Path, name: str) -> None:
    found = of(tmp_path, {"w": 1, name: {"consumed": 1}}, {"w": 1, name: {"consumed": 2}})
    assert [entry.name for entry in found.entries] == [f"{name}.consumed"]


def test_nothing_in_common_is_not_equal(tmp_path: Path) -> None:
    found = of(tmp_path, {"a": 1}, {"b": 1})
    assert (found.equal, found.compared) == (False, 0)


def test_components_are_grouped_and_json_holds_every_number(tmp_path: Path) -> None:
    a, b = state(), state()
    b["rng.default.0_0_0"] = b["rng.default.0_0_0"].flip(0)
    b["scheduler.step"] = torch.tensor(7)
    b[f"optimizer.exp_avg.{WEIGHT}"] = torch.full((6, 4), math.inf)
    found = diff(ranks(tmp_path / "a", a), ranks(tmp_path / "b", b))
    assert set(found.by_component()) == {"rng", "lr-schedule", "optimizer"}
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert plain["equal"] is False
    assert len(plain["entries"]) == 3


def test_state_is_compared_across_formats_and_layouts(tmp_path: Path) -> None:
    a, b = state(), state()
    b[f"model.{WEIGHT}"][5, 3] += 1
    found = diff(ranks(tmp_path / "a", a, tp=2), dist(tmp_path / "b", b))
    entry = only(found)
    assert (entry.index, entry.differing) == ((5, 3), 1)


def test_replica_that_differs_from_its_original_is_found(tmp_path: Path) -> None:
    tensors = state()
    whole = ranks(tmp_path / "a", tensors, tp=2)
    broken = ranks(tmp_path / "b", tensors, tp=2)
    path = broken / "mp_rank_01" / "model_optim_rng.pt"
    content = torch.load(path, weights_only=True)
    content["tensors"]["scheduler.step"] += 1
    save(content, path)
    entry = only(diff(whole, broken))
    assert (entry.name, entry.detail) == ("scheduler.step", "the copy in mp_rank_01")


def test_shard_that_is_missing_is_incomplete_and_not_equal(tmp_path: Path) -> None:
    tensors = state()
    whole, torn = ranks(tmp_path / "a", tensors), ranks(tmp_path / "b", tensors, tp=2)
    path = torn / "mp_rank_01" / "model_optim_rng.pt"
    content = torch.load(path, weights_only=True)
    del content["tensors"][f"model.{WEIGHT}"]
    save(content, path)
    entry = only(diff(whole, torn))
    assert (entry.reason, entry.detail) == ("incomplete in b", "12 of 24 elements are in no file")


def test_tied_copy_that_has_come_apart_is_found_in_the_side_where_it_has(tmp_path: Path) -> None:
    def tied(folder: str, apart: float) -> Path:
        tensors = state()
        source = tensors["model.embedding.word_embeddings.weight"]
        tensors["model.output_layer.weight"] = source + apart
        alias = {"model.output_layer.weight": "model.embedding.word_embeddings.weight"}
        return ranks(tmp_path / folder, tensors, aliases=alias)

    whole = tied("a", 0.0)
    assert diff(whole, tied("b", 0.0)).equal
    reasons = {entry.reason for entry in diff(whole, tied("c", 1.0)).entries}
    assert "tied copies differ in b" in reasons
    assert {entry.component for entry in diff(whole, tied("d", 1.0)).entries} == {"embedding"}


def test_layout_without_the_tied_copy_is_equal_to_one_with_it(tmp_path: Path) -> None:
    tensors = state()
    with_copy = {**tensors, "model.output_layer.weight": tensors["model.embedding.word_embeddings.weight"]}
    assert diff(ranks(tmp_path / "a", tensors), ranks(tmp_path / "b", with_copy)).equal


def test_streams_of_other_layouts_are_not_compared_and_said_to_be(tmp_path: Path) -> None:
    tensors = state()
    moved = {**tensors, "rng.default.0_1_0": torch.zeros(16, dtype=torch.uint8)}
    found = diff(ranks(tmp_path / "a", tensors), ranks(tmp_path / "b", moved), layouts_differ=True)
    assert found.equal
    assert set(found.not_comparable) == {"rng.default.0_0_0", "rng.default.0_1_0"}
    assert not diff(tmp_path / "a", tmp_path / "b", layouts_differ=False).equal


# -- in pieces ---------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 7), max_size=4), st.sampled_from([1, 2, 4, 8]), st.integers(8, 200))
def test_blocks_cover_every_element_once_and_in_order(shape: list[int], item: int, limit: int) -> None:
    whole = np.arange(math.prod(shape)).reshape(shape or (1,))
    parts = [
        whole[block.lead][block.start : block.stop].ravel() for block in blocks(tuple(shape), item, limit)
    ]
    assert [*np.concatenate(parts)] == [*whole.ravel()] if parts else whole.size == 0
    widest = max((part.size * item for part in parts), default=0)
    assert widest <= max(limit, item)


def test_elements_that_are_equal_give_no_size_to_those_that_are_infinitely_apart() -> None:
    a, b = np.ones(4, "f4"), np.array([1, np.inf, 1, 1], "f4")
    tally = Tally()
    tally.add("float32", 0, a.view("u4"), b.view("u4"))
    assert (tally.differing, tally.max_abs, tally.max_rel) == (1, None, None)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 39), st.floats(width=32)), max_size=8), st.integers(1, 40))
def test_tally_in_pieces_says_what_numpy_says_of_the_whole(
    changes: list[tuple[int, float]], piece: int
) -> None:
    a = np.linspace(-1, 1, 40, dtype="f4")
    b = a.copy()
    for index, value in changes:
        b[index] = value
    bits_a, bits_b = a.view("u4"), b.view("u4")
    tally = Tally()
    for start in range(0, 40, piece):
        tally.add("float32", start, bits_a[start : start + piece], bits_b[start : start + piece])
    apart = np.flatnonzero(bits_a != bits_b)
    assert tally.differing == apart.size
    if apart.size:
        assert (tally.first, tally.last) == (apart[0], apart[-1])
        finite = np.isfinite(b)
        with np.errstate(all="ignore"):
            sizes = np.abs(b - a)[finite & (bits_a != bits_b)]
        sizes = sizes[np.isfinite(sizes)]
        assert tally.max_abs == (pytest.approx(float(sizes.max())) if sizes.size else None)
