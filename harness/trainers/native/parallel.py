"""Who does what: the coordinates of a rank, and its communicators.

Rank order is Megatron-LM's: ``tp`` runs fastest, then ``dp``, then ``pp``; experts are laid over the
same ranks of a stage as ``etp``, ``ep``, ``edp``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.trainers.native.arguments import Arguments
from harness.trainers.native.comm.world import Group, Pipe, World


@dataclass(frozen=True)
class Layout:
    """Sizes of the parallel dimensions and the coordinates of one rank in them."""

    world: int
    rank: int
    tp: int
    pp: int
    dp: int
    ep: int
    etp: int
    edp: int
    vp: int

    @staticmethod
    def of(args: Arguments, rank: int) -> Layout:
        """The layout that the arguments ask for, seen from ``rank``."""
        tp, pp = args.tensor_model_parallel_size, args.pipeline_model_parallel_size
        dp = args.data_parallel_size
        ep = args.expert_model_parallel_size
        # Without experts their dimensions mirror the dense ones, so that no code needs a special case.
        etp = args.expert_tensor_parallel_size if args.num_experts else tp
        edp = tp * dp // (etp * ep)
        return Layout(args.world_size, rank, tp, pp, dp, ep, etp, edp, args.virtual_stages)

    @property
    def tp_rank(self) -> int:
        return self.rank % self.tp

    @property
    def dp_rank(self) -> int:
        return self.rank // self.tp % self.dp

    @property
    def pp_rank(self) -> int:
        return self.rank // (self.tp * self.dp)

    @property
    def etp_rank(self) -> int:
        return self.rank % self.etp

    @property
    def ep_rank(self) -> int:
        return self.rank // self.etp % self.ep

    @property
    def edp_rank(self) -> int:
        return self.rank // (self.etp * self.ep) % self.edp

    def stage_neighbour(self, offset: int) -> int:
        """Global rank with the same coordinates ``offset`` stages away, around the ring."""
        stage = self.tp * self.dp
        return (self.rank + offset * stage) % self.world

    def lines(self, fastest: int, size: int) -> list[tuple[int, ...]]:
        """All rank lists of a dimension of ``size`` whose neighbours are ``fastest`` ranks apart."""
        starts = [r for r in range(self.world) if r // fastest % size == 0]
        return [tuple(start + i * fastest for i in range(size)) for start in starts]


@dataclass(frozen=True)
class Parallel:
    """The communicators of one rank. ``embedding`` is None where a stage holds no tied weight."""

    layout: Layout
    world: Group
    tp: Group
    dp: Group
    ep: Group
    etp: Group
    edp: Group
    tp_ep: Group
    stages: Group
    embedding: Group | None
    pipe: Pipe


def make_parallel(layout: Layout, world: World) -> Parallel:
    """Create every communicator; collective, in the same order on every rank."""
    stage = layout.tp * layout.dp

    def mine(lists: Sequence[tuple[int, ...]]) -> Group:
        found: Group | None = None
        for ranks in lists:
            group = world.group(ranks)
            found = group or found
        if found is None:
            message = f"rank {layout.rank} is in none of {lists}"
            raise AssertionError(message)
        return found

    ends = [(r, r + (layout.pp - 1) * stage) for r in range(stage)]
    embedding = None
    if layout.pp > 1:
        for pair in ends:
            embedding = world.group(pair) or embedding
    return Parallel(
        layout=layout,
        world=mine([tuple(range(layout.world))]),
        tp=mine(layout.lines(1, layout.tp)),
        dp=mine(layout.lines(layout.tp, layout.dp)),
        ep=mine(layout.lines(layout.etp, layout.ep)),
        etp=mine(layout.lines(1, layout.etp)),
        edp=mine(layout.lines(layout.etp * layout.ep, layout.edp)),
        tp_ep=mine(layout.lines(1, layout.etp * layout.ep)),
        stages=mine(layout.lines(stage, layout.pp)),
        embedding=embedding,
        pipe=world.pipe(),
    )
