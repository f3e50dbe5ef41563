"""Trains four numbers, and forgets what `--forgets` says when it is resumed. Knows nothing of the harness.

What it keeps: weights, two moments, an average of the weights, a random stream, the place in the data, the
place in the schedule; and a word that nobody reads again.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from pathlib import Path
from typing import Any

SIZE = 4


class Training:
    """All that a step decides, and is decided by."""

    def __init__(self) -> None:
        self.step, self.position, self.epoch, self.last_epoch = 0, 0, 0, 0
        self.w = [0.5, -0.25, 0.125, 0.75]
        self.exp_avg, self.exp_avg_sq = [0.0] * SIZE, [0.0] * SIZE
        self.average = list(self.w)
        self.rng = random.Random(3)
        self.samples = [[random.Random(100 * i + j).random() for j in range(SIZE)] for i in range(7)]

    def train(self) -> dict[str, float]:
        """One step."""
        self.step += 1
        sample = self.samples[self.position]
        self.position += 1
        if self.position == len(self.samples):
            self.position, self.epoch = 0, self.epoch + 1
        noise = self.rng.random() * 0.1
        errors = [w - x - noise for w, x in zip(self.w, sample, strict=True)]
        rate = 0.1 / (1 + self.last_epoch / 10)
        self.last_epoch += 1
        for i, error in enumerate(errors):
            self.exp_avg[i] = 0.9 * self.exp_avg[i] + 0.1 * error
            self.exp_avg_sq[i] = 0.99 * self.exp_avg_sq[i] + 0.01 * error * error
            self.w[i] -= rate * self.exp_avg[i] / (math.sqrt(self.exp_avg_sq[i]) + 1e-3)
        self.average = [0.9 * a + 0.1 * w for a, w in zip(self.average, self.w, strict=True)]
        return {"loss": sum(error * error for error in errors)}

    def state(self) -> dict[str, Any]:
        """What is saved."""
        version, internal, gauss = self.rng.getstate()
        return {
            "step": self.step,
            "model": {"w": self.w},
            "optimizer": {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq},
            "ema": self.average,
            "rng": [version, list(internal), gauss],
            "sampler": {"position": self.position, "epoch": self.epoch},
            "scheduler": {"last_epoch": self.last_epoch},
            "made_with": "version 3",
        }

    def load(self, state: dict[str, Any], forgets: str) -> None:
        """Take it up, but for what is forgotten."""
        self.step = state["step"]
        if forgets != "weights":
            self.w = state["model"]["w"]
        if forgets != "first-moment":
            self.exp_avg = state["optimizer"]["exp_avg"]
        self.exp_avg_sq = state["optimizer"]["exp_avg_sq"]
        if forgets != "average":
            self.average = state["ema"]
        if forgets != "rng":
            version, internal, gauss = state["rng"]
            self.rng.setstate((version, tuple(internal), gauss))
        if forgets != "position":
            self.position, self.epoch = state["sampler"]["position"], state["sampler"]["epoch"]
        self.last_epoch = state["scheduler"]["last_epoch"]
        if forgets == "schedule":
            self.last_epoch += 1


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--iters", type=int)
    parser.add_argument("--stop", type=int)
    parser.add_argument("--every", type=int)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--metrics", type=Path)
    parser.add_argument("--load", type=Path)
    parser.add_argument("--forgets", default="")
    parser.add_argument("--no-last", action="store_true", help="save where it is due only")
    args = parser.parse_args()
    training, shown = Training(), 0
    if args.load is not None:
        newest = max(args.load.glob("step_*.json"))
        if args.forgets == "everything":
            shown = int(newest.stem.removeprefix("step_"))
        else:
            training.load(json.loads(newest.read_text()), args.forgets)
    with args.metrics.open("a") as log:
        while training.step < args.stop:
            values = training.train()
            if training.step > shown:
                log.write(json.dumps({"step": training.step, **values}) + "\n")
            if training.step % args.every == 0 or (training.step == args.stop and not args.no_last):
                path = args.save / f"step_{training.step:06d}.json"
                path.write_text(json.dumps(training.state()))


if __name__ == "__main__":
    main()
