"""Results of cells as a run leaves them, made without training: real event files, checks and goldens."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import goldens
from harness.checkpoints.compare import StateDiff, TensorDiff
from harness.checks import Check, compare_curves
from harness.diagnosis import Diagnosis
from harness.metrics import Series, read_metrics
from harness.metrics.known import about
from harness.verdict import Verdict

Array = NDArray[np.float64]

GPT = "gpt3_mcore_te_tp1_pp4_vp1_resume_torch_decoupled_lr"
MOE = "gpt3_moe_mcore_te_tp4_ep2_etp2_pp2_resume_torch_dist_dist_optimizer"
LAYOUTS = {GPT: "TP1 PP4 VP2 DP1 EP1 ETP1", MOE: "TP4 PP2 VP1 DP1 EP2 ETP2"}
ARGUMENTS: dict[str, dict[str, Any]] = {
    GPT: {"--num-layers": "8"},
    MOE: {"--num-layers": "4", "--num-experts": "8"},
}
_FINGERPRINT = {
    "platform": "cpu", "device": "Example CPU @ 2.00GHz", "cpu_capability": "AVX2", "torch": "2.13.0",
    "trainer": "native", "trainer_version": "0.1.0", "precision": "fp32", "ckpt_format": "torch_dist",
    "deterministic": True,
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A cell's results, with everything that a report is written from."""

    folder: Path
    verdict: Verdict
    golden: goldens.Golden | None
    arguments: Mapping[str, Any]
    k: int
    n: int

    def series(self, phase: str) -> Mapping[str, Series]:
        where = self.folder / phase
        return read_metrics(where / "tensorboard", where)


def values(metric: str, steps: Array, slower: float = 1.0) -> Array:
    """What a run of the kind logs; float32, as event files hold it."""
    noise = np.random.default_rng([*metric.encode()]).standard_normal(steps.size)
    made = {
        "lm loss": 9.7 + 1.22 * np.exp(-steps / 45) + 0.02 * noise,
        "grad-norm": 2.1 * np.exp(-steps / 60) + 0.9 + 0.05 * noise,
        "num-zeros": np.round(6300 + 140 * steps + 60 * noise),
        "learning-rate": 2e-3 * np.minimum(1, steps / 10) * (0.55 + 0.45 * np.cos(np.pi * steps / steps[-1])),
        "loss-scale": np.full(steps.size, 1.0),
        "batch-size": np.full(steps.size, 8.0),
        "consumed-samples": 8.0 * steps,
        "batch-digest": np.round(np.abs(noise) * 1e6),
        "params-norm": 41.3 + 0.004 * steps + 0.0005 * noise,
        "load_balancing_loss": 1.01 + 0.2 * np.exp(-steps / 30) + 0.004 * noise,
        "iteration-time": slower * (0.118 + 0.006 * np.abs(noise)),
        "mem-allocated-bytes": np.full(steps.size, 628063744.0) + 1024 * (steps > 1),
        "mem-max-allocated-bytes": 974433792.0 + np.minimum(steps, 6) * 29e6,
    }[metric]
    return np.asarray(made.astype(np.float32), np.float64)


def write_events(folder: Path, first: int, lines: Mapping[str, Sequence[float] | Array]) -> None:
    """One event a step, as the native trainer writes them; without the seconds that importing torch takes."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for i in range(len(next(iter(lines.values())))):
        scalars = [Summary.Value(tag=tag, simple_value=float(line[i])) for tag, line in lines.items()]
        writer.add_event(Event(wall_time=time.time(), step=first + i, summary=Summary(value=scalars)))
    writer.close()


METRICS = (
    "lm loss", "grad-norm", "num-zeros", "learning-rate", "loss-scale", "batch-size", "consumed-samples",
    "params-norm", "load_balancing_loss", "iteration-time", "mem-allocated-bytes", "mem-max-allocated-bytes",
)  # fmt: skip


def make_cell(
    root: Path,
    case: str = MOE,
    *,
    hardware: str = "cpu",
    track: str = "dev",
    lost: str | None = None,
    golden: str | None = "exact",
    n: int = 100,
    metrics: tuple[str, ...] = METRICS,
    slower: float = 1.0,
) -> Made:
    """Make ``root/results/<hardware>/<track>/<case>`` and its golden.

    Args:
        lost: the component that the resumed run lost; None for a green cell.
        golden: ``exact``; ``tolerance``: recorded on another CPU; None: there is none.
    """
    k = n // 2
    steps = np.arange(1, n + 1, dtype=np.float64)
    continuous = {metric: values(metric, steps, slower=slower) for metric in metrics}
    resumed = {metric: line[k:].copy() for metric, line in continuous.items()}
    since = 0 if lost in ("experts", "weights") else 1
    if lost:
        ramp = np.maximum(0, np.arange(n - k) - since + 1)
        for metric, size in (("lm loss", 0.0035), ("grad-norm", 0.021), ("params-norm", 0.0009)):
            if metric in resumed:
                off = size * np.sqrt(ramp) * (1 + 0.2 * np.sin(ramp))
                resumed[metric] = (resumed[metric] + off).astype(np.float32).astype(np.float64)
    folder = root / "results" / hardware / track / case
    layout = {"layout": LAYOUTS.get(case, "TP1 PP1 VP1 DP1 EP1 ETP1")}
    for phase, lines, first in (("continuous", continuous, 1), ("resumed", resumed, k + 1)):
        write_events(folder / phase / "tensorboard", first, lines)
        (folder / phase / "provenance.json").write_text(json.dumps(_FINGERPRINT | layout))
        for rank in range(2):
            log = folder / phase / "logs" / f"rank-{rank}.log"
            log.parent.mkdir(exist_ok=True)
            log.write_text(f"rank {rank}\n")
    recorded = _golden(root, case, track, steps, metrics, golden, layout)
    made = Made(folder, _placeholder, recorded, ARGUMENTS.get(case, {}), k, n)
    checks = _checks(made, golden, n, k)
    state = _state(folder, lost, n)
    (folder / "state_diff.json").write_text(json.dumps(state.as_dict()))
    for component in ("embedding", "experts", "optimizer", "rng", "weights"):
        found = state.by_component().get(component, ())
        said = "; ".join(entry.sentence() for entry in found) or f"{component}: every bit is the same"
        checks.append(
            Check(f"state: {component}", None, "state", "exact", not found, n if found else None, None, said)
        )
    failed = any(not check.passed for check in checks)
    diagnosis = None
    if lost:
        diagnosis = Diagnosis(lost, (
            f"the first step after resuming that differs is {k + 1 + since}: "
            + ("what is used at once was lost" if not since else "what the update uses was lost"),
            *(entry.sentence() for entry in state.entries),
        ), entry=next((entry.name for entry in state.entries), ""))  # fmt: skip
    verdict = Verdict(
        cell=f"{hardware}/{track}/{case}",
        status="failed" if failed else "passed",
        checks=tuple(checks),
        diagnosis=diagnosis,
        timing={"continuous": 13.71 * slower, "continuous start-up": 2.31, "resumed": 8.02 * slower,
                "resumed start-up": 2.28, "checks": 0.31, "state": 0.52, "total": 24.9 * slower},
        provenance={
            "fingerprint": _FINGERPRINT | layout, "commit": "0" * 40,
            "golden": "golden.json: compared", "resumed_after": k,
        },
        reproduce=f"harness run test_cases/moe/{case} --hardware {hardware} --track {track} --protocol full",
    )  # fmt: skip
    verdict.write(folder / "verdict.json")
    return Made(folder, verdict, recorded, made.arguments, k, n)


_placeholder = Verdict("cpu/dev/none", "failed", (), None, {}, {}, "")


def _golden(
    root: Path,
    case: str,
    track: str,
    steps: Array,
    metrics: tuple[str, ...],
    kind: str | None,
    layout: dict[str, str],
) -> goldens.Golden | None:
    if kind is None:
        return None
    series = {}
    for metric in metrics:
        line = values(metric, steps)
        if kind == "tolerance" and about(metric).judged not in ("exact", "rate"):
            line = line * (
                1
                + 1e-7
                * 10 ** np.minimum(steps / 30, 3)
                * np.random.default_rng(7).standard_normal(steps.size)
            )
        first = 1 if metric == "iteration-time" else 0
        series[metric] = Series(metric, steps[first:].astype(np.int64), line[first:])
    fingerprint = _FINGERPRINT | layout
    if kind == "tolerance":
        fingerprint = fingerprint | {"device": "Another CPU @ 3.10GHz", "cpu_capability": "AVX512"}
    path = root / "goldens" / case / goldens.file_name(track, "cpu")
    path.parent.mkdir(parents=True, exist_ok=True)
    goldens.write(path, series, goldens.provenance_of(fingerprint, {"weights": "0" * 64}))
    return goldens.read(path)


def _checks(made: Made, kind: str | None, n: int, k: int) -> list[Check]:
    continuous, resumed = made.series("continuous"), made.series("resumed")
    if made.golden is None:
        found = [Check("golden: is there", None, "golden", "present", passed=False,
                       message="there is no golden for this cell")]  # fmt: skip
    else:
        found = compare_curves(
            made.golden.series,
            continuous,
            against="golden",
            lane="exact" if kind == "exact" else "tolerance",
            first=1,
            last=n,
            metrics=tuple(metric for metric in continuous if metric != "iteration-time"),
        )
    return found + compare_curves(
        continuous, resumed, against="continuous", lane="exact", first=k + 1, last=n
    )


def _state(folder: Path, lost: str | None, n: int) -> StateDiff:
    names = {
        "experts": [("model.decoder.layers.2.mlp.experts.linear_fc1.weight", (4, 7), 65536, 32768),
                    ("model.decoder.layers.2.mlp.experts.linear_fc2.weight", (4, 7), 65536, 32768)],
        "optimizer": [(f"optimizer.{moment}.decoder.layers.3.mlp.linear_fc1.weight", (0, 255), 16384, 16384)
                      for moment in ("exp_avg", "exp_avg_sq")],
        "rng": [("rng.cpu.0_1_0", (0, 5055), 5056, 2496)],
    }  # fmt: skip
    entries = tuple(
        TensorDiff(
            name,
            lost or "",
            "values",
            elements,
            differing,
            0.00341,
            0.021,
            (rows[0], 0),
            0.0121,
            0.0155,
            rows,
        )
        for name, rows, elements, differing in names.get(lost or "", [])
    )
    iteration = f"iter_{n:07d}"
    return StateDiff(
        str(folder / "checkpoints/continuous" / iteration), str(folder / "checkpoints/resumed" / iteration),
        entries, 143,
    )  # fmt: skip
