"""A plain PyTorch script that resumes bit for bit. It knows nothing of the harness."""

import argparse
import json
import os
import random
import zlib
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset


class Noisy(Dataset):
    """Forty samples, each read with some noise and the other way round now and then."""

    def __init__(self) -> None:
        self.samples = torch.randn(40, 8, generator=torch.Generator().manual_seed(7))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor, torch.Tensor]:
        sample = self.samples[index]
        x = sample + 0.1 * torch.from_numpy(np.random.standard_normal(8)).float()
        return index, x.flip(0) if random.random() < 0.2 else x, sample.sum(0, keepdim=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iters", type=int, required=True, help="how long the whole training is")
    parser.add_argument("--stop", type=int, required=True, help="after which step this launch ends")
    parser.add_argument("--save-every", type=int, required=True)
    parser.add_argument("--save", type=Path, required=True, help="a folder for ckpt.pt")
    parser.add_argument("--load", type=Path, help="a folder with the ckpt.pt to go on from")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"

    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)

    shuffle = torch.Generator().manual_seed(1)
    loader = DataLoader(Noisy(), batch_size=4, shuffle=True, generator=shuffle, num_workers=args.workers)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.1), nn.Linear(16, 1)).to(device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.iters)
    scaler = torch.amp.GradScaler(device, init_scale=1024, growth_interval=4)

    saved = None
    step = position = 0
    if args.load:
        saved = torch.load(args.load / "ckpt.pt", weights_only=False)
        step = saved["step"]
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["ema"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        scaler.load_state_dict(saved["scaler"])
        shuffle.set_state(saved["loader"]["shuffle"])
        position = saved["loader"]["position"]

    log = args.log.open("a", buffering=1)
    while step < args.stop:
        order = shuffle.get_state()
        batches = iter(loader)
        for _ in islice(batches, position):
            pass
        if saved:
            random.setstate(saved["rng"]["python"])
            np.random.set_state(saved["rng"]["numpy"])
            torch.set_rng_state(saved["rng"]["torch"])
            torch.cuda.set_rng_state_all(saved["rng"]["cuda"])
            saved = None
        for index, x, y in batches:
            step += 1
            position += 1
            loss = nn.functional.mse_loss(model(x.to(device)), y.to(device))
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            line = {"step": step, "loss": loss.item(), "lr": optimizer.param_groups[0]["lr"]}
            line["loss-scale"] = scaler.get_scale()
            line["data-digest"] = zlib.crc32(index.numpy().tobytes())
            log.write(json.dumps(line) + "\n")
            scheduler.step()
            average.update_parameters(model)
            if step % args.save_every == 0 or step == args.stop:
                state = {
                    "step": step,
                    "model": model.state_dict(),
                    "ema": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(),
                    "scaler": scaler.state_dict(),
                    "loader": {"shuffle": order, "position": position},
                    "rng": {
                        "python": random.getstate(),
                        "numpy": np.random.get_state(),
                        "torch": torch.get_rng_state(),
                        "cuda": torch.cuda.get_rng_state_all(),
                    },
                }
                torch.save(state, args.save / "ckpt.pt.part")
                os.replace(args.save / "ckpt.pt.part", args.save / "ckpt.pt")
            if step == args.stop:
                break
        else:
            position = 0


if __name__ == "__main__":
    main()
