"""One table says how a metric is judged and what it tells; checks, diagnosis and reports follow it."""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.checks import Check, compare_curves, statistics_of
from harness.diagnosis import diagnose
from harness.metrics import Series, known, read_metrics
from harness.metrics import units as known_units
from harness.metrics.known import Metric
from harness.report.curves import plots
from harness.verdict import Verdict

ROOT = Path(__file__).parents[1]
#: A metric that nobody has heard of, and no pattern fits.
MADE_UP = "flux-of-things"
K, N = 10, 20
Adds = Callable[..., None]


@pytest.fixture
def adds(monkeypatch: pytest.MonkeyPatch) -> Adds:
    """Put a row for the made-up metric into the one table."""

    def add(**row: object) -> None:
        rows = known.METRICS.beside(Metric(MADE_UP, **row))  # type: ignore[arg-type]
        monkeypatch.setattr(known, "METRICS", rows)

    return add


def curve(factor: float = 1.0, *, since: int = 1, name: str = MADE_UP) -> dict[str, Series]:
    steps = np.arange(1, N + 1)
    # As uneven as a loss is, so that a step of it is no other step's.
    values = 3 + 0.1 * np.sin(steps * 1.7)
    return {name: Series(name, steps, values * np.where(steps >= since, factor, 1.0))}


def judged(factor: float, against: str = "golden", lane: str = "tolerance") -> Check:
    first = 1 if against == "golden" else K + 1
    (check,) = compare_curves(
        {MADE_UP: curve()[MADE_UP].at(first, N)}, {MADE_UP: curve(factor)[MADE_UP].at(first, N)},
        against=against, lane=lane, first=first, last=N,  # type: ignore[arg-type]
    )  # fmt: skip
    return check


def band(check: Check) -> list[str]:
    """What the report says of how far the curve may be off."""
    verdict = Verdict("cpu/dev/x", "failed", (check,), None, {}, {}, "")
    phases = {"continuous": curve(), "resumed": curve(1.001, since=K + 1)}
    (plot,) = plots(phases, None, verdict, k=K)
    return [band.text for band in plot.bands]


def lost(check: Check, factor: float) -> str:
    """What the diagnosis says of a resumed run whose curve is off at once, beside a loss that is right."""
    loss = curve(name="lm loss")
    good = Check("continuous: lm loss", "lm loss", "continuous", "exact", passed=True)
    found = diagnose(
        [good, check], continuous={**curve(), **loss}, resumed={**curve(factor, since=K + 1), **loss},
        k=K, n=N, state=None, probe=None, deterministic=True,
    )  # fmt: skip
    assert found is not None
    return found.component


def test_a_metric_that_no_row_fits_is_judged_by_value_and_tells_nothing(adds: Adds) -> None:
    check = judged(1.0001)
    assert (check.kind, check.passed) == ("tolerance", True)
    off = judged(1.5, "continuous", "exact")
    assert lost(off, 1.5) == "unknown"
    adds(judged="value", tolerance=known.Tolerance(1e-6, 1e-9))
    assert not judged(1.0001).passed


def test_one_row_has_a_metric_judged_exactly_everywhere(adds: Adds) -> None:
    adds(judged="exact", tells="data", data="digest")
    check = judged(1 + 1e-9)
    assert (check.kind, check.passed) == ("exact", False)
    statistics = statistics_of([curve(1 + i * 1e-3) for i in range(3)])[MADE_UP]
    (within,) = compare_curves(
        curve(), curve(1 + 1e-9), against="golden", lane="envelope", first=1, last=N,
        statistics={MADE_UP: statistics},
    )  # fmt: skip
    assert (within.kind, within.passed) == ("exact", False)
    resumed = judged(1.5, "continuous", "tolerance")
    assert lost(resumed, 1.5) == "data-order"
    assert band(resumed) == ["must be 0: compared bit for bit"]


@pytest.mark.parametrize(("tells", "component"), [("rate", "lr-schedule"), ("scale", "grad-scaler")])
def test_what_a_metric_tells_is_what_the_diagnosis_names(adds: Adds, tells: str, component: str) -> None:
    adds(judged="rate", tells=tells)
    resumed = judged(1.5, "continuous", "tolerance")
    assert "no hardware changes it" in resumed.message
    assert lost(resumed, 1.5) == component


@pytest.mark.parametrize(("kind", "component"), [("time", "performance"), ("memory", "memory")])
def test_one_row_has_a_metric_judged_from_above_only(adds: Adds, kind: str, component: str) -> None:
    adds(judged=kind)
    check = judged(1e9)
    assert (check.kind, check.passed) == ("upper-bound", False)
    assert judged(0.1).passed
    between = judged(1e9, "continuous", "exact")
    assert (between.kind, between.passed) == ("present", True), "a cost is compared with a golden only"
    found = diagnose(
        [check], continuous=curve(1e9), resumed=None, k=K, n=N, state=None, probe=None, deterministic=True,
        golden_only=True,
    )  # fmt: skip
    assert found is not None
    assert found.component == component
    assert band(check) == []
    assert statistics_of([curve(), curve(), curve()])[MADE_UP]["kind"] == "cost"


def test_the_highest_value_of_a_cost_counts_where_its_row_says_so(adds: Adds) -> None:
    adds(judged="memory")
    assert "median" in judged(1e9).message
    adds(judged="memory", highest=True)
    assert "the highest" in judged(1e9).message


def test_one_row_leaves_a_metric_out_but_for_being_a_number(adds: Adds) -> None:
    adds(judged="finite")
    check = judged(1e3)
    assert (check.kind, check.passed) == ("present", True)
    assert not judged(float("nan")).passed
    assert band(check) == []


def test_one_row_has_a_metric_not_read_at_all(adds: Adds, tmp_path: Path) -> None:
    lines = [{"step": step, "loss": 1.0, MADE_UP: 2.0} for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert set(read_metrics(tmp_path / "none", tmp_path)) == {"loss", MADE_UP}
    adds(judged="unread")
    assert set(read_metrics(tmp_path / "none", tmp_path)) == {"loss"}


def test_a_row_says_only_what_it_knows_and_the_first_that_does_counts() -> None:
    rows = known.METRICS.beside(Metric("grad-flux", judged="exact"))
    assert (rows.of("grad-flux").judged, rows.of("grad-flux").tells) == ("exact", "gradient")
    assert known.about("grad-flux").judged == "value"


@pytest.mark.parametrize(
    ("judged", "names"),
    [
        ("time", "time_metrics/end_to_end(s) time_metrics/data_loading(s) data_time step_time_ms "
         "timing_s/gen perf/time_per_step train/train_runtime eval_runtime train_step_timing_in_s "
         "iter_ms router_ms fwd[ms] perf/sec_per_step s/it secs_per_iter ms_per_batch dt perf/dt_ms hours"),
        ("finite", "mfu(%) throughput(tps) tps tflops it/s tok/s tokens_per_sec perf/mfu/actor timestamp "
         "_runtime elapsed_time eta time/remaining_estimate wall_clock/train gpu.0.temp gpu_util "
         "time_metrics/data_loading(%) DeviceStatsMonitor.on_train_batch_end/cpu_percent "
         "train_samples_per_second tokens_per_second_per_gpu tokens/sec/gpu gpu0/util cpu/load gpu0/energy"),
        ("memory", "memory/max_active(GiB) memory/max_reserved(%) memory/num_alloc_retries memory gpu_mem "
         "perf/max_memory_allocated_gb peak_memory_mb memory(MB) memory/peak_reserved_mem rss_bytes"),
        ("value", "loss loss_s memory/loss memory_bank_loss loss_metrics/global_max_loss time/batch "
         "time/token timesteps time_step temperature accuracy(%) top1(%) num_mb total_flos "
         "lifetime_reward grad_norm_s perf/total_num_tokens bits_per_byte momentum "
         "loss_per_step layers.0.dt model/dt min/batch tokens_per_step kimg gpu0/loss "
         "remaining_tokens data/samples_remaining ddim_eta optimizer/eta mse_duration duration_mae "
         "system_energy network/energy gpu0/expert_load device/codebook_utilization network/router/load "
         "memory/num_slots memory/mse_total"),
    ],
)  # fmt: skip
def test_costs_are_known_by_their_unit_and_what_tells_of_training_is_none(judged: str, names: str) -> None:
    assert {name: known.about(name).judged for name in names.split()} == dict.fromkeys(names.split(), judged)


def test_the_slack_of_a_bound_is_as_much_in_every_unit() -> None:
    units = {"mem-allocated-bytes": 1, "memory(MB)": 1 << 20, "a_gb": 1 << 30, "b(GiB)": 1 << 30}
    assert {name: known_units.unit_of(name) for name in units} == units
    one, more = ({"memory(GiB)": Series("memory(GiB)", np.arange(9), np.full(9, v))} for v in (10.0, 11.0))
    (check,) = compare_curves(one, more, against="golden", lane="exact", first=0, last=9)
    assert not check.passed


def test_a_name_of_any_length_is_known_in_no_time() -> None:
    for name in (
        "a_" * 20_000,
        "gpu_" * 9_000 + "x",
        "memory/" + "a_" * 20_000 + "!",
        "loss" * 9_000,
        "time" * 9_000,
    ):
        began = time.monotonic()
        known.about(name)
        assert time.monotonic() - began < 2


#: Modules that name metrics and judge nothing by it, and why.
NAMED = {
    "metrics/known.py": "the table",
    "checks/legacy.py": "Megatron-LM's own thresholds, to compare ours with",
    "report/curves.py": "which plot comes first",
    "report/matrix_page.py": "which trends are drawn",
}
#: Names that are also words for something else: of arguments, of components.
WORDS = {"lr", "epoch", "learning-rate", "batch-size", "loss-scale", "weight-decay", "world-size"}


def test_no_other_module_names_a_metric() -> None:
    names = {row.name for row in known.METRICS.rows if isinstance(row.name, str)} - WORDS
    assert len(names) > 8
    found = {}
    for path in (ROOT / "harness").rglob("*.py"):
        module = path.relative_to(ROOT / "harness").as_posix()
        texts = {
            node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)
        }
        if names & texts and not module.startswith("trainers/native/"):
            found[module] = sorted(names & texts)
    assert found.keys() == NAMED.keys(), found
