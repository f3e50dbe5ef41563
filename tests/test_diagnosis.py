"""What is named, and with which sentences, from curves, state diffs and checkpoints made for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.checkpoints import Gap, StateDiff, TensorDiff
from harness.checks import Check, Worst, compare_curves
from harness.diagnosis import COMPONENTS, Diagnosis, crash, diagnose
from harness.diagnosis.curves import kind_of
from harness.errors import CheckpointError, TrainerFailed
from harness.metrics import Series
from harness.protocol.judge import not_loaded, tracker_names
from tests.made_curves import EQUAL, RIGHT, Curves, K, N, differs, lost, off, series, state

# -- curves ------------------------------------------------------------------------------------


def test_nothing_is_named_where_nothing_failed() -> None:
    continuous, resumed = series(RIGHT), series(RIGHT, K + 1)
    checks = compare_curves(continuous, resumed, against="continuous", lane="exact", first=K + 1, last=N)
    assert diagnose(
        checks, continuous=continuous, resumed=resumed, k=K, n=N, state=EQUAL, probe=None, deterministic=True
    ) is None  # fmt: skip


def test_a_restarted_schedule_is_told_by_its_own_curve() -> None:
    restarted = off("learning-rate", K + 1) | {"learning-rate": lambda i: RIGHT["learning-rate"](i - K)}
    found = lost(restarted)
    assert found.component == "lr-schedule"
    assert found.evidence[0] == (
        "`learning-rate` differs from iteration 51 on, before any weight: the schedule was not restored; it "
        "restarted at iteration 0 (ratio 0.02)"
    )


@pytest.mark.parametrize(
    ("rate", "says"),
    [
        (lambda i: 0.01 * (1 - (i + 3) / 200), "3 iterations ahead"),
        (lambda i: 0.01 * (1 - i / 200) * 0.5, "that ratio stays the same up to 100"),
        (lambda i: 0.01 if i == K + 1 else 0.01 * (1 - i / 200), "differs at iteration 51 only"),
        (lambda i: 1e-4, "it moves no more"),
    ],
)
def test_a_rate_is_told_by_what_it_does(rate: Callable[[int], float], says: str) -> None:
    falling: Curves = RIGHT | {"learning-rate": lambda i: 0.01 * (1 - i / 200)}
    continuous, resumed = series(falling), series(falling | {"learning-rate": rate}, K + 1)
    checks = compare_curves(continuous, resumed, against="continuous", lane="exact", first=K + 1, last=N)
    found = diagnose(
        checks, continuous=continuous, resumed=resumed, k=K, n=N, state=None, probe=None, deterministic=True
    )  # fmt: skip
    assert found is not None
    assert found.component == "lr-schedule"
    assert says in found.evidence[0]


def test_data_that_starts_again_is_told_by_the_batches() -> None:
    again = off("batch-digest", K + 1) | {
        "batch-digest": lambda i: RIGHT["batch-digest"](i - K),
        "consumed-samples": lambda i: 4.0 * (i - K),
    }
    found = lost(again)
    assert found.component == "data-order"
    assert any("those of iteration 1 on, the data is 50 iterations behind" in said for said in found.evidence)
    assert any("4 instead of 204, 200 behind" in said for said in found.evidence)


def test_data_is_the_cause_though_random_streams_were_lost_too() -> None:
    probe = state(differs("rng.common.0_0_0", "rng"))
    assert lost(off("batch-digest", K + 1), probe=probe).component == "data-order"


def test_a_gradient_that_is_off_while_its_loss_is_right_is_the_optimizers() -> None:
    found = lost(off("grad-norm", K + 1))
    assert found.component == "optimizer"
    assert "`batch-digest`, `learning-rate`, `loss-scale` and `lm loss` are right there" in found.evidence[0]


def test_an_update_that_is_off_while_loss_and_gradient_are_right_is_the_optimizers() -> None:
    assert lost(off("params-norm", K + 1)).component == "optimizer"


def test_a_loss_that_is_off_at_the_second_step_only_is_the_optimizers() -> None:
    foreign = {name: f for name, f in off("lm loss", K + 2).items() if name != "params-norm"}
    assert lost(foreign).component == "optimizer"


def test_the_states_at_the_end_name_nothing_that_training_moves() -> None:
    moved = state(
        differs("model.decoder.weight", "weights"), differs("optimizer.exp_avg.decoder.weight", "optimizer")
    )
    found = lost(off("lm loss", K + 1), end=moved)
    assert found.component == "unknown"
    assert not any("model.decoder.weight" in said for said in found.evidence)


@pytest.mark.parametrize(
    ("entry", "component"),
    [
        (differs("rng.common.0_0_0", "rng"), "rng"),
        (differs("loader.cursor", "data-order", elements=1, a=80, b=40), "data-order"),
        (differs("adam.0.step", "optimizer", elements=1, a=100.0, b=50.0), "optimizer"),
        (differs("ema.num_updates", "buffers", elements=1, a=100, b=50), "buffers"),
    ],
)
def test_the_states_at_the_end_name_what_weights_do_not_decide(entry: TensorDiff, component: str) -> None:
    curve = "params-norm" if component == "optimizer" else "lm loss"
    moved = state(differs("model.weight", "weights"), entry)
    assert lost(off(curve, K + 1), probe=None, end=moved).component == component


def test_where_no_curve_differs_the_states_at_the_end_decide() -> None:
    found = lost(RIGHT, end=state(differs("buffer.mean", "buffers")), more=[failed_state("buffers")])
    assert found.component == "buffers"
    assert "no curve differs" in found.evidence[0]


def failed_state(component: str) -> Check:
    return Check(f"state: {component}", None, "state", "exact", passed=False, first_bad_step=N)


def test_a_difference_of_rounding_size_may_be_nondeterminism() -> None:
    tiny = RIGHT | {"lm loss": lambda i: RIGHT["lm loss"](i) * (1 + 1e-8 * (i > K + 3))}
    found = lost(tiny)
    assert found.component == "unknown"
    assert found.candidates[0].component == "nondeterminism"
    again = Check("interrupted: lm loss", "lm loss", "continuous", "exact", passed=True)
    (first,) = (one for one in lost(tiny, more=[again]).candidates if one.component == "nondeterminism")
    assert first.against == ("two runs that were not resumed had the same bits up to 50",)


def test_a_run_that_ended_early_is_said_so() -> None:
    found = lost(off("lm loss", K + 1), probe=state(differs("rng.common.0_0_0", "rng")), last=80)
    assert "the resumed run ended after iteration 80 of 100, without an error" in found.evidence


@pytest.mark.parametrize(
    ("metric", "kind"),
    [
        ("lm loss validation", "validation"), ("val_loss", "validation"), ("lr", "rate"), ("ppl", "loss"),
        ("decoupled-learning-rate", "rate"), ("train/loss", "loss"), ("loss-scale", "scale"),
        ("num-zeros", "gradient"), ("gnorm", "gradient"), ("params-norm", "parameters"), ("colour", "other"),
        ("batch-size", "data"), ("samples_seen", "data"), ("load_balancing_loss", "loss"),
    ],
)  # fmt: skip
def test_a_metric_is_known_by_its_name(metric: str, kind: str) -> None:
    assert kind_of(metric) == kind


def test_a_rate_lost_with_the_optimizer_that_it_lies_in_is_the_optimizer() -> None:
    """As ``--no-load-optim`` does: the schedule restarts too."""
    one = {"elements": 1, "differing": 1, "max_abs": None}
    schedule = differs("opt_param_scheduler.num_steps", "lr-schedule", a=400, b=200, **one)
    moments = differs("optimizer.state.0.exp_avg", "optimizer")
    count = differs("optimizer.param_groups.0.step", "optimizer", a=100, b=50, **one)
    for found in (
        lost(off("learning-rate", K + 1), probe=state(schedule, moments)),
        lost(off("learning-rate", K + 1), probe=state(schedule, count)),
        lost(off("learning-rate", K + 1), probe=None, end=state(schedule, count)),
    ):
        assert found.component == "optimizer"
        assert any("num_steps" in said for said in found.evidence), found.evidence
    decay = differs("optimizer.param_groups.0.weight_decay", "optimizer", a=1.0, b=0.0, **one)
    for alone in (state(schedule), state(schedule, decay)):
        assert lost(off("learning-rate", K + 1), probe=alone).component == "lr-schedule"
    assert (
        lost(off("learning-rate", K + 1), probe=None, end=state(schedule, moments)).component == "lr-schedule"
    )


def test_masters_lost_with_their_moments_are_the_optimizer_and_alone_the_weights() -> None:
    master = differs("mp_rank_00:optimizer.fp32_from_fp16_params.0.0", "weights")
    moment = differs("mp_rank_00:optimizer.optimizer.state.0.exp_avg", "optimizer")
    model = differs("mp_rank_00:model.decoder.weight", "weights")
    curves = off("params-norm", K + 1)
    assert lost(curves, probe=state(master, moment)).component == "optimizer"
    assert lost(curves, probe=state(master)).component == "weights"
    assert lost(curves, probe=state(master, moment, model)).component == "weights"


def test_a_validation_that_is_off_first_is_not_said_to_be_the_only_one() -> None:
    curves = {**off("lm loss", K + 5), "lm loss validation": lambda i: i + (i > K + 1)}
    right = {**RIGHT, "lm loss validation": float}
    continuous, resumed = series(right), series(curves, K + 1)
    checks = compare_curves(continuous, resumed, against="continuous", lane="exact", first=K + 1, last=N)
    found = diagnose(
        checks, continuous=continuous, resumed=resumed, k=K, n=N, state=None, probe=None, deterministic=True
    )
    assert found is not None
    said = " ".join(one.sentence() for one in found.candidates) + " ".join(found.evidence)
    assert "no curve of training is" not in said
    assert "validation is off before any curve of training is (`lm loss`)" in said


def test_a_tracker_that_names_another_iteration_is_the_checkpoint() -> None:
    name = "continuous: tracker names iteration 100"
    said = "the tracker in x names iteration 101"
    ahead = Check(name, None, "state", "present", passed=False, worst=Worst(100, 100, 101), message=said)
    found = lost(RIGHT, more=[ahead])
    assert (found.component, found.evidence[:2]) == (
        "checkpoint",
        (found.evidence[0], f"{said}; expected iteration 100"),
    )
    moved = state(differs("optimizer.state.0.exp_avg", "optimizer"))
    both = lost(off("params-norm", K + 1), probe=moved, more=[ahead])
    assert both.component == "optimizer"
    assert f"{said}; expected iteration 100" in both.evidence


# -- the probe ---------------------------------------------------------------------------------


def test_what_a_probe_changes_is_what_was_lost() -> None:
    probe = state(differs("rng.common.0_0_0", "rng"))
    found = lost(off("lm loss", K + 1), probe=probe)
    assert found.component == "rng"
    assert "loaded at 50 and saved at once: rng.common.0_0_0: 8 of 8 elements differ" in found.evidence[1]


def test_a_group_that_lost_rate_and_betas_was_lost_whole() -> None:
    group = "optimizer.group.dense.no_decay"
    one = {"elements": 1}
    probe = state(differs(f"{group}.lr", "lr-schedule", **one), differs(f"{group}.beta2", "optimizer", **one))
    assert lost(off("params-norm", K + 1), probe=probe).component == "optimizer"
    alone = state(differs(f"{group}.lr", "lr-schedule", **one))
    assert lost(off("params-norm", K + 1), probe=alone).component == "lr-schedule"


def test_moments_that_go_with_their_parameter_do_not_speak_for_the_optimizer() -> None:
    experts = [
        f"{kind}layer.experts.fc1" for kind in ("model.", "optimizer.exp_avg.", "optimizer.exp_avg_sq.")
    ]
    probe = state(*(differs(name, "experts" if "model" in name else "optimizer") for name in experts))
    assert lost(off("lm loss", K + 1), probe=probe).component == "experts"


def test_masters_are_weights() -> None:
    probe = state(differs("optimizer.master.layer.weight", "optimizer"))
    assert lost(off("params-norm", K + 1), probe=probe).component == "weights"


def test_weights_of_several_kinds_are_weights() -> None:
    probe = state(differs("model.embedding.weight", "embedding"), differs("model.layer.weight", "weights"))
    assert lost(off("lm loss", K + 1), probe=probe).component == "weights"


def test_three_parts_lost_at_once_are_a_checkpoint_loaded_in_part() -> None:
    probe = state(
        differs("rng.common.0_0_0", "rng"), differs("data.train.epoch", "data-order"),
        differs("scheduler.num_steps", "lr-schedule"),
    )  # fmt: skip
    found = lost(off("lm loss", K + 1), probe=probe)
    assert found.component == "checkpoint"
    assert "data-order, lr-schedule, rng were not taken up" in found.evidence[0]


def test_what_was_never_saved_is_named_by_the_gap() -> None:
    gap = Gap("optimizer", "the checkpoint holds no optimizer step counts (optimizer.step.*)")
    found = lost(off("params-norm", K + 1), probe=state(gaps=[gap]))
    assert found.component == "optimizer"
    assert gap.sentence in found.evidence


# -- where it went on --------------------------------------------------------------------------


def test_a_run_that_starts_again_has_loaded_nothing() -> None:
    found = lost(RIGHT, first=1)
    assert found.component == "checkpoint"
    assert any("nothing was loaded, training started again" in said for said in found.evidence)


def test_a_run_that_goes_on_under_old_numbers_has_lost_the_iteration_only() -> None:
    shifted: Curves = {name: (lambda i, f=f: f(i + K)) for name, f in RIGHT.items()}  # type: ignore[misc]
    found = lost(shifted, first=1)
    assert found.component == "iteration"
    assert any("only the iteration's number was lost" in said for said in found.evidence)


def test_a_checkpoint_that_cannot_be_loaded_is_named_with_what_was_found() -> None:
    torn = not_loaded(K, CheckpointError("manifest.json: not found, expected by the tracker"))
    found = diagnose(
        [torn], continuous=series(RIGHT), resumed=None, k=K, n=N, state=None, probe=None, deterministic=True
    )  # fmt: skip
    assert found is not None
    assert found.component == "checkpoint"
    assert "manifest.json" in found.evidence[0]


def test_a_tracker_that_names_another_iteration_is_the_checkpoints_where_nothing_else_is_wrong(
    tmp_path: Path,
) -> None:
    (tmp_path / "latest_checkpointed_iteration.txt").write_text(f"{N + K}")
    wrong = tracker_names(N, tmp_path, "continuous")
    assert lost(RIGHT, more=[wrong]).component == "checkpoint"
    assert f"names iteration {N + K}" in lost(RIGHT, more=[wrong]).evidence[-1]
    assert lost(off("learning-rate", K + 1), more=[wrong]).component == "lr-schedule"


def test_a_schedule_that_was_lost_with_its_optimizer_is_the_optimizers() -> None:
    restarted = off("learning-rate", K + 1) | {"learning-rate": lambda i: RIGHT["learning-rate"](i - K)}
    schedule = differs("opt_param_scheduler.num_steps", "lr-schedule", elements=1, a=N, b=N - K)
    count = differs("optimizer.param_groups.0.step", "optimizer", elements=1, a=N, b=N - K)
    assert lost(restarted, probe=None, end=state(schedule)).component == "lr-schedule"
    both = lost(restarted, probe=None, end=state(schedule, count))
    assert both.component == "optimizer"
    assert any("param_groups.0.step" in said for said in both.evidence)
    assert any("num_steps" in said for said in both.evidence)


def test_a_trainer_that_logs_every_tenth_iteration_went_on_where_it_should() -> None:
    def tenth(found: dict[str, Series]) -> dict[str, Series]:
        kept = {name: s.steps % 10 == 0 for name, s in found.items()}
        return {name: Series(name, s.steps[kept[name]], s.values[kept[name]]) for name, s in found.items()}

    continuous, resumed = tenth(series(RIGHT)), tenth(series(off("lm loss", K + 1), K + 1))
    checks = compare_curves(continuous, resumed, against="continuous", lane="exact", first=K + 1, last=N)

    def found(probe: StateDiff) -> Diagnosis | None:
        return diagnose(
            checks, continuous=continuous, resumed=resumed, k=K, n=N, state=None, probe=probe,
            deterministic=True,
        )  # fmt: skip

    told, untold = found(state(differs("rng.common.0_0_0", "rng"))), found(EQUAL)
    assert told is not None
    assert told.component == "rng"
    assert untold is not None
    assert untold.component == "unknown"
    assert "log every one" in untold.evidence[-1]


def test_two_first_halves_that_differ_are_nondeterminism() -> None:
    apart = Check("interrupted: lm loss", "lm loss", "continuous", "exact", passed=False, first_bad_step=7)
    assert lost(off("lm loss", K + 1), more=[apart]).component == "nondeterminism"


# -- the golden only ---------------------------------------------------------------------------


def changed(*failed: Check) -> Diagnosis | None:
    sound = Check("continuous: lm loss", "lm loss", "continuous", "exact", passed=True)
    return diagnose(
        [sound, *failed], continuous=series(RIGHT), resumed=series(RIGHT, K + 1), k=K, n=N, state=EQUAL,
        probe=None, deterministic=True, golden_only=True,
    )  # fmt: skip


def golden(metric: str, step: int, kind: Any = "exact", expected: float = 1.0, actual: float = 2.0) -> Check:
    worst = Worst(step, expected, actual)
    return Check(f"golden: {metric}", metric, "golden", kind, passed=False, first_bad_step=step, worst=worst)


def kept(metric: str) -> Check:
    return Check(f"golden: {metric}", metric, "golden", "exact", passed=True)


def golden_state(component: str) -> Check:
    return Check(f"golden: state: {component}", None, "golden", "exact", passed=False)


def test_a_resumed_state_that_only_the_golden_has_otherwise_is_named() -> None:
    """As a stream that was not restored, where a restored one stands further on than the first run's."""
    same = Check("continuous: lm loss", "lm loss", "continuous", "exact", passed=True)
    joined = Check("golden: joined: state: rng", None, "golden", "exact", passed=False)
    found = diagnose(
        [same, joined], continuous=series(RIGHT), resumed=series(RIGHT, K + 1), k=K, n=N, state=EQUAL,
        probe=None, deterministic=True, golden_only=True,
    )  # fmt: skip
    assert found is not None
    assert found.component == "rng"
    assert "the resumed run's saved state at the end is not the golden's: rng" in found.evidence[0]


@pytest.mark.parametrize(
    ("checks", "component"),
    [
        ([golden("lm loss", 3), golden("batch-digest", 3)], "data-order"),
        ([golden("lm loss", 3), golden("learning-rate", 2)], "lr-schedule"),
        ([golden("lm loss", 2), golden("params-norm", 1), kept("learning-rate")], "optimizer"),
        ([golden("lm loss", 2), golden("params-norm", 1)], "unknown"),
        ([golden("lm loss", 2, kind="tolerance")], "unknown"),
        ([golden("lm loss", 1)], "unknown"),
        ([golden_state("weights")], "weights"),
        ([golden_state("weights"), golden_state("rng")], "unknown"),
        ([golden("params-norm", 1), golden_state("data-order"), golden_state("rng")], "unknown"),
        ([golden("iteration-time", 5, "upper-bound")], "performance"),
        ([golden("mem-max-allocated-bytes", 5, "upper-bound")], "memory"),
    ],
)
def test_a_change_of_training_is_named_by_the_series_that_left_first(
    checks: list[Check], component: str
) -> None:
    found = changed(*checks)
    assert found is not None
    assert found.component == component
    assert not (found.candidates and found.component != "unknown")


def test_a_change_of_the_update_lists_what_takes_part_in_it() -> None:
    found = changed(golden("lm loss", 2), golden("params-norm", 1))
    assert found is not None
    assert [one.component for one in found.candidates] == ["optimizer", "lr-schedule"]
    alone = changed(golden("params-norm", 1))  # no loss was compared
    assert alone is not None
    assert not any("is the golden's" in said for said in alone.evidence)


def test_a_change_of_training_is_dated() -> None:
    found = changed(golden("lm loss", 7), golden("grad-norm", 8))
    assert found is not None
    assert found.evidence[0] == (
        "training changed: `lm loss` differs from the golden from iteration 7 on: 2 instead of 1"
    )


NO_GOLDEN = Check("golden: is there", None, "golden", "present", passed=False, message="there is none")


def test_a_golden_that_is_not_there_is_nothing_lost() -> None:
    assert changed(NO_GOLDEN) is None
    found = diagnose(
        [NO_GOLDEN], continuous={}, resumed=None, k=K, n=N, state=None, probe=None, deterministic=True
    )  # fmt: skip
    assert found is None


def test_a_golden_that_is_not_there_is_no_evidence_of_something_else() -> None:
    for found in (
        lost(RIGHT, more=[NO_GOLDEN, Check("x", None, "state", "present", passed=False, message="a thing")]),
        lost(off("lm loss", K + 1), more=[NO_GOLDEN]),
    ):
        assert not any("there is none" in said for said in found.evidence)


# -- crashes -----------------------------------------------------------------------------------


def test_a_crash_says_how_its_log_ends() -> None:
    failed = TrainerFailed(phase="resumed", rank=1, reason="was killed", log_tail="a\nOut of memory\n")
    found = crash(failed)
    assert found.component == "crash"
    assert "its log ends with: Out of memory" in found.evidence


def test_a_crash_over_a_checkpoint_is_the_checkpoints() -> None:
    failed = TrainerFailed(phase="resumed", rank=0, reason="failed")
    failed.__cause__ = CheckpointError("x.pt: has 0 bytes")
    assert crash(failed).component == "checkpoint"


def test_every_component_is_a_word_of_the_design() -> None:
    assert len(set(COMPONENTS)) == len(COMPONENTS) == 16
    with pytest.raises(ValueError, match="momentum"):
        Diagnosis("momentum", ())


# -- checkpoints by themselves -----------------------------------------------------------------


def native(folder: Path, tensors: Mapping[str, Any], *, tp: int = 1) -> Path:
    """A checkpoint as the native trainer writes it."""
    import torch

    target = folder / "mp_rank_00_000"
    target.mkdir(parents=True)
    for rank in range(1, tp):
        (folder / f"mp_rank_{rank:02d}_000").mkdir()
    content = {"format": "native-torch-1", "tensors": dict(tensors), "shards": {}, "aliases": {}}
    for place in folder.iterdir():
        torch.save(content, place / "model_optim_rng.pt")
    files = {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size} for p in folder.rglob("*.pt")}
    layout = {"tp": tp, "pp": 1, "dp": 1, "ep": 1, "etp": 1}
    (folder / "manifest.json").write_text(json.dumps({"layout": layout, "files": files}))
    return folder


def at(path: Path) -> StateDiff:
    return StateDiff(str(path), str(path), (), compared=20)


def test_weights_that_are_not_their_rounded_masters_were_saved_wrong(tmp_path: Path) -> None:
    import torch

    master = torch.linspace(0, 1, 8)
    tensors = {"iteration": torch.tensor(K), "optimizer.master.fc.weight": master}
    right = native(tmp_path / "right", tensors | {"model.fc.weight": master.bfloat16()})
    assert lost(off("lm loss", K + 1), probe=at(right)).component == "unknown"
    stale = native(tmp_path / "stale", tensors | {"model.fc.weight": (master + 0.1).bfloat16()})
    found = lost(off("lm loss", K + 1), probe=at(stale))
    assert found.component == "weights"
    assert "8 of 8 elements of model.fc.weight are not their float32 master" in found.evidence[1]


def test_a_random_stream_that_not_every_rank_has_was_lost(tmp_path: Path) -> None:
    import torch

    one = {"iteration": torch.tensor(K), "rng.common.0_0_0": torch.zeros(4, dtype=torch.uint8)}
    found = lost(off("lm loss", K + 1), probe=at(native(tmp_path / "one", one, tp=2)))
    assert found.component == "rng"
    assert "`common` of 1 of 2 ranks" in found.evidence[1]
    both = one | {"rng.common.1_0_0": torch.zeros(4, dtype=torch.uint8)}
    assert lost(off("lm loss", K + 1), probe=at(native(tmp_path / "both", both, tp=2))).component == "unknown"


def test_what_the_arguments_ask_for_must_have_been_saved(tmp_path: Path) -> None:
    import torch

    held = {"iteration": torch.tensor(K), "model.layer.mlp.experts.fc1": torch.ones(2)}
    probe = at(native(tmp_path / "held", held))
    asked = {"--num-experts": 4, "--moe-router-enable-expert-bias": True, "--fp8-format": None}
    found = lost(off("lm loss", K + 1), probe=probe, arguments=asked)
    assert found.component == "experts"
    assert "--moe-router-enable-expert-bias" in found.evidence[1]
    del asked["--moe-router-enable-expert-bias"]
    assert lost(off("lm loss", K + 1), probe=probe, arguments=asked).component == "unknown"


def test_rows_at_the_place_of_others_were_cut_wrongly(tmp_path: Path) -> None:
    import torch

    name, rows = "model.embedding.word_embeddings.weight", torch.arange(24.0).view(12, 2)
    shifted = torch.cat([rows[:6], rows[4:10]])
    a = native(tmp_path / "a", {"iteration": torch.tensor(K), name: rows})
    b = native(tmp_path / "b", {"iteration": torch.tensor(K), name: shifted})
    entry = differs(name, "embedding", elements=24, differing=12, rows=(6, 11))
    found = lost(off("lm loss", K + 1), probe=StateDiff(str(a), str(b), (entry,), compared=2))
    assert found.component == "weights"
    assert "rows 6 to 11 hold what was saved in rows 4 to 9" in found.evidence[1]


def test_of_a_run_that_counts_from_0_the_step_with_the_number_k_is_the_first_after_the_resume() -> None:
    def loss(steps: range, wrong_from: int) -> dict[str, Series]:
        values = [1.0 / (1 + step) + (step >= wrong_from) for step in steps]
        return {"loss": Series("loss", np.array(steps), np.array(values))}

    continuous = loss(range(N), N)
    for since, said in ((K, "the first after the resume"), (K + 1, "the second after the resume")):
        resumed = loss(range(K, N), since)
        checks = compare_curves(continuous, resumed, against="continuous", lane="exact", first=K, last=N - 1)
        found = diagnose(
            checks,
            continuous=continuous,
            resumed=resumed,
            k=K,
            n=N,
            state=None,
            probe=None,
            deterministic=True,
        )
        assert found is not None
        assert f"`loss` differs from iteration {since} on, {said}" in found.evidence[0]
        named = {one.component for one in found.candidates} or {found.component}
        assert ("optimizer" in named) is (since == K + 1)
