"""A small vision transformer on made-up pictures: two ranks under torchrun, DDP over gloo.

    torchrun --standalone --nproc_per_node 2 ddp_vit.py --train-steps 200 --output out --metrics out/metrics.jsonl
    torchrun ... --resume-from out

A step is one batch; the optimizer takes one in three. A checkpoint is a folder: weights and their average as
safetensors, the optimizer's state, one file a rank, and what the trainer counts as JSON.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import zlib
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

CLASSES, SIDE, PATCH = 5, 12, 4


def get_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--train-steps", type=int, required=True)
    parser.add_argument("--max-steps-this-run", type=int, default=None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--resume-from", type=Path, default=None)
    parser.add_argument("--save-steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4, help="of each rank")
    parser.add_argument("--accumulate", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--ema-decay", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    args.max_steps_this_run = args.max_steps_this_run or args.train_steps
    return args


class Pictures(Dataset):
    """One of five patterns, under noise of NumPy's stream, flipped by Python's."""

    def __init__(self, size):
        rng = np.random.RandomState(3)
        self.patterns = rng.rand(CLASSES, SIDE, SIDE).astype(np.float32)
        self.labels = rng.randint(CLASSES, size=size)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        label = int(self.labels[index])
        picture = self.patterns[label] + 0.3 * np.random.randn(SIDE, SIDE).astype(np.float32)
        if random.random() < 0.5:
            picture = picture[:, ::-1].copy()
        return torch.from_numpy(picture)[None], label, index


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * dim, dim))

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / (d // self.heads) ** 0.5).softmax(-1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(b, t, d))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, dim=24, heads=4, depth=2):
        super().__init__()
        self.patch_embed = nn.Conv2d(1, dim, PATCH, PATCH)
        self.pos_embed = nn.Parameter(torch.randn(1, (SIDE // PATCH) ** 2, dim) * 0.02)
        self.drop = nn.Dropout(0.1)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, CLASSES)

    def forward(self, x):
        x = self.drop(self.patch_embed(x).flatten(2).transpose(1, 2) + self.pos_embed)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class Adafactor:
    """Factored second moments for matrices, momentum, updates clipped by their root mean square."""

    def __init__(self, named, momentum=0.8):
        self.params = dict(named)
        self.momentum = momentum
        self.state = {name: self.fresh(p) for name, p in self.params.items()}
        self.lr = 0.0

    @staticmethod
    def fresh(p):
        state = {"step": 0, "exp_avg": torch.zeros_like(p)}
        if p.ndim == 2:
            state |= {"row": torch.zeros(p.shape[0]), "col": torch.zeros(p.shape[1])}
        else:
            state["exp_avg_sq"] = torch.zeros_like(p)
        return state

    @torch.no_grad()
    def step(self):
        for name, p in self.params.items():
            s = self.state[name]
            s["step"] += 1
            keep = 1.0 - s["step"] ** -0.8
            square = p.grad.square() + 1e-30
            if p.ndim == 2:
                s["row"].mul_(keep).add_(square.mean(1), alpha=1 - keep)
                s["col"].mul_(keep).add_(square.mean(0), alpha=1 - keep)
                second = torch.outer(s["row"], s["col"]) / s["row"].mean()
            else:
                s["exp_avg_sq"].mul_(keep).add_(square, alpha=1 - keep)
                second = s["exp_avg_sq"]
            update = p.grad / second.sqrt()
            update /= max(1.0, update.square().mean().sqrt().item())
            s["exp_avg"].mul_(self.momentum).add_(update, alpha=1 - self.momentum)
            p.sub_(self.lr * s["exp_avg"])

    def zero_grad(self):
        for p in self.params.values():
            p.grad = None

    def state_dict(self):
        return {"state": self.state, "momentum": self.momentum}

    def load_state_dict(self, saved):
        for name, values in saved["state"].items():
            self.state[name] = values


class InverseSqrt:
    """Warm-up, then one over the root, then linearly to nothing over the last fifth."""

    def __init__(self, optimizer, args):
        self.optimizer, self.args, self.last_update = optimizer, args, 0
        self.total = args.train_steps // args.accumulate
        self.apply()

    def apply(self):
        n = self.last_update + 1
        rate = self.args.lr * min(n / self.args.warmup, (self.args.warmup / n) ** 0.5)
        self.optimizer.lr = rate * min(1.0, max(0.05, 5 * (1 - self.last_update / max(1, self.total))))

    def step(self):
        self.last_update += 1
        self.apply()

    def state_dict(self):
        return {"last_update": self.last_update}

    def load_state_dict(self, state):
        self.last_update = state["last_update"]
        self.apply()


class EMA:
    def __init__(self, model, decay):
        self.decay, self.updates = decay, 0
        self.shadow = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model):
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, p in model.named_parameters():
            self.shadow[name].lerp_(p, 1 - decay)


class Trainer:
    def __init__(self, args):
        self.args = args
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        torch.manual_seed(args.seed)
        self.model = ViT()
        self.ddp = DistributedDataParallel(self.model)
        self.optimizer = Adafactor(self.model.named_parameters())
        self.scheduler = InverseSqrt(self.optimizer, args)
        self.ema = EMA(self.model, args.ema_decay)
        self.dataset = Pictures(61)
        self.sampler = DistributedSampler(self.dataset, shuffle=True, seed=args.seed, drop_last=True)
        self.loader = DataLoader(self.dataset, args.batch, sampler=self.sampler, drop_last=True)
        self.step = self.epoch = self.batches_seen = 0
        self.rng = None
        # from here on each rank draws for itself
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(args.seed + 100 * (self.rank + 1))

    def get_rng(self):
        return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}

    def set_rng(self, rng):
        random.setstate(rng["python"])
        np.random.set_state(rng["numpy"])
        torch.set_rng_state(rng["torch"])

    def save(self):
        folder = self.args.output / f"step_{self.step}"
        making = self.args.output / f"tmp_step_{self.step}"
        if self.rank == 0:
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
        dist.barrier()
        pending = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        torch.save({"rng": self.get_rng(), "pending_grads": pending}, making / f"rank_{self.rank}.pt")
        if self.rank == 0:
            save_file(
                {k: v.contiguous() for k, v in self.model.state_dict().items()}, making / "model.safetensors"
            )
            save_file(self.ema.shadow, making / "ema.safetensors")
            torch.save(self.optimizer.state_dict(), making / "optimizer.pt")
            state = {
                "step": self.step,
                "epoch": self.epoch,
                "batches_seen": self.batches_seen,
                "scheduler": self.scheduler.state_dict(),
                "ema_updates": self.ema.updates,
            }
            (making / "trainer_state.json").write_text(json.dumps(state, indent=2))
        dist.barrier()
        if self.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(making, folder)
        dist.barrier()

    @staticmethod
    def latest(folder):
        found = [path for path in folder.glob("step_*") if path.is_dir()]
        return max(found, key=lambda path: int(path.name.split("_")[1]))

    def load(self, folder):
        path = self.latest(folder)
        state = json.loads((path / "trainer_state.json").read_text())
        own = torch.load(path / f"rank_{self.rank}.pt", weights_only=False)
        self.model.load_state_dict(load_file(path / "model.safetensors"))
        self.optimizer.load_state_dict(torch.load(path / "optimizer.pt"))
        self.scheduler.load_state_dict(state["scheduler"])
        self.ema.shadow = load_file(path / "ema.safetensors")
        self.ema.updates = state["ema_updates"]
        self.step, self.epoch, self.batches_seen = state["step"], state["epoch"], state["batches_seen"]
        for name, p in self.model.named_parameters():
            if name in own["pending_grads"]:
                p.grad = own["pending_grads"][name]
        self.rng = own["rng"]

    def batches(self):
        """The batches of an epoch that are left, and the streams as they were."""
        self.sampler.set_epoch(self.epoch)
        iterator = iter(self.loader)
        for _ in islice(iterator, self.batches_seen):
            pass
        if self.rng:
            self.set_rng(self.rng)
            self.rng = None
        return iterator

    def mean(self, value):
        value = torch.tensor(float(value), dtype=torch.float64)
        dist.all_reduce(value)
        return value.item() / self.world

    def train(self, log):
        self.ddp.train()
        while self.step < self.args.max_steps_this_run:
            for pictures, labels, indices in self.batches():
                self.train_step(pictures, labels, indices, log)
                if self.step == self.args.max_steps_this_run:
                    break
            else:
                self.epoch, self.batches_seen = self.epoch + 1, 0

    def train_step(self, pictures, labels, indices, log):
        self.step += 1
        self.batches_seen += 1
        update = self.step % self.args.accumulate == 0
        with contextlib.nullcontext() if update else self.ddp.no_sync():
            loss = F.cross_entropy(self.ddp(pictures), labels, label_smoothing=0.1)
            (loss / self.args.accumulate).backward()
        line = {"iteration": self.step, "loss": self.mean(loss.item()), "lr": self.optimizer.lr}
        if update:
            line["grad_norm"] = nn.utils.clip_grad_norm_(self.model.parameters(), 2.0).item()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.scheduler.step()
            self.ema.update(self.model)
        line["data-digest"] = int(self.mean(zlib.crc32(indices.numpy().tobytes())))
        if log:
            log.write(json.dumps(line) + "\n")
        if self.step % self.args.save_steps == 0 or self.step == self.args.max_steps_this_run:
            self.save()


def main():
    args = get_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    dist.init_process_group("gloo")
    trainer = Trainer(args)
    if args.resume_from:
        trainer.load(args.resume_from)
    log = open(args.metrics, "a", buffering=1) if trainer.rank == 0 else None
    trainer.train(log)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
