"""Stands in for anybody's training script: standard library only, so that it starts at once.

One number is trained with momentum and noise. ``--layout`` says how checkpoints are called;
``--forgets`` plants a resume bug; without ``--stop`` it cannot be told where to stop.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iters", type=int, required=True)
    parser.add_argument("--stop", type=int)
    parser.add_argument("--every", type=int, required=True)
    parser.add_argument("--save", type=Path, required=True)
    parser.add_argument("--load", type=Path)
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--layout", default="iter_{:07d}/state.json")
    parser.add_argument("--forgets", default="")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds a step")
    parser.add_argument("--when-told-to-end", choices=("die", "save", "ignore"), default="die")
    return parser.parse_args()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def save(args: argparse.Namespace, state: dict[str, Any]) -> None:
    names = [name.format(state["iteration"]) for name in args.layout.split("+")]
    if len(names) == 2:
        write(args.save / names.pop(0), json.dumps({"model": state.pop("model")}))
    write(args.save / names[0], json.dumps(state))


def load(args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = [name.replace("{:07d}", "*").replace("{}", "*") for name in args.layout.split("+")]
    for name in names:
        files = sorted(args.load.glob(name), key=lambda path: (len(str(path)), path))
        found |= json.loads(files[-1].read_text()) if files else {}
    return found


def main() -> None:
    args = parse()
    noise = random.Random(1)
    state: dict[str, Any] = {"iteration": 0, "model": {"weight": 3.0}, "optimizer": {"momentum": 0.0}}
    saved = load(args) if args.load else {}
    state |= {key: value for key, value in saved.items() if key not in (args.forgets, "rng_state")}
    if "rng_state" in saved and args.forgets != "rng_state":
        version, internal, gauss = saved["rng_state"]
        noise.setstate((version, tuple(internal), gauss))
    ends: list[int] = []
    if args.when_told_to_end != "die":
        signal.signal(signal.SIGTERM, lambda number, _: ends.append(number))
    (weight,), (momentum,) = state["model"].values(), state["optimizer"].values()
    first = int(state["iteration"]) + 1
    with args.metrics.open("a") as metrics:
        for i in range(first, (args.stop or args.iters) + 1):
            loss = weight * weight + noise.random()
            momentum = 0.9 * momentum + 2 * weight * noise.random()
            weight -= 0.1 * (1 - i / args.iters) * momentum
            metrics.write(json.dumps({"iteration": i, "loss": loss, "weight": weight}) + "\n")
            state = {"iteration": i, "model": {"weight": weight}, "optimizer": {"momentum": momentum}}
            state["rng_state"] = noise.getstate()
            told = bool(ends) and args.when_told_to_end == "save"
            if i % args.every == 0 or i == args.iters or told:
                save(args, dict(state))
            if told:
                sys.exit(0)
            if args.pause:
                metrics.flush()
                time.sleep(args.pause)
    print("trained by", os.getpid())


if __name__ == "__main__":
    main()
