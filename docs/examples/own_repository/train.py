"""Train a small character model on a made-up text, as such scripts are written."""

import argparse
import math
import os
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=2000, help="optimizer steps in all")
parser.add_argument("--batch-size", type=int, default=16)
parser.add_argument("--lr", type=float, default=3e-3)
parser.add_argument("--warmup", type=int, default=10, help="steps until the learning rate is at its highest")
parser.add_argument("--dim", type=int, default=32)
parser.add_argument("--context", type=int, default=16)
parser.add_argument("--dropout", type=float, default=0.1)
parser.add_argument("--grad-clip", type=float, default=1.0)
parser.add_argument("--log-every", type=int, default=10)
parser.add_argument("--save-every", type=int, default=500)
parser.add_argument("--out", default="out", help="folder of the checkpoint")
parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
args = parser.parse_args()

SYMBOLS = 24
device = "cuda" if torch.cuda.is_available() else "cpu"


class Windows(Dataset):
    """Windows of a text: its first symbols, and the same one symbol later."""

    def __init__(self, length: int, context: int) -> None:
        numbers = torch.arange(length)
        self.text = (numbers * numbers // 7 + 3 * numbers) % SYMBOLS
        self.context = context

    def __len__(self) -> int:
        return (len(self.text) - 1) // self.context

    def __getitem__(self, index: int):
        start = index * self.context
        window = self.text[start : start + self.context + 1]
        return window[:-1], window[1:]


class Block(nn.Module):
    """Causal attention and a feed-forward layer."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, 4, dropout=dropout, batch_first=True)
        self.forward_layer = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        y = self.before(x)
        y, _ = self.attention(y, y, y, attn_mask=mask, need_weights=False)
        x = x + self.dropout(y)
        return x + self.dropout(self.forward_layer(self.after(x)))


class Model(nn.Module):
    """Embeddings, two blocks, a head."""

    def __init__(self, dim: int, context: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(SYMBOLS, dim)
        self.places = nn.Embedding(context, dim)
        self.blocks = nn.Sequential(*[Block(dim, dropout) for _ in range(2)])
        self.head = nn.Linear(dim, SYMBOLS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = torch.arange(x.shape[1], device=x.device)
        return self.head(self.blocks(self.tokens(x) + self.places(places)))


def learning_rate(step: int) -> float:
    """Up in a line, then down along a cosine."""
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    done = (step - args.warmup) / max(1, args.steps - args.warmup)
    return args.lr * 0.5 * (1 + math.cos(math.pi * done))


def forever(loader: DataLoader):
    """Batches, epoch after epoch."""
    while True:
        yield from loader


os.makedirs(args.out, exist_ok=True)
checkpoint_file = os.path.join(args.out, "ckpt.pt")
loader = DataLoader(Windows(4096, args.context), batch_size=args.batch_size, shuffle=True)
model = Model(args.dim, args.context, args.dropout).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.1)
step = 0
if args.resume:
    checkpoint = torch.load(checkpoint_file, map_location=device)
    model.load_state_dict(checkpoint["model"])
    step = checkpoint["step"]
    print(f"resumed from step {step}")

batches = forever(loader)
started = time.time()
while step < args.steps:
    x, y = (part.to(device) for part in next(batches))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step)
    loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), args.grad_clip)
    optimizer.step()
    step += 1
    if step % args.log_every == 0:
        spent = (time.time() - started) / args.log_every
        print(f"step {step}/{args.steps} | loss {loss.item():.4f} | {1000 * spent:.1f} ms a step")
        started = time.time()
    if step % args.save_every == 0 or step == args.steps:
        torch.save({"model": model.state_dict(), "step": step}, checkpoint_file)
