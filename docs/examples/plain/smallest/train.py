"""The smallest script that resumes bit for bit: a line through four points."""

import argparse
import json
from pathlib import Path

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--iters", type=int, required=True, help="how long the whole training is")
parser.add_argument("--stop", type=int, required=True, help="after which step this launch ends")
parser.add_argument("--save", type=Path, required=True)
parser.add_argument("--load", type=Path)
parser.add_argument("--log", type=Path, required=True)
args = parser.parse_args()

torch.manual_seed(1)
x, y = torch.tensor([[0.0], [1], [2], [3]]), torch.tensor([[1.0], [3], [5], [7]])
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, args.iters)
parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
start = 0
if args.load:
    saved = torch.load(args.load / "ckpt.pt")
    start = saved["step"]
    for name, part in parts.items():
        part.load_state_dict(saved[name])

with args.log.open("a") as log:
    for step in range(start + 1, args.stop + 1):
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        log.write(json.dumps({"step": step, "loss": loss.item()}) + "\n")
states = {name: part.state_dict() for name, part in parts.items()}
torch.save({"step": args.stop, **states}, args.save / "ckpt.pt")
