"""What is left over where no state names what was lost, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.checks import Check, compare_curves
from harness.diagnosis import Candidate, Diagnosis, asks_for_replicas, diagnose, settled
from harness.diagnosis.curves import ordinal
from harness.night.headline import headline
from harness.protocol.relative import Relative
from harness.protocol.state_checks import never_the_same
from harness.report.sections import top
from harness.report.terminal import render
from harness.verdict import Verdict
from tests.made_curves import RIGHT, Curves, K, N, differs, lost, off, series, state


def names(found: Diagnosis) -> list[str]:
    return [one.component for one in found.candidates]


def without(curves: Curves, *metrics: str) -> Curves:
    return {name: f for name, f in curves.items() if name not in metrics}


def lost_of(curves: Curves, **more: Any) -> Diagnosis:
    """The diagnosis of a trainer that logs these curves only."""
    continuous, resumed = series({m: f for m, f in RIGHT.items() if m in curves}), series(curves, K + 1)
    checks = compare_curves(continuous, resumed, against="continuous", lane="exact", first=K + 1, last=N)
    found = diagnose(
        checks, continuous=continuous, resumed=resumed, k=K, n=N, deterministic=True,
        **{"state": None, "probe": None, **more},
    )  # fmt: skip
    assert found is not None
    return found


def test_a_first_loss_that_is_off_lists_what_decides_it_with_both_sides() -> None:
    end = state(differs("model.weight", "weights"), names={"weights": 4, "rng": 1, "data-order": 2})
    found = lost_of({"lm loss": off("lm loss", K + 1)["lm loss"]}, state=end)
    assert found.component == "unknown"
    assert names(found) == ["weights", "buffers"]
    assert "not rng: its only entry is equal at 100" in found.evidence
    assert "not data-order: all 2 of its entries are equal at 100" in found.evidence
    assert found.candidates[0].speaks_for == ("`lm loss`, the first that is off, depends on it",)


def test_without_any_state_nothing_is_said_of_one() -> None:
    found = lost_of({"lm loss": off("lm loss", K + 1)["lm loss"]})
    assert names(found) == ["weights", "data-order", "rng", "buffers"]
    told = [*found.evidence, *(said for one in found.candidates for said in (*one.speaks_for, *one.against))]
    assert not any(word in said for said in told for word in ("equal", "saved", "holds", "right"))


def test_an_update_that_is_off_may_be_the_schedules_where_no_rate_was_logged() -> None:
    later = off("lm loss", K + 2)
    found = lost_of({"lm loss": later["lm loss"], "batch-digest": RIGHT["batch-digest"]})
    assert found.component == "unknown"
    assert names(found) == ["optimizer", "lr-schedule"]
    assert "not weights: `lm loss` depends on it and is right up to iteration 51" in found.evidence
    for known in (
        lost_of(without(later, "params-norm")),
        lost_of(without(later, "params-norm", "learning-rate"), state=state(names={"lr-schedule": 1})),
    ):
        assert known.component == "optimizer"
        assert not known.candidates
    assert any(said.startswith("not lr-schedule: `learning-rate` is right") for said in
               lost_of(without(later, "params-norm")).evidence)  # fmt: skip


def test_a_scaler_is_a_candidate_where_there_is_one() -> None:
    later = without(off("lm loss", K + 2), "params-norm", "loss-scale")
    assert lost_of(later).component == "optimizer"
    assert "grad-scaler" in names(lost_of(later, arguments={"--fp16": True}))


def test_a_count_of_samples_says_nothing_of_their_order() -> None:
    curves = without(off("lm loss", K + 1), "batch-digest")
    assert "data-order" in names(lost_of(curves))
    assert "data-order" not in names(lost_of(off("lm loss", K + 1)))


def test_what_a_probe_brought_back_is_ruled_out_and_what_it_did_not_see_is_not() -> None:
    curves = off("lm loss", K + 1)
    found = lost(curves, probe=state(names={"rng": 2, "optimizer": 9}))
    assert names(found) == ["weights", "buffers"]
    whole = lost(curves, probe=state(names={"rng": 2, "weights": 9}))
    assert whole.component == "unknown"
    assert "what was compared leaves only a buffer that is in no checkpoint" in whole.evidence
    assert names(whole)[0] == "buffers"


#: What a probe brought back, and an end at which the weights alone have moved.
CAME_BACK = state(names={"rng": 2, "weights": 9, "data-order": 1})


def test_a_place_that_was_kept_may_still_be_ignored_where_no_digest_of_batches_is_logged() -> None:
    found = lost(without(off("lm loss", K + 1), "batch-digest"), probe=CAME_BACK)
    assert (found.component, names(found)) == ("unknown", ["data-order", "buffers"])
    assert asks_for_replicas(found)
    assert not any(said.startswith("not data-order") for said in found.evidence)
    for other in (
        lost(off("lm loss", K + 1), probe=CAME_BACK),  # its batches are right
        lost(without(off("lm loss", K + 2), "batch-digest"), probe=CAME_BACK),
        lost(without(off("params-norm", K + 1), "batch-digest"), probe=CAME_BACK),
        lost(without(off("lm loss", K + 1), "batch-digest"), probe=state(names={"rng": 2, "data-order": 1})),
    ):
        assert not asks_for_replicas(other)


def test_replicas_decide_between_a_weight_that_is_in_no_checkpoint_and_the_place_in_the_data() -> None:
    found = lost(without(off("lm loss", K + 1), "batch-digest"), probe=CAME_BACK)
    assert settled(found, alike=True).component == "data-order"
    assert settled(found, alike=False).component == "weights"
    assert "replicas" in settled(found, alike=False).evidence[-1]
    assert not settled(found, alike=False).candidates


def test_what_every_component_is_ruled_out_of_is_unknown_with_the_reasons() -> None:
    found = lost(off("params-norm", K + 1), probe=state(names={"optimizer": 9}))
    assert found.component == "unknown"
    assert "optimizer" in names(found)
    assert all(one.against for one in found.candidates)


def test_a_gradient_tells_of_the_loss_only_where_one_was_compared() -> None:
    alone = lost_of({"grad-norm": off("grad-norm", K + 1)["grad-norm"]})
    assert alone.component == "unknown"
    assert {"weights", "rng", "data-order"} <= {*names(alone)}
    assert not any("is right" in said for said in alone.evidence)


def test_what_is_right_at_first_and_off_later_is_not_named() -> None:
    found = lost_of(without(off("lm loss", K + 9), "params-norm"))
    assert found.component == "unknown"
    assert "the 9th after the resume" in found.evidence[0]
    assert {"optimizer", "rng", "buffers"} <= {*names(found)}


def test_two_that_differ_at_the_end_are_both_listed() -> None:
    end = state(differs("rng.common.0_0_0", "rng"), differs("loader.cursor", "data-order"))
    found = lost_of({"lm loss": off("lm loss", K + 1)["lm loss"]}, state=end)
    assert found.component == "unknown"
    assert names(found)[:2] == ["data-order", "rng"]


def test_the_only_state_that_differs_and_can_be_the_cause_is_named() -> None:
    end = state(differs("scheduler.last_epoch", "lr-schedule", elements=1, a=100, b=50))
    found = lost_of({"lm loss": off("lm loss", K + 3)["lm loss"]}, state=end)
    assert found.component == "lr-schedule"  # a warm-up from nothing begins with a rate of nothing
    assert not found.candidates


def test_a_counter_that_cannot_be_the_cause_is_not_named() -> None:
    end = state(differs("adam.0.step", "optimizer", elements=1, a=100.0, b=50.0))
    found = lost(off("lm loss", K + 1), probe=None, end=end)
    assert found.component == "unknown"
    assert {"optimizer", "weights"} <= {*names(found)}


def test_a_curve_that_was_not_logged_again_names_nothing() -> None:
    continuous, resumed = series(RIGHT), series(without(RIGHT, "learning-rate"), K + 1)
    checks = compare_curves(continuous, resumed, against="continuous", lane="exact", first=K + 1, last=N)
    found = diagnose(
        checks, continuous=continuous, resumed=resumed, k=K, n=N, state=None, probe=None, deterministic=True
    )  # fmt: skip
    assert found is not None
    assert found.component == "unknown"
    assert "not logged" in found.evidence[0]


@pytest.mark.parametrize(
    ("behind", "said"),
    [(0, "before the resume"), (1, "the first after the resume"), (4, "the 4th after the resume"),
     (12, "the 12th after the resume"), (21, "the 21st after the resume")],
)  # fmt: skip
def test_an_iteration_is_placed(behind: int, said: str) -> None:
    assert ordinal(K + behind, K) == said


# -- what people see -----------------------------------------------------------------------------

UNKNOWN = Diagnosis(
    "unknown",
    ("`loss` differs from iteration 11 on",),
    (
        Candidate("weights", ("it decides `loss`",), ("its only entry is equal at 20",)),
        Candidate("buffers", ("it decides `loss`",)),
    ),
)
VERDICT = Verdict(
    "cpu/dev/some", "failed", (Check("continuous: loss", "loss", "continuous", "exact", passed=False),),
    UNKNOWN, {}, {}, "harness run some",
)  # fmt: skip


def test_a_terminal_says_what_it_may_be() -> None:
    said = render(VERDICT)
    assert "may be: weights (for: it decides `loss`; against: its only entry is equal at 20)" in said
    assert "may be: buffers (for: it decides `loss`)" in said


def test_a_page_and_a_headline_say_what_it_may_be() -> None:
    assert headline(VERDICT).lost == "unknown; it may be weights or buffers"
    item = "<li>weights (for: it decides <code>loss</code>; against: its only entry is equal at 20)</li>"
    assert item in str(top(VERDICT, 10, 20))


# -- paths of the machine ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("no tracker in {cell}/checkpoints/saved: it", "no tracker in checkpoints/saved: it"),
        ("{cell}: not found", ".: not found"),
        ("{cell}/: not found", "./: not found"),
        ("{cell}-2/a differs", "results/cpu/dev/some-2/a differs"),
        ("(--load={home}/goldens/some/a.json)", "(--load=goldens/some/a.json)"),
        ("more{cell}/a", "more{cell}/a"),
        ("again: harness run --goldens {home}/goldens", "again: harness run --goldens {home}/goldens"),
        ("2/3 of it", "2/3 of it"),
    ],
)  # fmt: skip
def test_a_path_is_said_relative_to_where_a_reader_has_it(said: str, expected: str, tmp_path: Path) -> None:
    cell = tmp_path / "results" / "cpu" / "dev" / "some"
    relative = Relative((cell, tmp_path), (f"harness run --goldens {tmp_path}/goldens",))

    def filled(text: str) -> str:
        return text.replace("{cell}", str(cell)).replace("{home}", str(tmp_path))

    assert relative.text(filled(said)) == filled(expected)


def test_every_sentence_of_a_verdict_is_without_them(tmp_path: Path) -> None:
    relative = Relative((tmp_path,))
    check = Check("a", None, "state", "present", passed=False, message=f"{tmp_path}/a: torn")
    assert relative.check(check).message == "a: torn"
    sides = (f"{tmp_path}/b",), (f"{tmp_path}/c",)
    found = relative.diagnosis(Diagnosis("unknown", (f"{tmp_path}/a",), (Candidate("rng", *sides),)))
    assert found == Diagnosis("unknown", ("a",), (Candidate("rng", ("b",), ("c",)),))
    assert relative.diagnosis(None) is None


def test_a_state_that_is_not_whole_is_no_difference_of_two_runs() -> None:
    torn = differs("model.experts.fc1", "experts", reason="incomplete in a")
    both = never_the_same([torn, differs("model.fc", "weights")], K)
    assert [(check.name, check.against) for check in both] == [
        ("interrupted: state: experts is whole", "state"),
        ("interrupted: state: weights", "continuous"),
    ]
    found = lost(off("lm loss", K + 1), probe=state(torn), more=both[:1])
    assert found.component == "experts"
