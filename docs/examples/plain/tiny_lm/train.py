"""A plain PyTorch script: a tiny language model on a made-up text. It knows nothing of the harness."""

import argparse
import json
import random
from pathlib import Path

import torch
from torch import nn

SYMBOLS, CONTEXT, BATCH, SAVE_EVERY = 32, 16, 8, 20


def batch(text: torch.Tensor, order: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    starts = [order.randrange(len(text) - CONTEXT) for _ in range(BATCH)]
    rows = torch.stack([text[start : start + CONTEXT + 1] for start in starts])
    return rows[:, :-1], rows[:, 1:]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iters", type=int, required=True, help="what the learning rate decays over")
    parser.add_argument("--stop", type=int, required=True, help="where this launch ends")
    parser.add_argument("--save", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--load", type=Path, help="a folder with a checkpoint to go on from")
    args = parser.parse_args()

    torch.manual_seed(1)
    torch.set_num_threads(1)
    order = random.Random(2)
    text = torch.randint(SYMBOLS, (4096,), generator=torch.Generator().manual_seed(3)).cumsum(0) % SYMBOLS
    model = nn.Sequential(nn.Embedding(SYMBOLS, 24), nn.Dropout(0.1), nn.Linear(24, 24), nn.GELU())
    model.append(nn.Linear(24, SYMBOLS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.iters)
    step = 0
    if args.load:
        saved = torch.load(max(args.load.glob("step_*.pt")), weights_only=False)
        step = saved["step"]
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        torch.set_rng_state(saved["rng"])
        order.setstate(saved["data_order"])

    with (args.out / "metrics.jsonl").open("a") as metrics:
        while step < args.stop:
            step += 1
            x, y = batch(text, order)
            loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            metrics.write(json.dumps({"step": step, "loss": loss.item()}) + "\n")
            if step % SAVE_EVERY == 0:
                state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
                state |= {"scheduler": scheduler.state_dict(), "rng": torch.get_rng_state()}
                path = args.save / f"step_{step:06d}.pt"
                torch.save(state | {"data_order": order.getstate()}, path.with_suffix(".part"))
                path.with_suffix(".part").replace(path)  # whoever is killed leaves no half of one


if __name__ == "__main__":
    main()
