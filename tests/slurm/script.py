"""Trains a little on every rank of a torchrun."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.distributed as dist


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("iters", "stop"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("save", "metrics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--load", type=Path)
    parser.add_argument("--fails", type=int, default=-1, help="a rank that raises half-way")
    args = parser.parse_args()
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(1)
    model = torch.nn.Linear(8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    begin = load(args.load, model, optimizer) if args.load else 0
    for step in range(begin + 1, args.stop + 1):
        if rank == args.fails and step > 5:
            raise ValueError("of this rank")
        data = torch.randn(4, 8, generator=torch.Generator().manual_seed(1000 * step + rank))
        loss = (model(data) - data).square().mean()
        optimizer.zero_grad()
        loss.backward()
        for one in model.parameters():
            assert one.grad is not None
            dist.all_reduce(one.grad)
        optimizer.step()
        dist.all_reduce(loss.detach_())
        if rank == 0:
            with args.metrics.open("a") as file:
                file.write(json.dumps({"step": step, "loss": loss.item()}) + "\n")
            if step % 4 == 0 or step == args.stop:
                save(args.save, step, model, optimizer)
        dist.barrier()
    print(f"rank {rank} of {dist.get_world_size()} has ended at {args.stop}")
    dist.destroy_process_group()


def save(folder: Path, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    path = folder / f"checkpoint_{step}.pt"
    torch.save(state, path)
    (folder / "latest.txt").write_text(f"{path.name}\n")


def load(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    latest = folder / "latest.txt"
    if not latest.exists():
        return 0
    state = torch.load(folder / latest.read_text().strip())
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


if __name__ == "__main__":
    main()
