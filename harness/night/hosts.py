"""Which machine is to be suspected: where it is red, and nowhere else."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harness.text import count, one_line

if TYPE_CHECKING:
    from harness.night.outcome import Outcome

#: A single red cell says nothing of its machine.
_FEWEST: Final = 2
#: How probable it may be that chance alone brought all red cells to one machine: 2 of 3 cells red on one, and
#: none of 1 elsewhere (a half), says nothing.
_CHANCE: Final = 0.2


@dataclass(frozen=True)
class Seat:
    """Where a cell ran, and what came of it; a few words of what may be a long verdict.

    Args:
        hardware: its kind.
        hosts: the machines that it ran on.
        red: whether it was red; a cell that was not run, or has not ended, has no seat.
    """

    hardware: str
    hosts: frozenset[str]
    red: bool


def seat(outcome: Outcome) -> Seat | None:
    """That of a cell; None where nobody knows, and for one that was not run."""
    verdict = outcome.verdict
    if verdict is None or outcome.state == "skipped":
        return None
    found = _hosts(verdict.provenance)
    return Seat(outcome.cell.hardware, found, outcome.red) if found else None


def _hosts(provenance: Mapping[str, Any]) -> frozenset[str]:
    """The nodes of its phases, where it had some; else the machine that its verdict was written on."""
    nodes = provenance.get("nodes")
    phases = nodes.get("phases") if isinstance(nodes, dict) else None
    found: set[str] = set()
    for phase in phases.values() if isinstance(phases, dict) else ():
        names = phase.get("nodes") if isinstance(phase, dict) else None
        found |= {_short(str(name)) for name in names if name} if isinstance(names, list) else set()
    host = provenance.get("host")
    return frozenset(found or ({_short(host)} if isinstance(host, str) and host else ()))


def _short(host: str) -> str:
    """Without its domain: a machine may call itself by all of its name, and Slurm by the first word."""
    first = host.partition(".")[0]
    return host if first.isdigit() else first  # an address


def suspects(seats: Iterable[Seat]) -> list[str]:
    """A sentence for each machine that all red cells of a kind of hardware were on, and others were not.

    Those that several machines could be blamed for alike, as the cells of many nodes, name each of them.
    """
    kinds: dict[str, list[Seat]] = defaultdict(list)
    for one in seats:
        kinds[one.hardware].append(one)
    said = []
    for hardware, cells in kinds.items():
        red = [one for one in cells if one.red]
        if len(red) < _FEWEST:
            continue
        for host in sorted(frozenset.intersection(*(one.hosts for one in red))):
            here = sum(host in one.hosts for one in cells)
            elsewhere = len(cells) - here
            # Of all ways in which so many of the cells can be red, those with all of them here.
            if elsewhere and math.comb(here, len(red)) <= _CHANCE * math.comb(len(cells), len(red)):
                said.append(
                    f"{one_line(host)}: {len(red)} of {count(here, 'cell')} red, 0 of {elsewhere} elsewhere "
                    f"({hardware}): suspect the machine before the code"
                )
    return said
