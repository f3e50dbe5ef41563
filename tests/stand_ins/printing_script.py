"""Stands in for a script that prints its loss, as most do: standard library only.

``--lines`` says how: a template for each kind of line. ``--forgets`` plants a resume bug; without ``--stop``
it cannot be told where to stop.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--iters", type=int, required=True)
parser.add_argument("--stop", type=int)
parser.add_argument("--save-every", type=int, required=True)
parser.add_argument("--save", type=Path, required=True)
parser.add_argument("--load", type=Path)
parser.add_argument("--print-every", type=int, default=1)
parser.add_argument("--line", default="step {step} loss {loss}")
parser.add_argument("--validate-every", type=int, default=0)
parser.add_argument("--from-zero", action="store_true", help="count steps from 0")
parser.add_argument("--forgets", default="")
parser.add_argument("--pause", type=float, default=0.0)
args = parser.parse_args()

noise, weight, momentum, done = random.Random(1), 3.0, 0.0, 0
if args.load:
    newest = max(args.load.glob("step_*.json"), key=lambda path: int(path.stem.split("_")[1]))
    state = json.loads(newest.read_text())
    done, weight = state["step"], state["weight"]
    momentum = 0.0 if args.forgets == "momentum" else state["momentum"]
    version, internal, gauss = state["rng"]
    noise.setstate((version, tuple(internal), gauss))
for i in range(done + 1, (args.stop or args.iters) + 1):
    loss = weight * weight + noise.random()
    momentum = 0.9 * momentum + 2 * weight * noise.random()
    weight -= 0.1 * (1 - i / args.iters) * momentum
    number = i - args.from_zero
    print(f"step {i}: data loaded", file=sys.stderr)
    if number % args.print_every == 0:
        print(args.line.format(step=number, loss=loss, time=time.time()))
    if args.validate_every and i % args.validate_every == 0:
        print(f"validation at {i}: {weight * weight}")
    if i % args.save_every == 0 or i == args.iters:
        state = {"step": i, "weight": weight, "momentum": momentum, "rng": noise.getstate()}
        (args.save / f"step_{i}.json").write_text(json.dumps(state))
    time.sleep(args.pause)
