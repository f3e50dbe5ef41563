"""Word-level language model: a two-layer GRU with tied embeddings, truncated back-propagation through time.

python gru_lm.py --iters 200 --ckpt-dir out --log out/metrics.jsonl
python gru_lm.py --iters 200 --ckpt-dir out --log out/metrics.jsonl --resume out
"""

import argparse
import json
import math
import os
import random
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.optim.lr_scheduler import LambdaLR

parser = argparse.ArgumentParser()
parser.add_argument("--iters", type=int, required=True, help="length of the schedule")
parser.add_argument("--stop", type=int, default=None, help="leave after this iteration")
parser.add_argument("--ckpt-dir", type=Path, required=True)
parser.add_argument("--ckpt-every", type=int, default=6)
parser.add_argument("--log", type=Path, required=True)
parser.add_argument("--resume", type=Path, default=None)
parser.add_argument("--lanes", type=int, default=8)
parser.add_argument("--bptt", type=int, default=10)
parser.add_argument("--width", type=int, default=32)
parser.add_argument("--lr", type=float, default=4e-3)
parser.add_argument("--warmup", type=int, default=5)
parser.add_argument("--wdrop", type=float, default=0.1, help="word dropout")
parser.add_argument("--dropout", type=float, default=0.2)
parser.add_argument("--seed", type=int, default=1111)
args = parser.parse_args()
args.stop = args.stop or args.iters

VOCAB, UNK, DOCS = 48, 0, 28


def make_corpus(n_docs, seed):
    """Documents of a second-order Markov chain; lengths differ."""
    rng = np.random.RandomState(seed)
    table = rng.randint(1, VOCAB, size=(VOCAB, VOCAB, 3))
    docs = []
    for _ in range(n_docs):
        a, b = rng.randint(1, VOCAB, size=2)
        doc = [a, b]
        for _ in range(rng.randint(14, 34)):
            a, b = b, table[a, b, rng.randint(3)]
            doc.append(b)
        docs.append(np.array(doc, dtype=np.int64))
    return docs


class Corpus:
    """Documents in an order of their own in every epoch, cut into lanes, read in windows."""

    def __init__(self, docs):
        self.docs = docs
        self.epoch, self.position = 0, 0
        self.lay_out()

    def lay_out(self):
        order = np.random.RandomState(args.seed + self.epoch).permutation(len(self.docs))
        stream = np.concatenate([self.docs[i] for i in order])
        width = len(stream) // args.lanes
        self.lanes = (
            torch.from_numpy(stream[: width * args.lanes].reshape(args.lanes, width)).t().contiguous()
        )

    def __len__(self):
        return (self.lanes.size(0) - 1) // args.bptt

    def next_window(self):
        """Tokens, targets, and whether an epoch begins here."""
        if self.position >= len(self):
            self.epoch, self.position = self.epoch + 1, 0
            self.lay_out()
        begins = self.position == 0
        start = self.position * args.bptt
        x = self.lanes[start : start + args.bptt].clone()
        y = self.lanes[start + 1 : start + 1 + args.bptt].clone()
        self.position += 1
        return x, y, begins

    def state_dict(self):
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state):
        self.epoch, self.position = state["epoch"], state["position"]
        self.lay_out()


class RNNModel(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.encoder = nn.Embedding(VOCAB, width)
        self.rnn = nn.GRU(width, width, num_layers=2, dropout=args.dropout)
        self.norm = nn.BatchNorm1d(width, momentum=None)
        self.project = nn.Linear(width, width)
        self.decoder = nn.Linear(width, VOCAB)
        self.decoder.weight = self.encoder.weight
        self.drop = nn.Dropout(args.dropout)

    def forward(self, tokens, hidden):
        out, hidden = self.rnn(self.drop(self.encoder(tokens)), hidden)
        out = self.norm(out.flatten(0, 1))
        return self.decoder(self.drop(torch.tanh(self.project(out)))), hidden


def build_optimizer(model):
    decay, no_decay = [], []
    for name, p in model.named_parameters():
        (no_decay if p.ndim < 2 or "norm" in name else decay).append(p)
    groups = [
        {"params": decay, "weight_decay": 0.05},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))


def warmup_cosine(step):
    if step < args.warmup:
        return (step + 1) / args.warmup
    part = (step - args.warmup) / max(1, args.iters - args.warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * part))


def augment(tokens):
    """Word dropout, and now and then two neighbouring words change places."""
    tokens[torch.from_numpy(np.random.rand(*tokens.shape) < args.wdrop)] = UNK
    for lane in range(tokens.size(1)):
        if random.random() < 0.3:
            i = random.randrange(tokens.size(0) - 1)
            tokens[[i, i + 1], lane] = tokens[[i + 1, i], lane]
    return tokens


@torch.no_grad()
def evaluate(model, lanes):
    model.eval()
    hidden, total, count = None, 0.0, 0
    for start in range(0, lanes.size(0) - 1, args.bptt):
        x, y = lanes[start : start + args.bptt], lanes[start + 1 : start + 1 + args.bptt]
        logits, hidden = model(x[: y.size(0)], hidden)
        total += F.cross_entropy(logits, y.flatten(), reduction="sum").item()
        count += y.numel()
    model.train()
    return total / count


def latest(folder):
    found = [(int(m[1]), p) for p in folder.iterdir() if (m := re.fullmatch(r"ckpt_(\d+)\.pt", p.name))]
    if not found:
        raise SystemExit(f"no checkpoint in {folder}")
    return max(found)[1]


def save(path, state):
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)

    corpus = Corpus(make_corpus(DOCS, 7))
    held_out = Corpus(make_corpus(8, 8)).lanes[:21]

    model = RNNModel(args.width)
    optimizer = build_optimizer(model)
    scheduler = LambdaLR(optimizer, warmup_cosine)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=7)
    hidden = None
    typical_norm = 1.0
    step = 0

    if args.resume:
        checkpoint = torch.load(latest(args.resume), weights_only=False)
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        scheduler.load_state_dict(checkpoint["scheduler"])
        scaler.load_state_dict(checkpoint["scaler"])
        corpus.load_state_dict(checkpoint["corpus"])
        hidden = checkpoint["hidden"]
        typical_norm = checkpoint["typical_norm"]
        step = checkpoint["step"]
        random.setstate(checkpoint["rng"]["python"])
        np.random.set_state(checkpoint["rng"]["numpy"])
        torch.set_rng_state(checkpoint["rng"]["torch"])

    model.train()
    args.ckpt_dir.mkdir(parents=True, exist_ok=True)
    log = open(args.log, "a", buffering=1)
    while step < args.stop:
        x, y, begins = corpus.next_window()
        if begins:
            hidden = None
        logits, hidden = model(augment(x), hidden)
        hidden = hidden.detach()
        loss = F.cross_entropy(logits, y.flatten())

        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        # clipped at one and a half times what has been usual
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.5 * typical_norm).item()
        typical_norm = 0.9 * typical_norm + 0.1 * norm
        scaler.step(optimizer)
        scaler.update()
        step += 1

        line = {"step": step, "loss": loss.item(), "lr": optimizer.param_groups[0]["lr"], "grad_norm": norm}
        scheduler.step()
        if step % 8 == 0:
            line["val_loss"] = evaluate(model, held_out)
        log.write(json.dumps(line) + "\n")

        if step % args.ckpt_every == 0 or step == args.stop:
            save(
                args.ckpt_dir / f"ckpt_{step}.pt",
                {
                    "step": step,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(),
                    "scaler": scaler.state_dict(),
                    "corpus": corpus.state_dict(),
                    "hidden": hidden,
                    "typical_norm": typical_norm,
                    "rng": {
                        "python": random.getstate(),
                        "numpy": np.random.get_state(),
                        "torch": torch.get_rng_state(),
                    },
                },
            )


if __name__ == "__main__":
    main()
