"""Collectives of one host: shared memory against gloo, in calls, in steps and in whole runs.

python -m benchmarks.bench_comm [--repeats 3] [--iterations 100] [--only calls|steps|beside|heart]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.rows import row, show
from harness.cases import find_case
from harness.launch.launcher import Launcher
from harness.metrics import read_metrics
from harness.trainers.base import Launch, Phase
from harness.trainers.native.adapter import NativeTrainer

ROOT = Path(__file__).parents[1]
HEART = "gpt3_moe_mcore_te_tp4_ep2_etp2_pp2_resume_torch_dist_dist_optimizer"
#: What makes many ranks of a case; without them it is the same model in one process.
_PARALLEL = (
    "--tensor-model-parallel-size",
    "--pipeline-model-parallel-size",
    "--expert-model-parallel-size",
    "--expert-tensor-parallel-size",
    "--sequence-parallel",
)
_BUSY = 7  # processes that the machine has to share with the ranks
_COUNTED = 10  # iterations alone, and as many beside them
_TRAINER = "harness.trainers.native.main:run"


def _run(launcher: Launcher, target: str, size: int, argv: list[str], folder: Path) -> float:
    """Seconds of one phase."""
    folder.mkdir(parents=True)
    launch = Launch(kind="fork", world_size=size, target=target, argv=tuple(argv))
    return launcher.run(launch, phase="continuous", folder=folder).seconds


def collectives(ranks: int, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds a call by collective and backend (``gloo``, ``shared``), 16 KiB a rank."""
    with Launcher() as launcher, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "run")
        _run(launcher, "benchmarks.comm_ranks:collectives", ranks, [str(repeats)], folder)
        found: dict[str, dict[str, list[float]]] = json.loads((folder / "seconds.json").read_text())
    return found


def _words(arguments: Mapping[str, object]) -> list[str]:
    out: list[str] = []
    for name, value in arguments.items():
        out += [name] if value is True else [name, str(value)]
    return out


def _dense(iterations: int) -> dict[str, object]:
    """The trainer's arguments of the dense model on TP4 × PP2."""
    from benchmarks.comm_ranks import MODEL, PP, TP

    return {
        **MODEL,
        "--tensor-model-parallel-size": TP,
        "--pipeline-model-parallel-size": PP,
        "--sequence-parallel": True,
        "--make-vocab-size-divisible-by": 32,
        "--max-position-embeddings": MODEL["--seq-length"],
        "--train-iters": iterations,
        "--eval-iters": 0,
    }


def steps(repeats: int, iterations: int) -> tuple[list[float], list[float]]:
    """Seconds a step of the dense model on TP4 × PP2: ours, and DTensor's on gloo. Medians of each run."""
    from benchmarks.comm_ranks import PP, TP

    ours: list[float] = []
    theirs: list[float] = []
    arguments = _dense(iterations)
    with Launcher() as one, Launcher() as other, tempfile.TemporaryDirectory() as scratch:
        for i in range(repeats):
            folder = Path(scratch, f"ours{i}")
            words = _words({**arguments, "--tensorboard-dir": folder / "tensorboard"})
            _run(one, _TRAINER, TP * PP, words, folder)
            seconds = read_metrics(folder / "tensorboard", folder)["iteration-time"].values
            ours.append(statistics.median(seconds[2:].tolist()))
            folder = Path(scratch, f"theirs{i}")
            _run(other, "benchmarks.comm_ranks:dtensor", TP * PP, [str(iterations // 3)], folder)
            theirs.append(statistics.median(json.loads((folder / "seconds.json").read_text())[2:]))
    return ours, theirs


def beside(repeats: int) -> tuple[list[float], list[float]]:
    """How many times as long a step of TP4 × PP2 takes beside busy processes: ours, and the same on gloo."""
    from benchmarks.comm_ranks import PP, TP

    found: dict[str, list[float]] = {"shared": [], "gloo": []}
    words = _words(_dense(2 * (_COUNTED + 2)))
    with Launcher() as launcher, tempfile.TemporaryDirectory() as scratch:
        for i in range(repeats):
            for comm, slowdowns in found.items():
                folder = Path(scratch, f"{comm}{i}")
                argv = [comm, str(_COUNTED), str(_BUSY), *words]
                _run(launcher, "benchmarks.comm_ranks:beside", TP * PP, argv, folder)
                seconds = json.loads((folder / "seconds.json").read_text())
                slowdowns.append(statistics.median(seconds["beside"]) / statistics.median(seconds["alone"]))
    return found["shared"], found["gloo"]


def heart(repeats: int, iterations: int) -> tuple[list[float], list[float]]:
    """Seconds of a whole phase of the MoE heart case: on its 8 ranks, and the same model in one process."""
    case = find_case(HEART, ROOT / "test_cases")
    both: dict[str, list[float]] = {"many": [], "one": []}
    with Launcher() as launcher, tempfile.TemporaryDirectory() as scratch:
        for i in range(-1, repeats):  # the first time is short, and warms the parent up
            stop = iterations if i >= 0 else min(2, iterations)
            for name, seconds in both.items():
                folder = Path(scratch, f"{name}{i}")
                phase = Phase("continuous", folder, folder / "save", None, 0, stop, iterations, 50)
                words = list(NativeTrainer(case, "cpu").launch(phase).argv)
                size = case.world_size("cpu") if name == "many" else 1
                took = _run(launcher, _TRAINER, size, words if size > 1 else _alone(words), folder)
                if i >= 0:
                    seconds.append(took)
    return both["many"], both["one"]


def _alone(words: list[str]) -> list[str]:
    out, skips = [], False
    for word in words:
        if word.startswith("--"):
            skips = word in _PARALLEL
        if not skips:
            out.append(word)
    return out


def rows(repeats: int = 3, iterations: int = 100, only: str = "") -> Iterator[dict[str, Any]]:
    """All rows, or those of one kind."""
    if only in ("", "calls"):
        for ranks in (2, 4, 8):
            for what, seconds in collectives(ranks, repeats).items():
                title = f"{what}, {ranks} ranks, 16 KiB a rank, against gloo (ms)"
                ours, theirs = ([s * 1e3 for s in seconds[name]] for name in ("shared", "gloo"))
                yield row(title, ours, theirs, "<= 1.0")
    if only in ("", "steps"):
        ours, theirs = steps(repeats, iterations)
        yield row("a step of TP4 x PP2, against DTensor on gloo (s)", ours, theirs, "<= 0.143")
    if only in ("", "beside"):
        ours, theirs = beside(repeats)
        title = f"slowdown of a step of TP4 x PP2 beside {_BUSY} busy processes, against gloo's"
        yield row(title, ours, theirs, "<= 2.0")
    if only in ("", "heart"):
        many, one = heart(repeats, iterations)
        title = f"{iterations} iterations of the MoE heart case, 8 ranks, against one process (s)"
        yield row(title, many, one, "<= 2.5")


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--only", choices=("calls", "steps", "beside", "heart"), default="")
    show(rows(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
