"""Reading and judging a store of goldens, against Pydantic models and a Python loop over the steps.

    python -m benchmarks.bench_goldens [--goldens 900] [--repeats 3] [--folder DIR] [--profile]

Makes a store of goldens of 100 to 10,000 steps, each with a run to judge, in a folder that is removed again.
Ours reads each golden by :mod:`harness.goldens` and compares exactly; theirs validates the same JSON into
Pydantic models and goes over the steps one by one, in the spirit of Megatron-LM's checks (the code is ours).
Both run in processes of their own, interleaved; peak memory is that above an idle process with the imports.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import row, show

METRICS = ("lm loss", "num-zeros", "mem-allocated-bytes", "mem-max-allocated-bytes", "iteration-time")
#: Goldens of each length, out of nine.
LENGTHS = (100, 100, 100, 100, 100, 100, 1_000, 1_000, 10_000)
GOAL = "<= 0.1"


def make(store: Path, count: int) -> None:
    """Write ``count`` goldens in Megatron-LM's format, values as floats print."""
    import numpy as np

    rng = np.random.default_rng(0)
    for number in range(count):
        length = LENGTHS[number % len(LENGTHS)]
        values = (2 + 8 / np.sqrt(np.arange(1, length + 1))).astype(np.float32)
        body = {
            metric: {
                "start_step": 1, "end_step": length, "step_interval": 1,
                "values": {
                    str(step): float(value)
                    for step, value in enumerate(values * np.float32(1 + rng.random()), start=1)
                },
            }
            for metric in METRICS
        }  # fmt: skip
        folder = store / f"case_{number:04d}"
        folder.mkdir(parents=True)
        (folder / "golden_values_dev_dgx_h100.json").write_text(json.dumps(body))


def ours(store: Path) -> int:
    """Read and judge every golden; returns how many passed. The run is the golden's own series."""
    from harness import goldens
    from harness.checks import compare_curves

    passed = 0
    for path in sorted(store.rglob("golden_values_*.json")):
        golden = goldens.read(path)
        last = int(next(iter(golden.series.values())).steps[-1])
        run = {name: _copy(series) for name, series in golden.series.items()}
        checks = compare_curves(golden.series, run, against="golden", lane="exact", first=1, last=last)
        passed += all(check.passed for check in checks)
    return passed


def _copy(series: Any) -> Any:  # noqa: ANN401 - numpy stays out of the other side's process
    from harness.metrics import Series

    return Series(series.name, series.steps.copy(), series.values.copy())


def theirs(store: Path) -> int:
    """The same with a model per metric, validated value by value, and a loop over the steps."""
    import pydantic

    class GoldenMetric(pydantic.BaseModel):
        start_step: int
        end_step: int
        step_interval: int
        values: dict[int, float | str]

    class GoldenValues(pydantic.RootModel[dict[str, GoldenMetric]]):
        pass

    passed = 0
    for path in sorted(store.rglob("golden_values_*.json")):
        with path.open() as file:
            golden = GoldenValues.model_validate(json.load(file))
        run = GoldenValues.model_validate({name: one.model_dump() for name, one in golden.root.items()})
        good = True
        for metric, expected in golden.root.items():
            actual = run.root[metric]
            failing = 0
            for step in range(expected.start_step, expected.end_step + 1, expected.step_interval):
                a = _number(expected.values.get(step, "nan"))
                b = _number(actual.values.get(step, "nan"))
                failing += round(a, 5) != round(b, 5) if math.isfinite(a) else math.isfinite(b)
            good &= not failing
        passed += good
    return passed


def _number(value: float | str) -> float:
    return math.inf if value == "nan" else float(value)


SIDES = {"ours": ours, "theirs": theirs}


def measure(side: str, store: Path) -> dict[str, float]:
    """In this process: seconds, and the peak of resident memory above what the imports take."""
    import numpy as np  # noqa: F401 - the yardstick is a process with the imports

    import harness.checks
    import harness.goldens  # noqa: F401

    if side == "theirs":
        import pydantic  # noqa: F401
    before = _resident("VmRSS")
    began = time.perf_counter()
    passed = SIDES[side](store)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "mb": (_resident("VmHWM") - before) / 1e6, "passed": passed}


def _resident(what: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {what}")


def _child(side: str, store: Path) -> Mapping[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_goldens", "--measure", side, str(store)],
        check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    found: Mapping[str, float] = json.loads(done.stdout)
    return found


def rows(folder: Path | None = None, count: int = 900, repeats: int = 3) -> Iterator[dict[str, Any]]:
    """The row of the table of speed claims; seconds a store, and the peak memory of each side in MB."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="bench-goldens-") as name:
        store = Path(name)
        make(store, count)
        found: dict[str, list[Mapping[str, float]]] = {side: [] for side in SIDES}
        for _ in range(repeats):
            for side in SIDES:
                found[side].append(_child(side, store))
        wrong = [side for side, runs in found.items() if any(run["passed"] != count for run in runs)]
        if wrong:
            raise SystemExit(f"{', '.join(wrong)}: not all of {count} goldens passed")
        what = f"read and judge {count} goldens of 100 to 10,000 steps, {len(METRICS)} metrics"
        seconds = {side: [run["seconds"] for run in runs] for side, runs in found.items()}
        memory = {f"{side} MB": round(_highest(runs)) for side, runs in found.items()}
        yield row(what, seconds["ours"], seconds["theirs"], GOAL) | memory


def _highest(runs: Sequence[Mapping[str, float]]) -> float:
    return max(run["mb"] for run in runs)


def main() -> None:
    """Print the row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--goldens", type=int, default=900)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the store is made")
    parser.add_argument("--profile", action="store_true", help="where our time goes, by cProfile")
    parser.add_argument("--measure", nargs=2, metavar=("SIDE", "STORE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], Path(args.measure[1]))))
        return
    if args.profile:
        with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-goldens-") as name:
            make(Path(name), args.goldens)
            ours(Path(name))  # imports, and the page cache
            cProfile.runctx("ours(store)", {"ours": ours, "store": Path(name)}, {}, sort="tottime")
        return
    show(rows(args.folder, args.goldens, args.repeats))


if __name__ == "__main__":
    main()
