"""Small real runs of the native trainer, through the real launcher."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.launch.launcher import Launcher
from harness.metrics import Series, read_metrics
from harness.trainers.base import Launch
from harness.trainers.rewind import rewind_folder

SMALL = {
    "--num-layers": 4,
    "--hidden-size": 32,
    "--num-attention-heads": 4,
    "--seq-length": 16,
    "--micro-batch-size": 1,
    "--global-batch-size": 4,
    "--vocab-size": 61,
    "--make-vocab-size-divisible-by": 1,
    "--data-path": "synthetic-700",
    "--split": "90,10,0",
    "--train-iters": 12,
    "--lr": 0.01,
    "--lr-decay-style": "cosine",
    "--lr-warmup-fraction": 0.2,
    "--log-params-norm": True,
    "--log-num-zeros-in-grad": True,
    "--eval-interval": 4,
    "--eval-iters": 1,
    "--save-interval": 6,
}
#: What differs between two runs of the same bits.
MEASURED = {"iteration-time", "mem-allocated-bytes", "mem-max-allocated-bytes"}


@dataclass(frozen=True)
class Run:
    """A finished run: its series without measurements, its checkpoints, its provenance."""

    folder: Path
    series: dict[str, Series]

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def provenance(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.folder / "provenance.json").read_text())
        return found

    def values(self, metric: str) -> list[float]:
        return [float(value) for value in self.series[metric].values]


class Trains:
    """Starts runs; every argument is Megatron-LM's."""

    def __init__(self, root: Path, launcher: Launcher) -> None:
        self.root, self.launcher, self.count = root, launcher, 0

    def __call__(
        self, world_size: int, *, load: Path | None = None, target: str = "", **extra: object
    ) -> Run:
        self.count += 1
        folder = self.root / f"run{self.count}"
        folder.mkdir()
        flags = {"--" + name.replace("_", "-"): value for name, value in extra.items()}
        arguments = {
            **SMALL,
            "--save": folder / "checkpoints",
            "--tensorboard-dir": folder / "tensorboard",
            **({"--load": load} if load else {}),
            **flags,
        }
        argv: list[str] = []
        for key, value in arguments.items():
            if value is not False:
                argv += [key] if value is True else [key, *str(value).split()]
        launch = Launch(
            kind="fork",
            world_size=world_size,
            argv=tuple(argv),
            target=target or "harness.trainers.native.main:run",
        )
        self.launcher.run(launch, phase="continuous", folder=folder)
        series = read_metrics(folder / "tensorboard", folder)
        return Run(folder, {k: v for k, v in series.items() if k not in MEASURED})

    def rewound(self, run: Run, k: int) -> Path:
        """A folder as a run stopped at ``k`` would have left it."""
        self.count += 1
        target = run.folder / f"rewound{k}_{self.count}"
        rewind_folder(run.checkpoints, target, k)
        return target


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """One warm parent for all runs of a test process."""
    with Launcher() as one:
        yield one


@pytest.fixture
def train(tmp_path: Path, launcher: Launcher) -> Trains:
    """Train in real processes: ``train(world_size, bf16=True, …)``."""
    return Trains(tmp_path, launcher)


Train = Callable[..., Run]
