"""What an engine must answer: allocate, start one agent a node, lines in and out, why it ended, end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.trainers.base import Launch

#: By name: ``module:class``, which is imported when it is asked for; it is made of a :class:`Wanted`.
ENGINES: Final = {"local": "harness.engines.local:Local", "slurm": "harness.engines.slurm:Slurm"}
#: Options of Slurm's by which a job is found again, and which say what it is.
OURS: Final = ("-J", "--job-name", "--comment", "-a", "--array", "--no-shell", "-W", "--wait", "--parsable")
_MOST_NODES: Final = 10_000
_MOST_MINUTES: Final = 30 * 24 * 60


@dataclass(frozen=True)
class Where:
    """What a command line can say of where a cell runs.

    Args:
        engine: a key of :data:`harness.engines.ENGINES`.
        nodes: of each phase; None: as the case says.
        rotate: whether no rank is resumed on the node that it was saved on.
        new_job: whether each phase gets an allocation of its own.
        minutes: after which an allocation is ended, whatever runs in it.
        options: more words for the program that allocates.
    """

    engine: str = "local"
    nodes: int | None = None
    rotate: bool = True
    new_job: bool = False
    minutes: int = 60
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UsageError(f"--engine {self.engine}: expected {' or '.join(ENGINES)}")
        if self.nodes is not None and not 1 <= self.nodes <= _MOST_NODES:
            raise UsageError(f"--nodes {self.nodes}: expected 1 to {_MOST_NODES}")
        if not 1 <= self.minutes <= _MOST_MINUTES:
            raise UsageError(f"--time-limit {self.minutes}: expected minutes, 1 to {_MOST_MINUTES}")
        for one in self.options:
            if not one.startswith("-"):
                said = f"--slurm-option {one}: expected an option of salloc"
                raise UsageError(said, "as in --slurm-option=--partition=gpu")
            if one.startswith(OURS):
                raise UsageError(f"--slurm-option {one}: expected another option", "our jobs are found by it")
        given = [word.partition("=")[0] for word in self.words]
        if self.engine == "local" and given:
            raise UsageError(
                f"{given[0]}: found --engine local, expected slurm", "all ranks are on this machine"
            )

    @property
    def words(self) -> list[str]:
        """What a command line has to say again."""
        said = [] if self.engine == "local" else ["--engine", self.engine]
        said += [] if self.nodes is None else ["--nodes", str(self.nodes)]
        said += [] if self.rotate else ["--no-rotation"]
        said += ["--new-job-per-phase"] if self.new_job else []
        said += ["--time-limit", str(self.minutes)] if self.minutes != Where.minutes else []
        return said + [f"--slurm-option={one}" for one in self.options]


@dataclass(frozen=True)
class Wanted:
    """What a cell asks of an engine.

    Args:
        where: what was said.
        nodes: on how many of them each phase runs.
        ranks: of a phase, all together.
        hardware: on what.
        apart: so many phases, one after the other, must have other nodes: what any of them has left on a node
            could be found by the one that is resumed.
    """

    where: Where = field(default_factory=Where)
    nodes: int = 1
    ranks: int = 1
    hardware: str = "cpu"
    apart: int = 2


class Gone(Exception):
    """All agents of a phase have ended, and nobody has said that its work is done.

    Args:
        reason: what is known of it, in a few words; empty: nothing is.
        tail: the last lines that were said.
    """

    def __init__(self, reason: str, tail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.tail = reason, tail


class Agents(Protocol):
    """The agents of a phase, which have imported the trainer and wait to be asked."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """The nodes, in the order of their ranks; one empty name for this machine."""

    @property
    def silence(self) -> float:
        """Seconds without a word after which one of them counts as gone; 0: its end is always noticed."""

    @property
    def tail(self) -> str:
        """The last lines that they have said beside their answers."""

    def send(self, **message: Any) -> None:
        """Tell all of them; that they are gone shows when an answer is read."""

    def hear(self, seconds: float | None) -> tuple[int, dict[str, Any]] | None:
        """The next answer, and the place of who gave it; None: nothing was said for so long.

        Raises:
            Gone: there is nobody any more.
        """

    def about(self, node: int) -> str:
        """What the engine knows of a node that is silent, as a sentence; may be empty."""


class Engine(Protocol):
    """Starts agents. What it has started, it ends."""

    def agents(
        self, launch: Launch, phase: str, timeout: float, note: Callable[[str], object] | None = None
    ) -> Agents:
        """Those of a phase, on its nodes.

        Args:
            launch: what they are going to be asked for.
            phase: its name, for messages.
            timeout: seconds that importing may take.
            note: told what is waited for.

        Raises:
            TrainerFailed: they could not be started, or not import.
            NotAllocated: there are no such nodes.
            HardwareMissing: a node has not what it should.
            NotRun: it was taken away again.
        """

    def release(self, agents: Agents) -> None:
        """A phase has ended well: they are not needed for it any more."""

    def close(self) -> None:
        """End all that was started, wait for its end, and give back what was allocated."""

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of what the ranks ran on, each once; empty where this machine knows."""

    @property
    def provenance(self) -> dict[str, object]:
        """Where the phases ran; empty for this machine."""
