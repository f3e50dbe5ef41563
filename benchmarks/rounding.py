"""How far another processor's rounding takes a training: what the tolerances between processors come from.

    python -m benchmarks.rounding [CASE …] [--precision fp32|bf16 …] [--keep FOLDER]

Trains each case as the portable setting does, and under each other setting that this machine can imitate.
A row is a metric: how far it came, at which step, and what share of the limit that is
(:mod:`harness.metrics.known`); how many settings were judged wrong; and of faults that were put
into the other setting's curve how many were caught. ``--keep`` leaves the curves in a folder, and takes from
there what it finds. Prints Markdown; ends with status 1 where a sound training failed or a fault passed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import yaml

from benchmarks.numerics import UNSET, Setting, curves
from harness.checks import compare_curves
from harness.checks.tolerance import scale, tolerance_of
from harness.matrix import cases_by_name
from harness.metrics import Series

ROOT = Path(__file__).parents[1]
PORTABLE = Setting("portable")
SETTINGS = (
    Setting("none", UNSET),
    Setting("ATen without vectors", {"ATEN_CPU_CAPABILITY": "default"}),
    Setting("MKL for AVX2", {"MKL_CBWR": "AVX2"}),
    Setting("oneDNN for SSE4.1", {"ONEDNN_MAX_CPU_ISA": "SSE41"}),
    Setting(
        "all three", {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    ),
)
METRICS = ("lm loss", "lm loss validation", "grad-norm", "params-norm", "load_balancing_loss")

Curves = Mapping[str, Series]


def trained(case: str, precision: str, setting: Setting, keep: Path) -> Curves:
    """The curves, trained or as they were kept."""
    name = "".join(c if c.isalnum() else "_" for c in f"{case} {precision} {setting.name}")
    path = keep / f"{name}.json"
    if not path.exists():
        found = curves(setting, str(_case(case, precision, keep)))
        about = {n: [line.steps.tolist(), line.values.tolist()] for n, line in found.items()}
        path.write_text(json.dumps(about))
    content = json.loads(path.read_text())
    return {name: Series.of(name, steps, values) for name, (steps, values) in content.items()}


def _case(case: str, precision: str, keep: Path) -> Path:
    """The case in another precision, in a folder of its own."""
    source = cases_by_name(ROOT / "test_cases")[case]
    folder = keep / precision / source.parent.name / case
    folder.mkdir(parents=True, exist_ok=True)
    content = yaml.safe_load((source / "model_config.yaml").read_text())
    content["HARNESS"]["profiles"]["cpu"]["--bf16"] = precision == "bf16"
    (folder / "model_config.yaml").write_text(yaml.safe_dump(content))
    return folder


# -- faults of a loss --------------------------------------------------------------------------


def _factor(size: float, after: int) -> Callable[[Series], Series]:
    def change(line: Series) -> Series:
        factors = np.where(np.arange(len(line)) >= after, 1 + size, 1.0)
        return Series(line.name, line.steps, line.values * factors)

    return change


def _moved(after: int) -> Callable[[Series], Series]:
    def change(line: Series) -> Series:
        values = line.values.copy()
        values[after:-1] = line.values[after + 1 :]
        return Series(line.name, line.steps, values)

    return change


FAULTS: dict[str, Callable[[Series], Series]] = {
    "0.1 % off": _factor(1e-3, 0),
    "0.1 % off after half": _factor(1e-3, 50),
    "moved by a step": _moved(0),
    "moved after half": _moved(50),
}

#: What cannot be told from the rounding of 16-bit floats: they wander by as much.
HIDDEN = {("0.1 % off after half", "bf16")}


def failures(expected: Curves, actual: Curves, precision: str) -> set[str]:
    """The metrics that fail by tolerance, the rounding being known; of those that rounding moves."""
    expected, actual = ({m: c[m] for m in METRICS if m in c} for c in (expected, actual))
    last = int(expected["lm loss"].steps[-1])
    checks = compare_curves(
        expected, actual, against="golden", lane="tolerance", first=1, last=last, rounding=precision
    )
    return {str(check.metric) for check in checks if not check.passed}


def rows(case: str, precision: str, keep: Path) -> tuple[list[str], int]:
    """Rows of the table, and how many verdicts were wrong."""
    portable = trained(case, precision, PORTABLE, keep)
    others = {setting.name: trained(case, precision, setting, keep) for setting in SETTINGS}
    found, wrong = [], 0
    for metric in METRICS:
        if metric not in portable:
            continue
        expected = portable[metric].values
        allowed = tolerance_of(metric, precision)
        size = scale(expected, allowed.least)
        off = {name: np.abs(run[metric].values - expected) / size for name, run in others.items()}
        worst = max(off, key=lambda name: float(off[name].max()))
        at = int(np.argmax(off[worst]))
        failed = [name for name, run in others.items() if metric in failures(portable, run, precision)]
        wrong += len(failed)
        said = "not tried"
        if metric == "lm loss":
            changed = {name: [{**run, metric: fault(run[metric])} for run in others.values()]
                       for name, fault in FAULTS.items()}  # fmt: skip
            caught = {name: sum(metric in failures(portable, run, precision) for run in runs)
                      for name, runs in changed.items()}  # fmt: skip
            wrong += sum(len(others) - caught[name] for name in FAULTS if (name, precision) not in HIDDEN)
            said = ", ".join(f"{name}: {count}" for name, count in caught.items())
        most = float(off[worst][at])
        found.append(
            f"| {case} | {precision} | {metric} | {most:.1e} | {portable[metric].steps[at]}, {worst} "
            f"| {most / allowed.cap:.1%} | {', '.join(failed) or 'none'} | {said} |"
        )
    return found, wrong


def main() -> int:
    """Print the table."""
    cases = sorted(cases_by_name(ROOT / "test_cases"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rounding", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", default=cases, help="default: all")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=("fp32", "bf16"))
    parser.add_argument("--keep", type=Path, help="a folder for the curves")
    arguments = parser.parse_args()
    print(
        f"| case | precision | metric | most apart | at step, under | of the limit | judged wrong "
        f"| faults of {len(SETTINGS)} caught |\n" + "|---" * 8 + "|"
    )
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        keep = arguments.keep or Path(folder)
        keep.mkdir(parents=True, exist_ok=True)
        for precision in arguments.precision:
            for case in arguments.cases:
                lines, bad = rows(case, precision, keep.absolute())
                wrong += bad
                print("\n".join(lines), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
