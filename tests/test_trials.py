"""What trials on altered checkpoints say, and what they leave unsaid."""

from __future__ import annotations

from dataclasses import replace

from harness.diagnosis.trials import Trial, Trials
from tests.made_curves import differs, state

TAKEN = Trial("weights", ("w",), taken_up=True, seen="`loss` of iteration 21 is another")
NOT = {
    "rng": Trial("rng", ("rng.torch",), taken_up=False, dead=("rng.torch",)),
    "data-order": Trial("data-order", ("sampler.seed",), taken_up=False, dead=("sampler.seed",)),
}
MOVING = frozenset({"w", "rng.torch", "optimizer.m", "optimizer.lr"})


def trials(*of_each: Trial, **more: object) -> Trials:
    return replace(Trials(20, 21, of_each=of_each, moving=MOVING), **more)  # type: ignore[arg-type]


def test_what_is_not_taken_up_is_what_was_lost_and_the_sentence_can_be_tried_again() -> None:
    found = trials(TAKEN, NOT["rng"], again="harness sensitivity case --entry")
    named = found.named(["weights", "rng", "data-order"], loss_is_right=False)
    assert named is not None
    assert named[0] == "rng"
    assert "`rng.torch` altered in the checkpoint of 20, and resumed to 21: nothing comes out" in named[1][0]
    assert "`harness sensitivity case --entry rng.torch`" in named[1][0]


def test_what_training_never_changes_cannot_be_lost() -> None:
    assert trials(TAKEN, NOT["data-order"]).named(["data-order"], loss_is_right=False) is None


def test_what_does_not_decide_the_series_that_is_off_is_not_named() -> None:
    assert trials(TAKEN, NOT["rng"]).named(["optimizer", "lr-schedule"], loss_is_right=True) is None


def test_of_two_that_are_not_taken_up_the_one_that_differs_after_a_step() -> None:
    moving = MOVING | {"sampler.seed"}
    found = trials(*NOT.values(), moving=moving)
    assert found.named(["rng", "data-order"], loss_is_right=False) is None
    assert [one.component for one in found.candidates(loss_is_right=False)] == ["data-order", "rng"]
    found = replace(found, one_step=state(differs("rng.torch", "rng")))
    named = found.named(["rng", "data-order"], loss_is_right=False)
    assert named is not None
    assert named[0] == "rng"


def test_a_moment_that_is_saved_again_as_if_it_had_not_been_altered() -> None:
    names = ("optimizer.m", "optimizer.lr", "optimizer.v")
    part = Trial("optimizer", names, taken_up=True, seen="…", dead=("optimizer.m", "optimizer.lr"))
    found = trials(part)
    assert found.lost_in_part() == {"optimizer": ("optimizer.m",)}
    named = found.named(["optimizer"], loss_is_right=True)
    assert named is not None
    assert named[0] == "optimizer"


def test_nothing_of_the_checkpoint_is_trained_from() -> None:
    whole = Trial("checkpoint", ("w", "m"), taken_up=False)
    named = trials(whole=whole).named(["weights"], loss_is_right=True)
    assert named is not None
    assert named[0] == "checkpoint"
    assert "does not train from what it was given" in named[1][0]
    assert not trials(whole=replace(whole, taken_up=None)).unread


def test_a_tensor_that_one_step_cannot_have_brought_so_far() -> None:
    one_step = state(differs("w", "weights"), differs("b", "weights"))
    found = trials(TAKEN, one_step=one_step, further={"w": 40.0, "b": 1.3})
    named = found.named(["weights", "rng"], loss_is_right=False)
    assert named is not None
    assert named[0] == "weights"
    assert "`w` is 40 times further off than it moves" in named[1][0]
    assert (
        trials(TAKEN, one_step=one_step, further={"w": 1.5}).named(["weights"], loss_is_right=False) is None
    )


def test_one_step_with_the_right_loss_leaves_the_moments_or_a_buffer() -> None:
    moments = state(differs("optimizer.m", "optimizer"), differs("w", "weights"))
    buffers = state(differs("bn.running_mean", "buffers"))
    both = state(differs("bn.running_mean", "buffers"), differs("w", "weights"))
    for one_step, expected in ((moments, "optimizer"), (buffers, "buffers"), (both, None)):
        named = trials(TAKEN, one_step=one_step).named([], loss_is_right=True)
        assert (named[0] if named else None) == expected
    assert trials(TAKEN, one_step=moments).named([], loss_is_right=False) is None


def test_a_place_that_is_handed_on_and_nobody_goes_on_from() -> None:
    place = Trial("data-order", ("position",), taken_up=True, seen="…", used=False)
    found = trials(TAKEN, place)
    named = found.named(["weights", "data-order", "rng"], loss_is_right=False)
    assert named is not None
    assert named[0] == "data-order"
    assert trials(TAKEN, replace(place, used=True)).named(["data-order"], loss_is_right=False) is None
