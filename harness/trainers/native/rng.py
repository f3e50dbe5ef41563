"""Random streams, by Megatron-LM's rule: one of its own inside tensor-parallel regions, a common one outside.

Seeds are Megatron-LM's: ``seed + 100·pp`` for what tensor-parallel ranks must draw alike, and
``seed + 2718 + 100·pp + tp`` for what they must draw apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.trainers.native.arguments import Arguments
from harness.trainers.native.parallel import Layout

COMMON = "common"
MODEL_PARALLEL = "model-parallel"


class Streams:
    """The generators of one rank, on its device; their states are part of a checkpoint."""

    def __init__(self, args: Arguments, layout: Layout, device: torch.device) -> None:
        base = args.seed + 100 * layout.pp_rank
        if args.data_parallel_random_init:
            base += 10 * layout.dp_rank
        self.generators = {
            COMMON: torch.Generator(device).manual_seed(base),
            MODEL_PARALLEL: torch.Generator(device).manual_seed(base + 2718 + layout.tp_rank),
        }

    def dropout(self, x: Tensor, p: float, stream: str) -> Tensor:
        """Zero elements with probability ``p``, scale the rest by ``1 / (1 - p)``. ``[…] → […]``."""
        if p == 0.0:
            return x
        keep = torch.empty_like(x, requires_grad=False)
        keep.bernoulli_(1.0 - p, generator=self.generators[stream])
        return x * keep.div_(1.0 - p)

    def state(self) -> dict[str, Tensor]:
        """Generator states by stream, as bytes (uint8, host memory)."""
        return {name: g.get_state() for name, g in self.generators.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up the streams where :meth:`state` left them."""
        for name, generator in self.generators.items():
            generator.set_state(state[name])
