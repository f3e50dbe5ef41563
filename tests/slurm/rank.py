"""A rank below srun: says where it is, then adds with the others over gloo, until STEPS are done."""

from __future__ import annotations

import os
import time

import torch
import torch.distributed as dist


def main() -> None:
    """Rank 0 says each step that all have made."""
    rank, world = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    store = f"tcp://{os.environ['FIRST']}:29500"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    print(
        f"rank {rank} of {world} on {os.uname().nodename}: GPU {os.environ['CUDA_VISIBLE_DEVICES']}",
        flush=True,
    )
    for step in range(int(os.environ["STEPS"])):
        total = torch.tensor([rank + 1])
        dist.all_reduce(total)
        assert total.item() == world * (world + 1) // 2
        if rank == 0:
            print(f"step {step}", flush=True)
        time.sleep(0.05)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
