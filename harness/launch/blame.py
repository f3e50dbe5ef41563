"""What several nodes say of the failure of one phase, gathered until it is clear where it began.

A broken connection tells of a peer that has gone, and a wait that never ends of one that is silent: so nobody
is blamed before all have answered, or are known to be gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

#: How an agent suspects its own rank (``suspicion`` of its answer): it was killed, or raised something of its
#: own; a peer's end may be behind it; of a phase that hangs, it waits for nobody, or for others; it was well.
KILLED, OWN, MIXED, PEER, HANGS, WAITS, WELL = range(7)
#: Seconds between two signs of life of a harness or an agent.
BEAT: Final = 5.0


@dataclass(frozen=True)
class Found:
    """How a phase of several nodes has failed.

    Args:
        answer: the agent's, of where it began; None: a node is gone.
        node: which.
        others: the answers of the other nodes, by node, that tell of a failure too.
    """

    node: int
    answer: dict[str, Any] | None
    others: dict[int, dict[str, Any]] = field(default_factory=dict)


class Failures:
    """Of one phase.

    Args:
        count: nodes.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._answers: dict[int, dict[str, Any]] = {}
        self._when: dict[int, float] = {}
        self._gone: dict[int, float] = {}
        self._done: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._answers or self._gone)

    def add(self, node: int, answer: dict[str, Any], now: float) -> None:
        """An agent has said how its ranks failed, or that they were well until they were ended."""
        if node not in self._answers:
            self._answers[node] = answer
            self._when[node] = now - float(answer.get("ago", 0.0))

    def gone(self, node: int, now: float) -> None:
        """A node is silent, and none that has said all that it had to."""
        self._gone.setdefault(node, now)

    def done(self, node: int) -> None:
        """Its ranks had returned before."""
        self._done.add(node)

    def waits_for(self, node: int) -> bool:
        """Whether nothing has been heard of a node that decides."""
        return node not in self._answers and node not in self._gone and node not in self._done

    def decided(self) -> bool:
        """Whether no further answer would change whom to blame."""
        if any(answer.get("suspicion", OWN) == KILLED for answer in self._answers.values()):
            return True
        return bool(self) and not any(self.waits_for(node) for node in range(self._count))

    def certain(self) -> bool:
        """Whether one has failed of itself, and not only been told of another's end."""
        return any(one.get("suspicion", OWN) in (KILLED, OWN, HANGS) for one in self._answers.values())

    def blame(self) -> Found:
        """Where it began: a node that is gone, else the rank that least likely tells of another's end."""
        told = {node: one for node, one in self._answers.items() if one.get("suspicion", OWN) < WELL}
        # Whose last word came after a rank had failed of itself was there when that happened.
        lost = min(self._gone.values(), default=0.0)
        before = any(
            one.get("suspicion", OWN) == KILLED
            or (one.get("suspicion", OWN) == OWN and self._when[node] < lost)
            for node, one in told.items()
        )
        if self._gone and not before:
            first = min(self._gone, key=lambda node: (self._gone[node], node))
            return Found(first, None, told)
        first = min(told, key=self._order)
        return Found(first, told[first], {node: one for node, one in told.items() if node != first})

    def _order(self, node: int) -> tuple[float, ...]:
        answer = self._answers[node]
        suspicion = answer.get("suspicion", OWN)
        # Of those that hang, who is behind is waited for.
        behind = answer.get("iteration", 0) if suspicion in (HANGS, WAITS) else 0
        return (suspicion, behind, self._when[node], node)
