"""Trains one number, and saves on the disk of its node; on the shared folder is what names the last file."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stop", type=int, required=True)
    for name in ("save", "load", "metrics", "keep"):
        parser.add_argument(f"--{name}", type=Path)
    args = parser.parse_args()
    state = {"step": 0, "weight": 3.0, "momentum": 0.0}
    latest = args.load / "latest.txt" if args.load else None
    if latest is not None and latest.exists():
        path = Path(latest.read_text().strip())
        if path.exists():
            state = json.loads(path.read_text())
        else:
            print(f"{path} is not there: training begins anew")
    with args.metrics.open("a") as metrics:
        for step in range(int(state["step"]) + 1, args.stop + 1):
            pull = random.Random(step).random()
            momentum = 0.9 * state["momentum"] + pull * state["weight"]
            state = {"step": step, "weight": state["weight"] - 0.1 * momentum, "momentum": momentum}
            metrics.write(json.dumps({"step": step, "loss": state["weight"] ** 2}) + "\n")
            if step % 5 == 0:
                keep = args.keep or args.save
                keep.mkdir(parents=True, exist_ok=True)
                path = keep / f"state_{step}.json"
                path.write_text(json.dumps(state))
                (args.save / "latest.txt").write_text(f"{path}\n")


if __name__ == "__main__":
    main()
