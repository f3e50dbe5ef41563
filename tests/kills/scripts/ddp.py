"""Two ranks under torchrun, over gloo: a small model, saved by rank 0; the random streams by each rank."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind in (("iters", int), ("every", int), ("save", Path), ("load", Path), ("out", Path)):
        parser.add_argument(f"--{name}", type=kind)
    args = parser.parse_args()
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    torch.manual_seed(2 + rank)
    step = 0
    latest = args.load / "latest" if args.load else None
    if latest is not None and latest.exists():
        folder = args.load / latest.read_text().strip()
        saved = torch.load(folder / "model.pt", weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
        torch.set_rng_state(torch.load(folder / f"rng_{rank}.pt", weights_only=True))
    if rank == 0:
        (args.out / "loaded.json").write_text(json.dumps({"step": step, "whole": True}))
    while step < args.iters:
        step += 1
        time.sleep(0.02)
        x = torch.randn(16, 8)
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
        optimizer.step()
        dist.all_reduce(loss.detach_())
        if rank == 0:
            with (args.out / "metrics.jsonl").open("a") as metrics:
                metrics.write(json.dumps({"step": step, "loss": loss.item()}) + "\n")
        if step % args.every == 0:
            part, folder = args.save / f"tmp-step_{step}", args.save / f"step_{step}"
            part.mkdir(exist_ok=True)
            if rank == 0:
                state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(state, part / "model.pt")
            torch.save(torch.get_rng_state(), part / f"rng_{rank}.pt")
            dist.barrier()
            if rank == 0:
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(part, folder)
                (args.save / "latest.part").write_text(folder.name)
                os.replace(args.save / "latest.part", args.save / "latest")
            dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
