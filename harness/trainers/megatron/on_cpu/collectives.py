"""Collectives: gloo in the place of NCCL."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from harness.trainers.megatron.on_cpu.table import Row

_NOT_GLOOS = ("backend", "device_id", "pg_options")


def _first_group(init: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(init)
    def init_process_group(_backend: Any = None, *args: Any, **more: Any) -> None:
        init("gloo", *args, **_plain(more))

    return init_process_group


def _group(new_group: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(new_group)
    def made(ranks: Any = None, timeout: Any = None, *_backend_and_options: Any, **more: Any) -> Any:
        return new_group(ranks, timeout, "gloo", **_plain(more))

    return made


def _plain(more: dict[str, Any]) -> dict[str, Any]:
    """Without what only NCCL and a GPU know."""
    return {name: one for name, one in more.items() if name not in _NOT_GLOOS}


def _barrier(barrier: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(barrier)
    def waited(*args: Any, device_ids: Any = None, **more: Any) -> Any:  # noqa: ARG001
        return barrier(*args, **more)

    return waited


def _plain_sizes(one: Any) -> Any:
    return one.tolist() if isinstance(one, torch.Tensor) else one


def _to_all_single(single: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(single)
    def all_to_all_single(output: Any, input: Any, *sizes: Any, **more: Any) -> Any:  # noqa: A002
        return single(
            output, input, *map(_plain_sizes, sizes), **{k: _plain_sizes(v) for k, v in more.items()}
        )

    return all_to_all_single


def _all_to_all(_: object) -> Callable[..., Any]:
    def all_to_all(
        output_tensor_list: list[torch.Tensor],
        input_tensor_list: list[torch.Tensor],
        group: Any = None,
        async_op: bool = False,  # noqa: ARG001 - it has been done by then
    ) -> None:
        here = dist.get_rank(group)
        output_tensor_list[here].copy_(input_tensor_list[here])
        exchanged = []
        for peer in range(dist.get_world_size(group)):
            if peer != here:
                other = _globally(peer, group)
                exchanged += [
                    dist.P2POp(dist.isend, input_tensor_list[peer].contiguous(), other, group),
                    dist.P2POp(dist.irecv, output_tensor_list[peer], other, group),
                ]
        for work in dist.batch_isend_irecv(exchanged) if exchanged else ():
            work.wait()

    return all_to_all


def _even(tensors: Sequence[torch.Tensor]) -> bool:
    return len({one.shape for one in tensors}) < 2


def _gathered(all_gather: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(all_gather)
    def gathered(
        outs: list[torch.Tensor], mine: torch.Tensor, group: Any = None, async_op: bool = False
    ) -> Any:
        if _even(outs):
            return all_gather(outs, mine, group=group, async_op=async_op)
        outs[dist.get_rank(group)].copy_(mine)
        for peer, out in enumerate(outs):
            if out.numel():
                dist.broadcast(out, _globally(peer, group), group=group)
        return None

    return gathered


def _scattered(reduce_scatter: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(reduce_scatter)
    def scattered(
        output: torch.Tensor, ins: list[torch.Tensor], op: Any = dist.ReduceOp.SUM,
        group: Any = None, **more: Any,
    ) -> Any:  # fmt: skip
        if _even(ins):
            return reduce_scatter(output, ins, op=op, group=group, **more)
        for peer, one in enumerate(ins):
            if one.numel():
                part = one.clone(memory_format=torch.contiguous_format)
                dist.reduce(part, _globally(peer, group), op=op, group=group)
                if peer == dist.get_rank(group):
                    output.copy_(part)
        return None

    return scattered


def _globally(rank: int, group: Any) -> int:
    return dist.get_global_rank(group, rank) if group else rank


@functools.cache  # torch compares isend with itself, and has it by two names
def _from_a_copy(isend: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(isend)
    def sent(tensor: torch.Tensor, *args: Any, **more: Any) -> Any:
        return isend(tensor.detach().clone(), *args, **more)

    return sent


ROWS = (
    Row("torch.distributed.init_process_group", "gloo is what works between CPUs", _first_group),
    Row("torch.distributed.new_group torch.distributed.distributed_c10d.new_group", "likewise", _group),
    Row(
        "torch.distributed.all_gather",
        "gloo wants tensors of one size; experts get as many tokens as they get: broadcast one by one, as "
        "NCCL does it",
        _gathered,
    ),
    Row("torch.distributed.reduce_scatter", "likewise: reduced one by one", _scattered),
    Row(
        "torch.distributed.isend torch.distributed.distributed_c10d.isend",
        "a pipeline gives up the memory of what it sends at once: a GPU's is kept until the stream has come "
        "past it, and gloo reads it when it can",
        _from_a_copy,
    ),
    Row("torch.distributed.barrier", "device_ids is NCCL's", _barrier),
    Row(
        "torch.distributed.all_to_all_single",
        "sizes that Megatron-LM brings from the device are tensors here; gloo wants numbers",
        _to_all_single,
    ),
    Row("torch.distributed.all_to_all", "gloo has none of lists: sent and received one by one", _all_to_all),
)
