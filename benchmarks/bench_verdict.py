"""A whole verdict of the MoE heart case on cpu, against Megatron-LM's way and against plain training.

python -m benchmarks.bench_verdict [--repeats 3]

Theirs, on the same trainer: torchrun 0→N, the tracker put back, torchrun k→N, each followed by the
extraction of its curves and a start of pytest, as separate processes. It is measured with the
trainer's own collectives (shared memory) and with gloo, which is what torch has on a CPU. The limit is
``benchmarks.limit``: one import, N iterations, two saves, one load.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.rows import row, show
from harness.cases import Case, find_case
from harness.trainers.base import Phase
from harness.trainers.native.adapter import NativeTrainer
from harness.trainers.rewind import rewind_folder

ROOT = Path(__file__).parents[1]
CASE = "gpt3_moe_mcore_te_tp4_ep2_etp2_pp2_resume_torch_dist_dist_optimizer"


def timed(words: list[str], **env: str) -> float:
    """Seconds of a command.

    Raises:
        SystemExit: it failed; with what it said.
    """
    began = time.monotonic()
    done = subprocess.run(words, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{words}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return took


def train(case: Case, folder: Path, load: Path | None, start: int, comm: str) -> float:
    """One torchrun of theirs."""
    n, k = case.train_iters("cpu"), case.resume_at("cpu")
    folder.mkdir()
    phase = Phase("resumed" if load else "continuous", folder, folder / "save", load, start, n, n, k)
    launch = NativeTrainer(case, "cpu").launch(phase)
    words = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc_per_node={launch.world_size}", str(ROOT / "benchmarks" / "their_way" / "train.py"),
        str(folder), *launch.argv,
    ]  # fmt: skip
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return timed(words, **{"HARNESS_COMM": comm, **threads, **launch.env})


def their_way(case: Case, folder: Path, comm: str) -> tuple[float, float]:
    """Seconds of the whole of it, and of its first training alone."""
    first, second = folder / f"first_{comm}", folder / f"second_{comm}"
    plain = train(case, first, None, 0, comm)
    began = time.monotonic()
    load = folder / f"load_{comm}"
    rewind_folder(first / "save", load, case.resume_at("cpu"))
    train(case, second, load, case.resume_at("cpu"), comm)
    scripts = ROOT / "benchmarks" / "their_way"
    for phase in (first, second):
        out = str(phase / "curves.json")
        timed([sys.executable, str(scripts / "extract.py"), str(phase / "tensorboard"), out])
    for phase in (first, second):
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        timed(
            [*pytest, str(scripts / "test_curves.py")],
            FIRST=str(first / "curves.json"),
            SECOND=str(phase / "curves.json"),
        )
    return plain + time.monotonic() - began, plain


def ours(protocol: str) -> tuple[float, float]:
    """Seconds of the session, its environment being ready; and those of its iterations alone."""
    env = {"NOX_CURRENT_SESSION": "", "CI": ""}
    took = timed(
        [sys.executable, "-m", "nox", "-R", "-s", f"case(cpu)(dev,{CASE})", "--", "--protocol", protocol],
        **env,
    )
    spent = json.loads((ROOT / "results" / "cpu" / "dev" / CASE / "verdict.json").read_text())["timing"]
    phases = [name for name in spent if f"{name} start-up" in spent]
    return took, sum(spent[name] - spent[f"{name} start-up"] for name in phases)


def rows(repeats: int = 3) -> Iterator[dict[str, Any]]:
    """The verdict against their way and against plain training, with either kind of collectives."""
    case = find_case(CASE, ROOT / "test_cases")
    timed([sys.executable, "-m", "nox", "--install-only", "-s", f"case(cpu)(dev,{CASE})"], CI="")
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as scratch:
            for key, protocol in (("ours", "fast"), ("full", "full")):
                whole, iterations = ours(protocol)
                found[key].append(whole)
                found[f"{key} iterations"].append(iterations)
            found["limit"].append(timed([sys.executable, "-m", "benchmarks.limit", CASE]))
            for comm in ("gloo", "shared"):
                whole, plain = their_way(case, Path(scratch), comm)
                found[comm].append(whole)
                found[f"{comm} 1"].append(plain)
    what = "verdict, MoE on cpu, protocol fast against full"
    yield row(f"{what}, start-up left out (s)", found["ours iterations"], found["full iterations"], "<= 0.75")
    yield row(f"{what} (s)", found["ours"], found["full"], "<= 0.75")
    limit = "the limit: one import, N iterations, two saves, one load"
    yield row(f"verdict, MoE on cpu, against {limit} (s)", found["ours"], found["limit"], "<= 1.3")
    for comm, words, way, once in (("gloo", "gloo", 0.15, 0.25), ("shared", "our collectives", 0.4, 1.0)):
        yield row(f"verdict, MoE on cpu, against Megatron-LM's way with {words} (s)",
                  found["ours"], found[comm], f"<= {way:g}")  # fmt: skip
        yield row(f"verdict, MoE on cpu, against one torchrun of N with {words} (s)",
                  found["ours"], found[f"{comm} 1"], f"<= {once:g}")  # fmt: skip


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    show(rows(parser.parse_args().repeats))


if __name__ == "__main__":
    main()
