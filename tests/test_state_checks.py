"""Checks of saved states: what did not look does not pass, and is not said to be the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from harness.checkpoints import diff
from harness.checkpoints.coverage import Count, Coverage
from harness.checkpoints.rules import Rule
from harness.protocol.state_checks import saved_state, state_by_distance
from tests.checkpoints.made import dist
from tests.made_curves import differs, state

MISSED = Coverage(Count(1), Count(3, 0, 2), Count(), ())


def test_a_component_of_which_nothing_was_compared_is_not_said_to_be_the_same() -> None:
    found = saved_state(state(names={"weights": 3}), ["weights", "rng", "unknown"], 10)
    assert [(check.name, check.passed) for check in found] == [("state: weights", True)]
    lost = saved_state(state(differs("rng.x", "rng"), names={"weights": 3}), ["weights", "rng"], 10)
    assert {check.name: check.passed for check in lost} == {"state: weights": True, "state: rng": False}


def test_what_was_not_compared_is_red_in_every_way_of_comparing() -> None:
    missed = replace(state(names={"weights": 1}), coverage=MISSED)
    (check,) = [c for c in saved_state(missed, ["weights"], 10) if not c.passed]
    assert check.name == "state: all of it is compared"
    found = state_by_distance(missed, state(), {}, {}, 10)
    assert [(check.name, check.passed) for check in found] == [("state: all of it is compared", False)]
    nothing = state_by_distance(replace(state(), compared=0), state(), {}, {}, 10)
    assert [check.passed for check in nothing] == [False]


def streams(folder: Path, pipeline: int, tensor: int, *, moved: bool = False) -> Path:
    """Random streams as Megatron-LM has them in ``torch_dist``: an object of each (pipeline, tensor) rank."""
    content: dict[str, object] = {"decoder.weight": torch.ones(4)}
    for at in range(pipeline * tensor):
        name = f"rng_state/shard_{at // tensor}.{at % tensor}_{pipeline}.{tensor}"
        content[name] = [{"cuda_rng_state": torch.full((8,), at + moved, dtype=torch.uint8)}]
    return dist(folder, content, flat=False)


def test_a_stream_of_another_layout_has_no_counterpart_and_one_of_the_same_is_compared(
    tmp_path: Path,
) -> None:
    one, two = streams(tmp_path / "one", 1, 1), streams(tmp_path / "two", 1, 2)
    found = diff(one, two)
    assert found.layouts_differ
    assert not found.entries
    (rule,) = found.coverage.rules
    assert rule.matched == 3
    assert "no counterpart" in rule.reason
    again = diff(two, streams(tmp_path / "again", 1, 2, moved=True))
    assert [entry.component for entry in again.entries] == ["rng", "rng"]
    assert not again.layouts_differ


def test_a_rule_does_not_leave_out_what_it_excepts() -> None:
    rule = Rule("trainer", "args.*", "why", but=("args.*samples*",))
    assert rule.matches("args.lr", [])
    assert not rule.matches("args.consumed_train_samples", [])
