"""Entry point of a rank: set the switches that make bits repeatable, join the world, train."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from harness.errors import CaseError
from harness.trainers.native.arguments import parse
from harness.trainers.native.comm import meeting
from harness.trainers.native.comm.shared_world import SharedWorld
from harness.trainers.native.comm.torch_world import TorchWorld
from harness.trainers.native.comm.world import World


def preload() -> None:
    """Import everything slow, once, before ranks are forked. Never touches CUDA."""
    import torch._dynamo
    import torch._inductor  # these two: by the deterministic switch, and by any optimizer's first step

    import harness.machine.hardware
    import harness.trainers.native.loop  # noqa: F401

    torch.set_num_threads(1)


def run(
    argv: Sequence[str],
    rank: int,
    world_size: int,
    folder: str,
    rendezvous: str,
    heartbeat: Callable[[int], None],
) -> None:
    """Train as one rank of a phase.

    Args:
        argv: Megatron-LM's arguments.
        folder: the phase's own folder; rank 0 writes ``provenance.json`` there.
        rendezvous: through which the ranks find each other; as :func:`meeting.store` has it.
        heartbeat: called with the iteration number after each iteration.
    """
    from harness.trainers.native.loop import Trainer
    from harness.trainers.native.telemetry import write_provenance

    args = parse(argv, world_size)
    switches = _deterministic()
    device = _device(rank)
    store = meeting.store(rendezvous, rank, world_size)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(minutes=30),
    )
    world = join(rank, world_size, device, rendezvous)
    if rank == 0 and args.ignored:
        print("accepted, without meaning here:", *args.ignored, flush=True)
    digests = _numerics(rank, world_size, device, args.precision)
    trainer = Trainer(args, world)
    if rank == 0:
        write_provenance(Path(folder), args, trainer.parallel.layout, device, switches, digests)
    trainer.run(heartbeat)
    world.close()
    if not meeting.on_one_machine(rendezvous):
        dist.barrier()  # rank 0 takes the store with it
    dist.destroy_process_group()


def join(rank: int, world_size: int, device: torch.device, rendezvous: str) -> World:
    """The communication backend of this run: shared memory between ranks on one CPU, else torch's own.

    ``HARNESS_COMM=gloo`` asks for the reference there too; the bits are the same.

    Raises:
        CaseError: ``HARNESS_COMM`` is something else than ``shared`` or ``gloo``.
    """
    wanted = os.environ.get("HARNESS_COMM", "shared")
    if wanted not in ("shared", "gloo"):
        raise CaseError(f"HARNESS_COMM: found {wanted!r}, expected 'shared' or 'gloo'")
    possible = device.type == "cpu" and hasattr(os, "memfd_create") and meeting.on_one_machine(rendezvous)
    if possible and world_size > 1 and wanted == "shared":
        return SharedWorld(rank, world_size, rendezvous)
    return TorchWorld(rank, world_size, device)


def _device(rank: int) -> torch.device:
    if os.environ.get("HARNESS_DEVICE", "cpu") == "cuda":
        local = int(os.environ.get("LOCAL_RANK", rank))
        device = torch.device("cuda", local % max(1, torch.cuda.device_count()))
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")


def _deterministic() -> dict[str, str | int | bool]:
    """Make every kernel repeatable; returns the switches for the fingerprint."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    torch.set_flush_denormal(False)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    return {
        "threads": torch.get_num_threads(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "mkl_cbwr": os.environ.get("MKL_CBWR", ""),
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
    }


def _numerics(rank: int, world_size: int, device: torch.device, precision: str) -> dict[str, str]:
    """The digests of this run's operations, on rank 0; empty on the others."""
    from harness.machine import numerics

    # Every rank takes part in a collective. On a CPU ours are used, whose order of sums is their own.
    together = device.type == "cuda" and world_size > 1
    collective = numerics.measure_all_reduce(rank, device) if together else {}
    return {**numerics.measure(device, precision), **collective} if rank == 0 else {}
