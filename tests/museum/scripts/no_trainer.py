"""accelerate without a Trainer: prepare, save_state at the end of an epoch, load_state."""

import argparse
import json
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iters", type=int, required=True)
    parser.add_argument("--stop", type=int, required=True)
    parser.add_argument("--save-every", type=int, required=True)
    parser.add_argument("--save", type=Path, required=True)
    parser.add_argument("--load", type=Path)
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--set-epoch", action="store_true", help="tell the loader which epoch it is")
    a = parser.parse_args()
    torch.set_num_threads(1)
    set_seed(1)
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))
    rows = torch.randn(80, 8, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, a.iters)
    loader = DataLoader(TensorDataset(rows), batch_size=8, shuffle=True)  # ten batches an epoch
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    step = 0
    if a.load:
        newest = max(a.load.glob("step_*"))
        accelerator.load_state(str(newest))
        step = int(newest.name.removeprefix("step_"))
    model.train()
    with a.metrics.open("a") as log:
        while step < a.stop:
            if a.set_epoch:
                loader.set_epoch(step // len(loader))
            for (batch,) in loader:
                loss = (model(batch) - batch.flip(1)).square().mean()
                accelerator.backward(loss)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                step += 1
                rate = schedule.get_last_lr()[0]
                log.write(json.dumps({"step": step, "loss": loss.item(), "lr": rate}) + "\n")
            if step % a.save_every == 0:
                accelerator.save_state(str(a.save / f"step_{step:06d}"))


if __name__ == "__main__":
    main()
