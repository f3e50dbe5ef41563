"""A trainer that is nobody's in particular: next-token prediction with a GRU, its own log and checkpoints.

Nothing in it is like the native trainer: one ``torch.save`` of tuples, lists and numbers nested its own way,
``checkpoint-<n>/whole.pt`` with a ``last`` link, a JSON-lines log, words of its own. ``FORGETS`` names what a
load leaves as a new process makes it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from pathlib import Path

import torch
from torch import nn

WORDS, WIDTH, LENGTH, SAMPLES, BATCH = 24, 16, 8, 44, 4
FORGETS = set(filter(None, os.environ.get("FORGETS", "").split(",")))


class Brain(nn.Module):
    """Embedding, GRU, dropout, read-out."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(WORDS, WIDTH)
        self.cell = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.readout = nn.Linear(WIDTH, WORDS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.cell(self.wte(tokens))
        logits: torch.Tensor = self.readout(nn.functional.dropout(hidden, 0.2, self.training))
        return logits


class Reader:
    """Samples in an order that is new in every epoch."""

    def __init__(self) -> None:
        self.epoch, self.cursor = 0, 0
        table = torch.randint(WORDS, (WORDS, 3), generator=torch.Generator().manual_seed(5))
        choice = torch.randint(3, (SAMPLES, LENGTH), generator=torch.Generator().manual_seed(6))
        rows = [torch.arange(SAMPLES) % WORDS]
        for i in range(LENGTH):
            rows.append(table[rows[-1], choice[:, i]])
        self.samples = torch.stack(rows, 1)

    def batch(self) -> torch.Tensor:
        picked = []
        for _ in range(BATCH):
            if self.cursor == SAMPLES:
                self.epoch, self.cursor = self.epoch + 1, 0
            order = list(range(SAMPLES))
            random.Random(self.epoch).shuffle(order)
            picked.append(self.samples[order[self.cursor]])
            self.cursor += 1
        return torch.stack(picked)


class Teacher:
    """Adam by hand, under a warm-up and a decay."""

    rate, betas = 2e-2, (0.9, 0.95)

    def __init__(self, brain: Brain, steps: int) -> None:
        self.brain, self.steps = brain, steps
        self.first = [torch.zeros_like(p) for p in brain.parameters()]
        self.second = [torch.zeros_like(p) for p in brain.parameters()]
        self.count, self.scheduled = 0, 0

    def lr(self) -> float:
        part = self.scheduled / self.steps
        return self.rate * min(1.0, 5 * part + 0.1) * (1.1 - part)

    def step(self) -> None:
        rate, (slow, slower) = self.lr(), self.betas
        self.count, self.scheduled = self.count + 1, self.scheduled + 1
        for value, m, v in zip(self.brain.parameters(), self.first, self.second, strict=True):
            assert value.grad is not None
            m.lerp_(value.grad, 1 - slow)
            v.lerp_(value.grad.square(), 1 - slower)
            size = (v / (1 - slower**self.count)).sqrt() + 1e-8
            value.data.sub_(rate * m / (1 - slow**self.count) / size)
            value.grad = None


class Run:
    """All that goes on."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(7)
        torch.set_num_threads(1)
        self.options, self.done = options, 0
        self.brain, self.reader = Brain(), Reader()
        self.teacher = Teacher(self.brain, options.iters)
        self.mean = {name: value.detach().clone() for name, value in self.brain.named_parameters()}

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        logits = self.brain(batch[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    def step(self) -> dict[str, float]:
        loss = self.loss(self.reader.batch())
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.brain.parameters(), 1.0)
        told = {"loss": float(loss.detach()), "lr": self.teacher.lr(), "gnorm": float(norm)}
        self.teacher.step()
        for name, value in self.brain.named_parameters():
            self.mean[name].lerp_(value.detach(), 0.1)
        self.done += 1
        return told

    def judge(self) -> float:
        """The loss of the averaged weights on samples that are always the same."""
        own = {name: value.detach().clone() for name, value in self.brain.named_parameters()}
        self.brain.load_state_dict(self.mean)
        self.brain.eval()
        with torch.no_grad():
            loss = float(self.loss(self.reader.samples[:8]))
        self.brain.train()
        self.brain.load_state_dict(own)
        return loss

    def write(self) -> None:
        teacher, reader = self.teacher, self.reader
        whole = {
            "progress": [
                {"iteration": self.done}, ("reader", {"epoch": reader.epoch, "cursor": reader.cursor}),
            ],
            "brain": (list(self.brain.state_dict().items()), {"ema": self.mean}),
            "teacher": [{"adam": {"moments": (teacher.first, teacher.second), "step": teacher.count}},
                        {"lr_scheduler": teacher.scheduled}],
            "rng_state": {"cpu": torch.get_rng_state()},
        }  # fmt: skip
        folder = self.options.save / f"checkpoint-{self.done}"
        folder.mkdir(parents=True)
        torch.save(whole, folder / "whole.pt")
        last = self.options.save / "last"
        last.unlink(missing_ok=True)
        last.symlink_to(folder.name)

    def read(self) -> None:
        if "everything" in FORGETS:
            return
        whole = torch.load(self.options.load / "last" / "whole.pt")
        (progress, (_, reader)), (brain, more) = whole["progress"], whole["brain"]
        adam, schedule = whole["teacher"]
        own = self.brain.state_dict()
        forgotten = {name for name in own if "weights" in FORGETS and "cell" in name}
        self.brain.load_state_dict({name: own[name] if name in forgotten else v for name, v in brain})
        if "iteration" not in FORGETS:
            self.done = progress["iteration"]
        if "data" not in FORGETS:
            self.reader.epoch, self.reader.cursor = reader["epoch"], reader["cursor"]
        if "ema" not in FORGETS:
            self.mean = more["ema"]
        if "moments" not in FORGETS:
            self.teacher.first, self.teacher.second = adam["adam"]["moments"]
        if "counter" not in FORGETS:
            self.teacher.count = adam["adam"]["step"]
        if "schedule" not in FORGETS:
            self.teacher.scheduled = schedule["lr_scheduler"]
        if "rng" not in FORGETS:
            torch.set_rng_state(whole["rng_state"]["cpu"])


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("iters", "stop", "every"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("out", "save", "load"):
        parser.add_argument(f"--{name}", type=Path)
    options = parser.parse_args()
    run = Run(options)
    if options.load is not None:
        run.read()
    with (options.out / "metrics.jsonl").open("a") as log:
        while run.done < options.stop:
            told = run.step()
            if run.done % 4 == 0:
                told["val_loss"] = run.judge()
            print(json.dumps({"iteration": run.done, **told}), file=log, flush=True)
            if run.done % options.every == 0:
                run.write()


if __name__ == "__main__":
    main()
