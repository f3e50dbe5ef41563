"""Pipeline schedules: 1F1B and interleaved 1F1B, as an explicit list of actions for each rank.

Sends never wait and receives happen in the order in which the sender's schedule sends, so a
schedule that respects the data dependencies cannot deadlock. The orders are Megatron-LM's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.trainers.native.arguments import Arguments
from harness.trainers.native.comm.world import BACKWARD, FORWARD
from harness.trainers.native.parallel import Layout, Parallel
from harness.trainers.native.transformer import GPTChunk


@dataclass(frozen=True)
class Batch:
    """One micro-batch, int64."""

    tokens: Tensor  # [b, s]
    labels: Tensor  # [b, s]


@dataclass(frozen=True)
class Action:
    """Forward or backward of one micro-batch through one model chunk of this rank."""

    forward: bool
    chunk: int
    microbatch: int


def schedule(layout: Layout, microbatches: int) -> Iterator[Action]:
    """The actions of one training step on this rank, in order."""
    pp, vp = layout.pp, layout.vp
    total = microbatches * vp

    def action(forward: bool, i: int) -> Action:  # noqa: FBT001 - local
        block, within = divmod(i, pp * vp)
        chunk, offset = divmod(within, pp)
        return Action(forward, chunk if forward else vp - 1 - chunk, block * pp + offset)

    def plain(forward: bool, i: int) -> Action:  # noqa: FBT001 - local
        return Action(forward, 0, i)

    make = action if vp > 1 else plain
    warmup = pp - layout.pp_rank - 1
    if vp > 1:
        warmup = total if microbatches == pp else 2 * warmup + (vp - 1) * pp
    warmup = min(warmup, total)
    for i in range(warmup):
        yield make(True, i)  # noqa: FBT003 - local
    for i in range(total - warmup):
        yield make(True, warmup + i)  # noqa: FBT003 - local
        yield make(False, i)  # noqa: FBT003 - local
    for i in range(total - warmup, total):
        yield make(False, i)  # noqa: FBT003 - local


class Pipeline:
    """Runs micro-batches through this rank's chunks and exchanges activations with its neighbours."""

    def __init__(
        self,
        args: Arguments,
        parallel: Parallel,
        chunks: Sequence[GPTChunk],
        dtype: torch.dtype,
    ) -> None:
        layout = parallel.layout
        self.layout, self.pipe, self.chunks = layout, parallel.pipe, chunks
        self.dtype = dtype
        rows = args.seq_length // (layout.tp if args.sequence_parallel else 1)
        self.shape = (rows, args.micro_batch_size, args.hidden_size)  # of activations: [s(/tp), b, h]
        self.previous = layout.stage_neighbour(-1)
        self.next = layout.stage_neighbour(1)

    def _forward(self, chunk: GPTChunk, batch: Batch) -> tuple[Tensor, Tensor]:
        if chunk.first:
            x = batch.tokens  # [b, s]
        else:
            x = self.pipe.receive(self.shape, self.dtype, self.previous, FORWARD)  # [s(/tp), b, h]
            x.requires_grad_(torch.is_grad_enabled())
        y = chunk(x, batch.labels)  # [s(/tp), b, h] or [], the loss
        if not chunk.last:
            self.pipe.send(y.detach(), self.next, FORWARD)
        return x, y

    def train(self, batches: Sequence[Batch], scale: float) -> list[Tensor]:
        """Forward and backward of all micro-batches; gradients are left to the parameters' hooks.

        Args:
            scale: factor of each micro-batch's loss in the backward pass.

        Returns:
            The micro-batches' mean losses, ``[]`` each, on the last stage; empty elsewhere.
        """
        alive: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        losses: list[Tensor] = []
        for action in schedule(self.layout, len(batches)):
            chunk = self.chunks[action.chunk]
            key = (action.chunk, action.microbatch)
            if action.forward:
                alive[key] = self._forward(chunk, batches[action.microbatch])
                if chunk.last:
                    losses.append(alive[key][1].detach())
                continue
            x, y = alive.pop(key)
            if chunk.last:
                (y * scale).backward()
            else:
                grad = self.pipe.receive(self.shape, self.dtype, self.next, BACKWARD)  # [s(/tp), b, h]
                torch.autograd.backward(y, grad)
            if not chunk.first:
                assert x.grad is not None
                self.pipe.send(x.grad, self.previous, BACKWARD)
        self.pipe.flush()
        return losses

    def evaluate(self, batches: Sequence[Batch]) -> list[Tensor]:
        """Forward only, without dropout; losses on the last stage."""
        losses: list[Tensor] = []
        for chunk in self.chunks:
            chunk.eval()
        with torch.no_grad():
            for batch in batches:
                for chunk in self.chunks:
                    _, y = self._forward(chunk, batch)
                    if chunk.last:
                        losses.append(y)
        self.pipe.flush()
        for chunk in self.chunks:
            chunk.train()
        return losses
