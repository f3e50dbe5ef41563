"""Stands in for a script that is stopped more than once: standard library only, one number is trained.

``--fault`` plants what shows itself at some stops only, ``--keeps last`` overwrites its one checkpoint, and
``--in-place`` goes on in the folder that it was resumed from.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

DATA = [random.Random(7).random() for _ in range(5)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iters", type=int, required=True)
    parser.add_argument("--stop", type=int)
    parser.add_argument("--every", type=int, required=True)
    parser.add_argument("--save", type=Path, required=True)
    parser.add_argument("--load", type=Path)
    parser.add_argument("--keeps", choices=("all", "last", "beside"), default="all")
    parser.add_argument("--fault", default="")
    parser.add_argument("--pause", type=float, default=0.0)
    args = parser.parse_args()
    state: dict[str, Any] = {"iteration": 0, "weight": 1.0, "position": 0}
    if args.load:
        files = sorted(args.load.glob("*.json"), key=lambda path: (len(path.name), path.name))
        state |= json.loads([file for file in files if file.name != "position.json"][-1].read_text())
        if args.keeps == "beside":
            state |= json.loads((args.load / "position.json").read_text())
    began, taken_up = state["iteration"], state["position"]
    if args.fault == "crash" and state.get("resumed"):
        sys.exit("the second resume dies")
    if args.fault == "early" and 0 < began < 5:
        state["weight"] = 1.0
    with Path(os.environ["HARNESS_METRICS"]).open("a") as metrics:
        for i in range(began + 1, (args.stop or args.iters) + 1):
            loss = state["weight"] * DATA[state["position"] % len(DATA)]
            state = {
                "iteration": i,
                "weight": state["weight"] - 0.1 * loss,
                "position": state["position"] + 1,
            }
            metrics.write(json.dumps({"iteration": i, "loss": loss}) + "\n")
            metrics.flush()
            time.sleep(args.pause)
            if i % args.every and i not in (args.iters, args.stop):
                continue
            saved = {key: state[key] for key in ("iteration", "weight", "position")}
            if args.fault == "crash" and began and i < args.iters:
                saved["resumed"] = True
            if args.fault == "twice" and began and i < args.iters:
                saved["position"] -= taken_up
            args.save.mkdir(parents=True, exist_ok=True)
            if args.keeps == "beside":
                (args.save / "position.json").write_text(json.dumps({"position": saved.pop("position")}))
            name = "last.json" if args.keeps == "last" else f"step-{i}.json"
            (args.save / name).write_text(json.dumps(saved))


if __name__ == "__main__":
    main()
