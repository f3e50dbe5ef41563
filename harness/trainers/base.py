"""What a trainer must answer: can it run this, how is a phase started, how is it put back to k."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from harness.repository import root_of

if TYPE_CHECKING:
    from harness.cases import Case
    from harness.checkpoints.rules import Rule
    from harness.trainers.killed import Left, Saving

PhaseName = Literal["continuous", "repeat", "interrupted", "resumed", "probe", "replicas"]


@dataclass(frozen=True)
class Phase:
    """One launch of a trainer, from iteration ``start`` to iteration ``stop``.

    Args:
        name: what the phase is for; ``probe`` loads a checkpoint and saves it at once, ``repeat`` is one
            more ``continuous``, ``replicas`` looks whether all replicas have loaded the same weights.
        folder: the phase's own folder (``OUTPUT_PATH``); logs and event files go below it.
        save: the folder that gets the checkpoints.
        load: the folder to load from; None for a phase that starts at 0.
        start: the iteration that the loaded checkpoint was saved after; 0 without one.
        stop: the iteration after which this phase saves and ends.
        train_iters: N, what the learning-rate schedule sees in every phase.
        save_interval: iterations between two checkpoints.
    """

    name: PhaseName
    folder: Path
    save: Path
    load: Path | None
    start: int
    stop: int
    train_iters: int
    save_interval: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop <= self.train_iters:
            raise ValueError(f"a phase from {self.start} to {self.stop} of {self.train_iters}")

    @property
    def tensorboard(self) -> Path:
        """Where this phase's event files go."""
        return self.folder / "tensorboard"


@dataclass(frozen=True)
class Launch:
    """How a phase is started.

    Args:
        kind: ``fork``: ``target`` is called in ``world_size`` processes forked after one import;
            ``exec``: ``argv`` is executed once, and starts whatever it wants itself.
        world_size: number of ranks.
        target: ``package.module:function`` (fork only).
        argv: the trainer's arguments (fork) or the whole command line (exec).
        env: variables set on top of this process's own, before anything is imported.
        cwd: the folder to start in; None keeps the present one.
        notes: what a person should know of it, a sentence each; said once a cell.
        python: of another environment, which has the harness too; empty: this process's own.
    """

    kind: Literal["fork", "exec"]
    world_size: int
    argv: tuple[str, ...]
    target: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    notes: tuple[str, ...] = ()
    python: str = ""

    def __post_init__(self) -> None:
        if self.world_size < 1:
            raise ValueError(f"a launch of {self.world_size} ranks")
        if self.kind == "fork" and ":" not in self.target:
            raise ValueError(f"target {self.target!r} is not package.module:function")
        if self.kind == "exec" and not self.argv:
            raise ValueError("nothing to execute")

    def under(self, python: str) -> Launch:
        """The same in another environment: by its Python, and with its programs first on PATH."""
        path = self.env.get("PATH", os.environ.get("PATH", os.defpath))
        env = {**self.env, "PATH": f"{Path(python).parent}{os.pathsep}{path}"}
        argv = tuple(python if word == sys.executable else word for word in self.argv)
        return replace(self, argv=argv, env=env, python=python)


class Trainer(Protocol):
    """What the protocol asks of anything that trains: one case on one kind of hardware.

    Made as ``Class(case, hardware)``, by the table in :mod:`harness.trainers`.
    """

    name: ClassVar[str]
    #: Whether a finished run's checkpoint folder can be put back to an earlier iteration.
    can_rewind: ClassVar[bool]
    #: Whether it can be asked to load a checkpoint and save it at once, without a step.
    can_probe: ClassVar[bool]
    #: Of a checkpoint that was loaded and saved at once, what is no state either.
    probed: ClassVar[tuple[Rule, ...]]
    #: Part of what the exception says that ends a phase ``replicas`` where their weights are not the same.
    unlike: ClassVar[str]

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What of its checkpoints is no state, each with the reason."""

    @property
    def case(self) -> Case:
        """What is trained."""

    @property
    def hardware(self) -> str:
        """On what."""

    def check(self) -> None:
        """Refuse what cannot be run, before anything is started.

        Raises:
            CaseError: an argument that the trainer does not know, sizes that do not factor.
            UsageError: something that the trainer needs is not here.
        """

    @property
    def resumes(self) -> bool:
        """Whether the case is resumed at all; if not, it is one phase, compared with its golden."""

    @property
    def world_size(self) -> int:
        """Ranks of every phase; on a GPU platform, one a GPU."""

    @property
    def replicas(self) -> int:
        """Processes that hold the same weights, of which its checkpoints have one; 0: nobody can ask them.

        Above 0, a checkpoint holds all that decides a step, but the loaders themselves.
        """

    @property
    def unasked(self) -> bool:
        """Whether there are more copies of weights in no checkpoint than a phase ``replicas`` looks at."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What whoever reads the verdict must know of what it was run on, a sentence each."""

    @property
    def measures(self) -> bool:
        """Whether its times and its memory say anything of the hardware; else they are not judged."""

    @property
    def ends_itself(self) -> bool:
        """Whether it stops where it is told; if not, it is ended there, with what it has in its buffers."""

    def launch(self, phase: Phase) -> Launch:
        """Say how ``phase`` is started."""

    def rewind(self, source: Phase, target: Path, k: int) -> None:
        """Fill ``target`` with what ``source`` would have left, had it stopped at iteration ``k``.

        What ``source`` saved stays untouched; the state at N is compared with it later.
        """

    def kept(self, phase: Phase) -> tuple[int, ...]:
        """Iterations that a phase has left all of, so that its folder can be put back to them; ascending."""

    def saved(self, phase: Phase, iteration: int, *, alone: bool = False) -> Path:
        """Where ``phase`` put the checkpoint of ``iteration``.

        Args:
            alone: without what is the last checkpoint's only because every one overwrites it.

        Raises:
            CheckpointError: there is none (a trainer may also leave that to whoever reads it).
        """

    def saved_until(
        self, folder: Path, k: int, *, after: Path | None = None
    ) -> frozenset[tuple[str, int, int]]:
        """Name, size and time of the files of all checkpoints of ``k`` and before, in a folder of a phase.

        What a phase that goes on after k adds to them, it has trained again.

        Args:
            after: the folder that the phase went on from, whose names may tell what those in ``folder`` mean.
        """

    def take_over(self, source: Phase, target: Path) -> None:
        """Fill ``target`` with what ``source`` had left when it was killed, as it stands there."""

    def left(self, phase: Phase, like: Phase) -> Left:
        """What ``phase`` has left, which was killed.

        Args:
            like: the same, uninterrupted.
        """

    def saved_before(self, phase: Phase, iteration: int, like: Phase) -> Path:
        """Where ``phase`` put the checkpoint of an iteration, however far it came; arguments as above.

        Raises:
            CheckpointError: there is none (or whoever reads it says so).
        """

    def saving(self, phase: Phase, like: Phase) -> Saving:
        """What ``phase`` saves into, to be looked at while it runs; arguments as above."""

    def code(self) -> Path:
        """A folder of the code under test, whose commit a verdict names."""

    def provenance(self, phase: Phase) -> dict[str, object]:
        """What is known of how ``phase`` ran, as far as it decides the bits; flat."""


def placeholders(case: Case, phase: Phase) -> Mapping[str, str]:
    """What ``${NAME}`` stands for in a case's arguments, in this phase."""
    return {
        "REPOSITORY": str(root_of(case.directory)),
        "TENSORBOARD_PATH": str(phase.tensorboard),
        "CHECKPOINT_SAVE_PATH": str(phase.save),
        # A run from 0 looks for a checkpoint where it saves, as in Megatron-LM, and finds none.
        "CHECKPOINT_LOAD_PATH": str(phase.load or phase.save),
        "DATA_PATH": os.environ.get("DATA_PATH", str(phase.folder / "data")),
        "DATA_CACHE_PATH": os.environ.get("DATA_CACHE_PATH", str(phase.folder / "data_cache")),
        "OUTPUT_PATH": str(phase.folder),
        "TRAIN_ITERS": str(phase.train_iters),
        "SAVE_INTERVAL": str(phase.save_interval),
        "EXIT_ITERS": str(phase.stop),
    }
