"""Which nodes of an allocation a phase gets: never those that the one before had, rank by rank."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any

from harness.engines.base import Agents, Wanted
from harness.engines.slurm import programs
from harness.engines.slurm.allocation import Allocation
from harness.engines.slurm.step import Step
from harness.errors import NotAllocated, TrainerFailed, UsageError
from harness.trainers.base import Launch


class Slurm:
    """One allocation a cell, or a phase; a step a phase; one agent a node.

    Args:
        wanted: what the cell asks for.

    Raises:
        UsageError: Slurm is not here, or so many ranks do not fit on so many nodes.
    """

    def __init__(self, wanted: Wanted) -> None:
        programs.require()
        if wanted.ranks % wanted.nodes:
            raise UsageError(
                f"--nodes {wanted.nodes}: {wanted.ranks} ranks are not the same number on each of them",
                "take a number of nodes that divides the ranks",
            )
        self._wanted = wanted
        self._allocation: Allocation | None = None
        self._step: Step | None = None
        self._devices: set[str] = set()
        self._ran: dict[str, dict[str, Any]] = {}

    def agents(
        self, launch: Launch, phase: str, timeout: float, note: Callable[[str], object] | None = None
    ) -> Agents:
        """A step on the next nodes; as an Engine."""
        allocation = self._allocation = self._allocation or self._allocate(note)
        nodes = self._next(allocation, phase)
        self._ran[_unused(phase, self._ran)] = {"job": allocation.job, "nodes": list(nodes)}
        gpus = 0 if self._wanted.hardware == "cpu" else self._wanted.ranks // self._wanted.nodes
        self._step = Step(allocation, nodes, launch, self._wanted.hardware, gpus)
        try:
            self._step.wait_ready(phase, timeout)
        except TrainerFailed:
            self.release(self._step)
            raise
        self._devices |= self._step.devices
        return self._step

    def release(self, agents: object) -> None:  # noqa: ARG002 - there is one at a time
        """End the step: the next phase has other nodes."""
        step, self._step = self._step, None
        if step is not None:
            step.end()
        if self._wanted.where.new_job and self._allocation is not None and self._allocation.name:
            self._allocation.give_back()
            self._allocation = None

    def close(self) -> None:
        """End the step, and give back the allocation."""
        step, self._step = self._step, None
        allocation, self._allocation = self._allocation, None
        try:
            if step is not None:
                step.end()
        finally:
            if allocation is not None:
                allocation.give_back()

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of what the nodes have, each once."""
        return tuple(sorted(self._devices))

    @property
    def provenance(self) -> dict[str, object]:
        """Where the phases ran, and what kept them from coming back to where they had saved."""
        return {"engine": "slurm", "phases": self._ran, "moved": self._moved()}

    def _moved(self) -> str:
        """By what was, not by what was asked for."""
        runs = [(name, one["nodes"]) for name, one in self._ran.items()]
        back = [
            name
            for number, (name, nodes) in enumerate(runs)
            if any(
                here == there
                for _, before in runs[:number]
                for here, there in zip(nodes, before, strict=True)
            )
        ]
        apart = "each phase had a job of its own; " if self._wanted.where.new_job else ""
        if back:
            return f"{apart}ranks came back to nodes that they had been on, in {', '.join(back)}"
        return f"{apart}no rank came back to a node that it had been on"

    def _allocate(self, note: Callable[[str], object] | None) -> Allocation:
        wanted = self._wanted
        around = Allocation.around()
        if around is not None:
            if wanted.where.new_job:
                raise NotAllocated(
                    "--new-job-per-phase: found a job around this one", "start it on a login node"
                )
            if len(around.hosts) < wanted.nodes:
                raise NotAllocated(
                    f"--nodes {wanted.nodes}: job {around.job} has {len(around.hosts)}",
                    f"sbatch -N {wanted.nodes + 1}: one more than a phase has, for no rank to come back",
                )
            return around
        if not wanted.where.rotate or wanted.where.new_job:
            return Allocation.asked_for(wanted, wanted.nodes, note)
        return Allocation.asked_for(wanted, max(wanted.nodes + 1, wanted.apart), note)

    def _next(self, allocation: Allocation, phase: str) -> tuple[str, ...]:
        """The nodes of a phase: of all turns of the round, the one in which the fewest ranks come back.

        A repeat resumes nothing, and takes no node from the phases that do.
        """
        hosts, count = allocation.hosts, self._wanted.nodes
        turns = [
            tuple(hosts[(begin + place) % len(hosts)] for place in range(count))
            for begin in range(len(hosts))
        ]
        if not self._wanted.where.rotate or len(hosts) == count or phase.startswith("repeat"):
            return turns[0]
        before = [one["nodes"] for one in self._ran.values()]
        return min(turns, key=lambda nodes: sum(_shared(nodes, ran) for ran in before))


def _shared(nodes: Sequence[str], before: Sequence[str]) -> int:
    """How many places have the same node."""
    return sum(here == there for here, there in zip(nodes, before, strict=True))


def _unused(name: str, names: Container[str]) -> str:
    """The name, with a number where it is taken."""
    found, number = name, 2
    while found in names:
        found, number = f"{name} ({number})", number + 1
    return found
