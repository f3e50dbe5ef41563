"""Ranks of :mod:`benchmarks.bench_comm`: single collectives, and a GPT on DTensor and torch's pipelining."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from harness.trainers.native import main as native
from harness.trainers.native.comm.shared_world import SharedWorld
from harness.trainers.native.comm.torch_world import TorchWorld
from harness.trainers.native.comm.world import Group, World

#: The dense model that both sides train; Megatron-LM's names.
MODEL = {
    "--num-layers": 4,
    "--hidden-size": 64,
    "--num-attention-heads": 8,
    "--seq-length": 64,
    "--vocab-size": 256,
    "--micro-batch-size": 2,
    "--global-batch-size": 4,
    "--attention-dropout": 0.1,
    "--hidden-dropout": 0.1,
    "--lr": 0.003,
    "--clip-grad": 1.0,
}
TP, PP = 4, 2
_SLICE = 16384  # bytes a rank, of the single collectives
_SETTLE = 2  # iterations after a change of the load that are not counted
#: Keeps a core busy, and ends with the process that started it, however that one ends.
_BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: sum(range(10000))"


def preload() -> None:
    """What the trainer itself imports before the fork."""
    native.preload()


def _join(rank: int, size: int, rendezvous: str) -> None:
    store = dist.FileStore(rendezvous, size)
    limit = timedelta(minutes=10)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=limit)


def _calls(group: Group) -> dict[str, Callable[[], object]]:
    n, rows = group.size, _SLICE // 256
    x = torch.randn(rows, 64)
    even = [rows // n] * n
    return {
        "all_gather": lambda: group.all_gather(x),
        "all_reduce": lambda: group.all_reduce(x),
        "reduce_scatter": lambda: group.reduce_scatter(x),
        "all_to_all": lambda: group.all_to_all(x, even, even),
        "barrier": group.barrier,
    }


def collectives(
    argv: Sequence[str],
    rank: int,
    size: int,
    folder: str,
    rendezvous: str,
    heartbeat: Callable[[int], None],
) -> None:
    """Seconds a call of each collective, by backend, one after the other, ``argv[0]`` times."""
    torch.set_num_threads(1)
    _join(rank, size, rendezvous)
    worlds: dict[str, World] = {
        "gloo": TorchWorld(rank, size, torch.device("cpu")),
        "shared": SharedWorld(rank, size, rendezvous),
    }
    calls: dict[str, dict[str, Callable[[], object]]] = {}
    for name, world in worlds.items():
        group = world.group(range(size))
        assert group is not None
        calls[name] = _calls(group)
    found: dict[str, dict[str, list[float]]] = {}
    for i in range(int(argv[0]) + 1):  # the first one warms up
        for name, many in (("gloo", 20), ("shared", 100)):
            for what, call in calls[name].items():
                calls[name]["barrier"]()
                began = time.perf_counter()
                for _ in range(many):
                    call()
                took = (time.perf_counter() - began) / many
                if i:
                    found.setdefault(what, {}).setdefault(name, []).append(took)
        heartbeat(i)
    if rank == 0:
        Path(folder, "seconds.json").write_text(json.dumps(found))


def beside(
    argv: Sequence[str],
    rank: int,
    size: int,
    folder: str,
    rendezvous: str,
    heartbeat: Callable[[int], None],
) -> None:
    """Seconds of the trainer's iterations, alone and then beside busy processes.

    The busy processes are started by rank 0: in the session of the ranks, so that the kernel lets all of
    them compete one by one, and does not give each session its half.

    Args:
        argv: ``shared`` or ``gloo``, iterations counted of each kind, busy processes, then the trainer's own.
    """
    comm, each, count, *words = argv
    os.environ["HARNESS_COMM"] = comm
    start = _SETTLE + int(each)
    seconds: dict[str, list[float]] = {"alone": [], "beside": []}
    others: list[subprocess.Popen[bytes]] = []
    began = time.perf_counter()

    def beat(i: int) -> None:
        nonlocal began
        heartbeat(i)
        now = time.perf_counter()
        if (i - 1) % start >= _SETTLE:
            seconds["alone" if i <= start else "beside"].append(now - began)
        if rank == 0 and i == start:
            others.extend(subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(int(count)))
        began = time.perf_counter()

    try:
        native.run(words, rank, size, folder, rendezvous, beat)
    finally:
        for other in others:
            other.kill()
            other.wait()
    if rank == 0:
        Path(folder, "seconds.json").write_text(json.dumps(seconds))


# -- the same model, as torch's own building blocks make it ---------------------------------------


class _Attention(nn.Module):
    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.width, self.dropout = hidden // heads, dropout
        self.q, self.k, self.v = (nn.Linear(hidden, hidden) for _ in range(3))
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        b, s, _ = x.shape
        q, k, v = (one(x).view(b, s, -1, self.width).transpose(1, 2) for one in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout, is_causal=True)
        result: Tensor = self.out(y.transpose(1, 2).reshape(b, s, -1))
        return result


class _MLP(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down(F.gelu(self.up(x)))
        return result


class _Layer(nn.Module):
    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attention, self.mlp = _Attention(hidden, heads, dropout), _MLP(hidden)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x)))
        y: Tensor = x + self.drop(self.mlp(self.norm2(x)))
        return y


class _Stage(nn.Module):
    """Half of the layers, with the embedding or the head."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        hidden, vocabulary = int(MODEL["--hidden-size"]), int(MODEL["--vocab-size"])
        heads, dropout = int(MODEL["--num-attention-heads"]), MODEL["--hidden-dropout"]
        self.words = nn.Embedding(vocabulary, hidden) if first else None
        layers = range(int(MODEL["--num-layers"]) // PP)
        self.layers = nn.ModuleList(_Layer(hidden, heads, dropout) for _ in layers)
        self.norm = None if first else nn.LayerNorm(hidden)
        self.head = None if first else nn.Linear(hidden, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.words is None else self.words(x)
        for layer in self.layers:
            x = layer(x)
        return x if self.head is None or self.norm is None else self.head(self.norm(x))


def _parallelize(stage: _Stage, mesh: DeviceMesh) -> None:
    rows = Shard(1)
    attention, mlp = "attention", "mlp"
    for layer in stage.layers:
        plan = {
            "norm1": SequenceParallel(),
            "norm2": SequenceParallel(),
            attention: PrepareModuleInput(input_layouts=(rows,), desired_input_layouts=(Replicate(),)),
            mlp: PrepareModuleInput(input_layouts=(rows,), desired_input_layouts=(Replicate(),)),
            **{f"{attention}.{name}": ColwiseParallel() for name in "qkv"},
            f"{attention}.out": RowwiseParallel(output_layouts=rows),
            f"{mlp}.up": ColwiseParallel(),
            f"{mlp}.down": RowwiseParallel(output_layouts=rows),
        }
        parallelize_module(layer, mesh, plan)
    ends = {
        "words": RowwiseParallel(input_layouts=Replicate(), output_layouts=rows),
        "norm": SequenceParallel(),
        "head": ColwiseParallel(input_layouts=rows, output_layouts=Shard(-1), use_local_output=False),
    }
    there = {name: style for name, style in ends.items() if getattr(stage, name) is not None}
    parallelize_module(stage, mesh, there)


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1))


def _clip(stage: nn.Module, pipeline: dist.ProcessGroup) -> None:
    grads = [p.grad for p in stage.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
    square = whole.square()
    dist.all_reduce(square, group=pipeline)
    torch.nn.utils.clip_grads_with_norm_(stage.parameters(), MODEL["--clip-grad"], square.sqrt())


def dtensor(
    argv: Sequence[str],
    rank: int,
    size: int,
    folder: str,
    rendezvous: str,
    heartbeat: Callable[[int], None],
) -> None:
    """Seconds of each of ``argv[0]`` steps, TP4 × PP2 with sequence parallelism, 1F1B."""
    torch.set_num_threads(1)
    torch.manual_seed(rank // TP)
    _join(rank, size, rendezvous)
    mesh = init_device_mesh("cpu", (PP, TP), mesh_dim_names=("pp", "tp"))
    first = mesh["pp"].get_local_rank() == 0
    stage = _Stage(first=first)
    _parallelize(stage, mesh["tp"])
    pipeline = mesh["pp"].get_group()
    micro, batch = int(MODEL["--micro-batch-size"]), int(MODEL["--global-batch-size"])
    length = int(MODEL["--seq-length"])
    piece = PipelineStage(stage, mesh["pp"].get_local_rank(), PP, torch.device("cpu"), group=pipeline)
    schedule = Schedule1F1B(piece, batch // micro, loss_fn=_loss)
    adam = torch.optim.AdamW(stage.parameters(), lr=MODEL["--lr"])
    generator = torch.Generator().manual_seed(1)
    seconds: list[float] = []
    for i in range(int(argv[0])):
        began = time.perf_counter()
        tokens = torch.randint(0, int(MODEL["--vocab-size"]), (batch, length + 1), generator=generator)
        with loss_parallel():
            if first:
                schedule.step(tokens[:, :-1])
            else:
                schedule.step(target=tokens[:, 1:], losses=[])
        _clip(stage, pipeline)
        adam.step()
        adam.zero_grad()
        seconds.append(time.perf_counter() - began)
        heartbeat(i)
    if rank == 0:
        Path(folder, "seconds.json").write_text(json.dumps(seconds))
