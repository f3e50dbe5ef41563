"""What the native trainer really saves: whole, of any format and layout the same state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.checkpoints import Checkpoint, diff, fingerprint, open_checkpoint, verify
from harness.checkpoints.gaps import find_gaps
from tests.native.conftest import Run, Trains, launcher, train

__all__ = ["launcher", "train"]  # fixtures

pytestmark = pytest.mark.torch

K, N = 6, 12
QUIET: dict[str, Any] = {"attention_dropout": 0.0, "hidden_dropout": 0.0}
LAYOUT: dict[str, Any] = {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}


def at(run: Run, iteration: int) -> Path:
    return run.checkpoints / f"iter_{iteration:07d}"


def resaved(train: Trains, run: Run, world: int, **extra: Any) -> Path:
    """The state of K loaded into another layout or format, and saved again without a step."""
    return at(train(world, load=train.rewound(run, K), **QUIET, **extra, harness_exit_iters=K), K)


def test_state_is_whole_and_the_same_in_both_formats(train: Trains) -> None:
    one, two = (train(1, ckpt_format=kind, bf16=True) for kind in ("torch", "torch_dist"))
    for run, kind in ((one, "torch"), (two, "torch_dist")):
        found: Checkpoint = open_checkpoint(at(run, N))
        assert (found.format, found.native) == (kind, True)
        assert find_gaps(found) == ()
        assert verify(at(run, N), hashes=True, manifest=True).hashed
        components = set(fingerprint(at(run, N)))
        assert {
            "weights",
            "embedding",
            "optimizer",
            "lr-schedule",
            "rng",
            "data-order",
            "iteration",
        } <= components
    assert fingerprint(at(one, N)) == fingerprint(at(two, N))
    assert diff(at(one, N), at(two, N)).equal
    assert fingerprint(at(one, K)) != fingerprint(at(one, N))


def test_state_moved_to_another_layout_has_the_same_fingerprints(train: Trains) -> None:
    run = train(1, **QUIET)
    moved = resaved(train, run, 4, **LAYOUT)
    before, after = fingerprint(at(run, K)), fingerprint(moved)
    assert {name for name in before if before[name] != after[name]} <= {"rng"}
    found = diff(at(run, K), moved)
    assert found.equal, found.entries
    assert found.layouts_differ
    assert found.not_comparable


def test_two_ranks_files_are_one_state(train: Trains) -> None:
    run = train(4, ckpt_format="torch", **QUIET, **LAYOUT)
    found = open_checkpoint(at(run, N))
    assert (found.layout["tp"], found.layout["pp"]) == (2, 2)
    dtype, shape = found.meta("model.embedding.word_embeddings.weight")
    assert (dtype, shape) == ("float32", (61, 32)) or shape[0] >= 61
    assert find_gaps(found) == ()


@pytest.mark.parametrize("seed", [2])
def test_other_seed_differs_in_what_it_should(train: Trains, seed: int) -> None:
    one, two = train(1), train(1, seed=seed)
    found = diff(at(one, N), at(two, N)).by_component()
    assert {"weights", "optimizer", "rng"} <= set(found)
    assert not {"iteration", "lr-schedule"} & set(found)
