"""Which nodes of an allocation a phase gets: never those that the one before had, rank by rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.engines.base import Agents, Wanted
from harness.engines.slurm import programs
from harness.engines.slurm.allocation import Allocation
from harness.engines.slurm.step import Step
from harness.errors import NotAllocated, UsageError
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
        self._turn = 0
        self._devices: set[str] = set()
        self._ran: dict[str, dict[str, Any]] = {}

    def agents(
        self, launch: Launch, phase: str, timeout: float, note: Callable[[str], object] | None = None
    ) -> Agents:
        """A step on the next nodes; as an Engine."""
        allocation = self._allocation = self._allocation or self._allocate(note)
        nodes = self._next(allocation)
        self._ran[phase] = {"job": allocation.job, "nodes": list(nodes)}
        gpus = 0 if self._wanted.hardware == "cpu" else self._wanted.ranks // self._wanted.nodes
        self._step = Step(allocation, nodes, launch, self._wanted.hardware, gpus)
        self._step.wait_ready(phase, timeout)
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

    def _next(self, allocation: Allocation) -> tuple[str, ...]:
        """The next in the round: with one node more than a phase has, each rank comes to its neighbour's."""
        hosts, count = allocation.hosts, self._wanted.nodes
        rotates = self._wanted.where.rotate and len(hosts) > count
        begin = self._turn if rotates else 0
        self._turn += 1
        return tuple(hosts[(begin + place) % len(hosts)] for place in range(count))
