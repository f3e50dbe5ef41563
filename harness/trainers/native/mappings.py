"""Collectives that autograd understands; each names its forward, and its backward is the adjoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.trainers.native.comm.world import Group

# autograd passes its context untyped
Context = Any


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.group.all_reduce(grad), None


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, group: Group) -> Tensor:  # noqa: ARG004 - autograd's signature
        return group.all_reduce(x)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004 - autograd's signature
        return grad, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return group.all_gather(x)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.group.reduce_scatter(grad), None


class _ReduceScatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return group.reduce_scatter(x)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.group.all_gather(grad), None


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.chunk(group.size)[group.rank].contiguous()

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.group.all_gather(grad), None


class _AllToAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, group: Group, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        ctx.group, ctx.send, ctx.receive = group, send, receive
        return group.all_to_all(x, send, receive)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None, None, None]:
        back = ctx.group.all_to_all(grad.contiguous(), ctx.receive, ctx.send)
        return back, None, None, None


class _GatherUneven(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, group: Group, counts: Sequence[int]) -> Tensor:
        ctx.group, ctx.counts = group, counts
        return group.all_gather_uneven(x, counts)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.group.reduce_scatter_uneven(grad, ctx.counts), None, None


class _ReduceScatterUneven(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, group: Group, counts: Sequence[int]) -> Tensor:
        ctx.group, ctx.counts = group, counts
        return group.reduce_scatter_uneven(x, counts)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.group.all_gather_uneven(grad, ctx.counts), None, None


def copy_to(x: Tensor, group: Group) -> Tensor:
    """Identity; the gradient is summed over the group. ``[…] → […]``."""
    return x if group.size == 1 else _Copy.apply(x, group)


def reduce_from(x: Tensor, group: Group) -> Tensor:
    """Sum over the group; the gradient passes unchanged. ``[…] → […]``."""
    return x if group.size == 1 else _Reduce.apply(x, group)


def gather_rows(x: Tensor, group: Group) -> Tensor:
    """All members' rows. ``[n, …] → [g*n, …]``; the gradient is reduce-scattered."""
    return x if group.size == 1 else _Gather.apply(x, group)


def reduce_scatter_rows(x: Tensor, group: Group) -> Tensor:
    """This member's share of the sum. ``[g*n, …] → [n, …]``; the gradient is gathered."""
    return x if group.size == 1 else _ReduceScatter.apply(x, group)


def into_tensor_parallel(x: Tensor, tp: Group, *, sequence_parallel: bool) -> Tensor:
    """What every rank of TP needs whole, before its share of the work. ``[s(/tp), b, i] → [s, b, i]``."""
    return gather_rows(x, tp) if sequence_parallel else copy_to(x, tp)


def out_of_tensor_parallel(x: Tensor, tp: Group, *, sequence_parallel: bool) -> Tensor:
    """The sum of all shares of the work, or this rank's rows of it. ``[s, b, o] → [s(/tp), b, o]``."""
    return reduce_scatter_rows(x, tp) if sequence_parallel else reduce_from(x, tp)


def split_rows(x: Tensor, group: Group) -> Tensor:
    """This member's share of what all members hold. ``[g*n, …] → [n, …]``; the gradient is gathered."""
    return x if group.size == 1 else _Split.apply(x, group)


def all_to_all(x: Tensor, group: Group, send: Sequence[int], receive: Sequence[int]) -> Tensor:
    """Rows exchanged by counts: ``[sum(send), …] → [sum(receive), …]``; the gradient takes the way back."""
    return x if group.size == 1 else _AllToAll.apply(x, group, send, receive)


def gather_uneven(x: Tensor, group: Group, counts: Sequence[int]) -> Tensor:
    """Rows of all members, ``counts[i]`` from member ``i``: ``[n, …] → [sum(counts), …]``.

    The gradient is reduce-scattered.
    """
    return x if group.size == 1 else _GatherUneven.apply(x, group, counts)


def reduce_scatter_uneven(x: Tensor, group: Group, counts: Sequence[int]) -> Tensor:
    """Inverse of :func:`gather_uneven`, summed: ``[sum(counts), …] → [n, …]``; the gradient is gathered."""
    return x if group.size == 1 else _ReduceScatterUneven.apply(x, group, counts)
