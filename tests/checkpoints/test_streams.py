"""The host's random stream after a resume: further on by whole seeds of loaders, and in no other way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from harness.checkpoints import StateDiff, diff
from harness.checkpoints.conditions import MOST_SEEDS, seeds_drawn
from harness.checkpoints.fingerprints import fingerprint_of
from harness.checkpoints.rules import Rule
from harness.checkpoints.streams import SIZE, words_between
from harness.trainers.megatron.rules import RULES
from tests.checkpoints.made import dist, save

Change = Callable[[bytes], bytes]


def stream(words: int, seed: int = 7) -> bytes:
    """The state of torch's generator after so many words."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(words):
        torch.empty((), dtype=torch.int32).random_(generator=generator)
    return bytes(generator.get_state().numpy())


def further(state: bytes, words: int) -> bytes:
    """The same stream, so many words further on, as torch itself draws them."""
    generator = torch.Generator()
    generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    for _ in range(words):
        torch.empty((), dtype=torch.int32).random_(generator=generator)
    return bytes(generator.get_state().numpy())


def flipped(state: bytes, at: int) -> bytes:
    """One bit of one byte is another."""
    return state[:at] + bytes([state[at] ^ 1]) + state[at + 1 :]


@pytest.mark.parametrize("begun", [0, 1, 311, 622, 623, 624, 625, 1247, 5000])
def test_the_words_between_two_states_are_counted_across_blocks(begun: int) -> None:
    before = stream(begun)
    for words in (1, 2, 6, 192, 193, 623, 624, 625, 1248, 3000):
        assert words_between(before, further(before, words)) == words
        assert words_between(further(before, words), before) is None
    assert words_between(before, before) == 0


def test_an_iterator_of_torchs_loader_draws_one_seed() -> None:
    torch.manual_seed(3)
    before = bytes(torch.get_rng_state().numpy())
    for iterators in range(1, 4):
        iter(DataLoader([1, 2, 3]))  # type: ignore[arg-type]
        after = bytes(torch.get_rng_state().numpy())
        assert words_between(before, after) == 2 * iterators
        assert seeds_drawn(before, after) == ""


WRONG: dict[str, tuple[Change, str]] = {
    "an odd number of words": (lambda s: further(s, 5), "5 words further on, and no whole number"),
    "too many seeds": (lambda s: further(s, 2 * MOST_SEEDS + 2), f"expected at most {MOST_SEEDS}"),
    "far too many": (lambda s: further(s, 200_000), "not the other stream"),
    "another seed": (lambda _: stream(1000, seed=8), "not the other stream"),
    "begun anew": (lambda _: stream(0), "1000 words behind"),
    "behind by a seed": (lambda _: stream(998), "2 words behind"),
    "a bit of the block": (lambda s: flipped(further(s, 6), 24 + 8 * 100), "not the other stream"),
    "a high bit of a word": (lambda s: flipped(further(s, 6), 24 + 8 * 100 + 5), "not the other stream"),
    "its seed's number": (lambda s: flipped(further(s, 6), 0), "not the other stream"),
    "how many are left": (lambda s: flipped(further(s, 6), 8), "not the other stream"),
    "whether it is seeded": (lambda s: flipped(further(s, 6), 12), "not the other stream"),
    "the next one's place": (lambda s: flipped(further(s, 6), 16), "not the other stream"),
    "a cached normal number": (lambda s: flipped(further(s, 6), 5016), "not the other stream"),
    "whether one is cached": (lambda s: flipped(further(s, 6), 5040), "not the other stream"),
    "the cached float": (lambda s: flipped(further(s, 6), 5048), "not the other stream"),
    "the last byte": (lambda s: flipped(further(s, 6), SIZE - 1), "not the other stream"),
    "cut": (lambda s: further(s, 6)[:-8], "not the other stream"),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_stream_that_differs_otherwise_is_not_allowed_to(how: str) -> None:
    change, said = WRONG[how]
    before = stream(1000)
    assert seeds_drawn(before, further(before, 6)) == ""
    assert said in seeds_drawn(before, change(before))


# -- in checkpoints as Megatron-LM has them ----------------------------------------------------


def rng(state: bytes) -> dict[str, Any]:
    """One rank's streams."""
    return {
        "random_rng_state": (3, tuple(range(625)), None),
        "np_rng_state": ("MT19937", torch.arange(624).numpy().astype("u4"), 624, 0, 0.0),
        "torch_rng_state": torch.frombuffer(bytearray(state), dtype=torch.uint8),
        "cuda_rng_state": torch.zeros(16, dtype=torch.uint8),
        "rng_tracker_states": {"model-parallel-rng": torch.zeros(16, dtype=torch.uint8)},
    }


def as_torch(folder: Path, *states: bytes) -> Path:
    """Two tensor ranks' files, each with half of the data-parallel ranks' streams."""
    half = max(1, len(states) // 2)
    for rank, mine in enumerate((states[:half], states[half:])):
        nest = {"model": {"w": torch.ones(2)}, "rng_state": [rng(state) for state in mine]}
        save(nest, folder / f"mp_rank_{rank:02d}" / "model_optim_rng.pt")
    return folder


def as_torch_dist(folder: Path, *states: bytes) -> Path:
    """An object a tensor rank, pickled into bytes."""
    nest: dict[str, Any] = {"w": torch.ones(2)}
    for rank, state in enumerate(states):
        nest[f"rng_state/shard_0.{rank}_1.{len(states)}"] = [[rng(state)]]
    return dist(folder, nest, flat=False)


FORMATS = {"torch": as_torch, "torch_dist": as_torch_dist}


def compared(tmp_path: Path, form: str, change: Change, *, rank: int = 2) -> StateDiff:
    """Four ranks' streams, all of them further on, and one as ``change`` makes it."""
    before = [stream(1000 + 37 * i, seed=i) for i in range(4)]
    before[rank] = stream(1000)
    after = [further(state, 6) for state in before]
    after[rank] = change(before[rank])
    make = FORMATS[form]
    return diff(make(tmp_path / "a", *before), make(tmp_path / "b", *after), rules=RULES)


@pytest.mark.parametrize("form", FORMATS)
def test_all_ranks_further_on_by_seeds_are_left_out_by_a_rule_with_its_reason(
    form: str, tmp_path: Path
) -> None:
    found = compared(tmp_path, form, lambda state: further(state, 6))
    assert found.equal, [entry.sentence() for entry in found.entries]
    (rule,) = found.coverage.rules
    assert (rule.where, rule.matched) == ("trainer", 4)
    assert "draws one" in rule.reason
    assert (found.coverage.entries.excluded, found.coverage.uncompared) == (4, 0)
    assert found.as_allowed == {"rng": 4}


@pytest.mark.parametrize("form", FORMATS)
def test_an_equal_stream_is_compared_and_no_rule_is_needed(form: str, tmp_path: Path) -> None:
    found = compared(tmp_path, form, lambda state: state)
    assert found.equal
    assert found.as_allowed == {"rng": 3}
    assert found.coverage.entries.excluded == 3


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("how", WRONG)
def test_one_ranks_stream_that_is_wrong_is_lost_with_a_sentence(how: str, form: str, tmp_path: Path) -> None:
    change, said = WRONG[how]
    found = compared(tmp_path, form, change)
    assert {entry.component for entry in found.entries} == {"rng"}
    (entry,) = found.entries
    assert "torch_rng_state" in entry.name
    assert how == "cut" or said in entry.sentence()
    assert found.as_allowed == {"rng": 3}


@pytest.mark.parametrize("key", ["cuda_rng_state", "np_rng_state", "random_rng_state"])
def test_no_other_stream_may_move(key: str, tmp_path: Path) -> None:
    """The device's is in the same layout here: it is compared bit for bit all the same."""
    sides = []
    for name, state in (("a", stream(100)), ("b", stream(106))):
        held = rng(stream(100)) | {key: torch.frombuffer(bytearray(state), dtype=torch.uint8)}
        nest = {"model": {"w": torch.ones(2)}, "rng_state": [held]}
        save(nest, tmp_path / name / "mp_rank_00" / "model_optim_rng.pt")
        sides.append(tmp_path / name)
    found = diff(*sides, rules=RULES)
    assert [entry.component for entry in found.entries] == ["rng"]
    assert not found.as_allowed


def test_a_rule_with_a_condition_leaves_nothing_out_of_a_digest(tmp_path: Path) -> None:
    """What was recorded of one run is compared with another one of the same kind, bit for bit."""
    one, two = as_torch(tmp_path / "a", stream(8), stream(8)), as_torch(tmp_path / "b", stream(8), stream(10))
    bare, ruled = fingerprint_of(one), fingerprint_of(one, RULES)
    assert ruled.digests == bare.digests
    assert fingerprint_of(two, RULES).digests["rng"] != ruled.digests["rng"]
    assert fingerprint_of(two, RULES).digests["weights"] == ruled.digests["weights"]
    assert fingerprint_of(two, RULES, only=["rng"]).digests == {"rng": fingerprint_of(two).digests["rng"]}


def test_a_rule_without_a_condition_comes_first(tmp_path: Path) -> None:
    """Whoever says in the case that a stream is no state has said so."""
    one, two = as_torch(tmp_path / "a", stream(8), stream(8)), as_torch(tmp_path / "b", stream(8), stream(3))
    rules = (*RULES, Rule("case", "*torch_rng_state", "ours draws at random"))
    assert diff(one, two, rules=rules).equal
    assert not diff(one, two, rules=RULES).equal
