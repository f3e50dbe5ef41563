"""A plain loop of PyTorch: torchdata's loader or torch's own order, and two kinds of schedule."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.optim import lr_scheduler

ROWS = torch.randn(80, 8, generator=torch.Generator().manual_seed(0))  # ten batches an epoch


class Permuted:
    """Batches of a new permutation in every epoch; nothing to be saved but the random state."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (ROWS[some] for some in torch.randperm(len(ROWS)).split(8))

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        del state


def warmed_up(optimizer: torch.optim.Optimizer, iters: int) -> lr_scheduler.LRScheduler:
    first = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=10)
    then = lr_scheduler.CosineAnnealingLR(optimizer, iters - 10, eta_min=1e-4)
    return lr_scheduler.SequentialLR(optimizer, [first, then], milestones=[10])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iters", type=int, required=True)
    parser.add_argument("--stop", type=int, required=True)
    parser.add_argument("--save-every", type=int, required=True)
    parser.add_argument("--save", type=Path, required=True)
    parser.add_argument("--load", type=Path)
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--stateful-loader", action="store_true", help="torchdata's")
    parser.add_argument("--warm-up", choices=("optimizer-first", "scheduler-first"), help="SequentialLR")
    a = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(1)
    loader = Permuted()
    if a.stateful_loader:
        from torchdata.stateful_dataloader import StatefulDataLoader

        loader = StatefulDataLoader(ROWS, batch_size=8, shuffle=True)
    model = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    step, saved = 0, None
    if a.load:
        saved = torch.load(max(a.load.glob("step_*.pt")), weights_only=False)
        step = saved["step"]
        model.load_state_dict(saved["model"])
        if a.warm_up != "scheduler-first":
            optimizer.load_state_dict(saved["optimizer"])
    if a.warm_up:
        schedule = warmed_up(optimizer, a.iters)
    else:
        schedule = lr_scheduler.CosineAnnealingLR(optimizer, a.iters)
    if saved:
        schedule.load_state_dict(saved["schedule"])
        if a.warm_up == "scheduler-first":
            optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])
        torch.set_rng_state(saved["rng"])
    with a.metrics.open("a") as log:
        while step < a.stop:
            for batch in loader:
                loss = (model(batch) - batch.flip(1)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                rate = optimizer.param_groups[0]["lr"]
                schedule.step()
                step += 1
                log.write(json.dumps({"step": step, "loss": loss.item(), "lr": rate}) + "\n")
            if step % a.save_every == 0:
                state = {"step": step, "rng": torch.get_rng_state(), "loader": loader.state_dict()}
                state |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(state | {"schedule": schedule.state_dict()}, a.save / f"step_{step:06d}.pt")


if __name__ == "__main__":
    main()
