"""Two processes below a launcher that looks after nobody: of one that is killed the other waits for ever.

The standard library only. Both save; rank 0 writes ``latest`` when both have.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

STEP, HALF = 0.01, 0.02  # s
RANKS = 2


def start(words: list[str]) -> int:
    """The launcher: ranks meet over a socket, and are waited for."""
    ours, theirs = socket.socketpair()
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, *words, "--socket", str(end.fileno())],
            env={**os.environ, "RANK": str(rank)},
            pass_fds=[end.fileno()],
            start_new_session=True,
        )
        for rank, end in enumerate((ours, theirs))
    ]
    return max(rank.wait() for rank in ranks)


def write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        time.sleep(HALF)
        file.write(text[len(text) // 2 :])
    os.replace(part, path)


def train(args: argparse.Namespace) -> None:
    rank, other = int(os.environ["RANK"]), socket.socket(fileno=args.socket)
    noise = random.Random(rank)
    weight, first = 3.0, 1
    latest = args.load / "latest" if args.load else None
    if latest is not None and latest.exists():
        folder = args.load / latest.read_text().strip()
        saved = json.loads((folder / f"rank_{rank}.json").read_text())
        weight, first = saved["weight"], saved["step"] + 1
        version, internal, gauss = saved["noise"]
        noise.setstate((version, tuple(internal), gauss))
    if rank == 0:
        (args.out / "loaded.json").write_text(json.dumps({"step": first - 1, "whole": True}))
    for step in range(first, args.iters + 1):
        time.sleep(STEP)
        mine = noise.random()
        other.sendall(f"{mine!r:<32}".encode())
        theirs = float(other.recv(32, socket.MSG_WAITALL).decode())
        weight -= 0.05 * weight * (mine + theirs)
        if rank == 0:
            with (args.out / "metrics.jsonl").open("a") as metrics:
                metrics.write(json.dumps({"step": step, "loss": weight * weight}) + "\n")
        if step % args.every == 0:
            folder = args.save / f"step_{step}"
            folder.mkdir(exist_ok=True)
            state = {"step": step, "weight": weight, "noise": noise.getstate()}
            write(folder / f"rank_{rank}.json", json.dumps(state))
            other.sendall(b"saved" + b" " * 27)
            other.recv(32, socket.MSG_WAITALL)
            if rank == 0:
                write(args.save / "latest", folder.name)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("save", "load", "out"):
        parser.add_argument(f"--{name}", type=Path)
    for name in ("iters", "every", "socket"):
        parser.add_argument(f"--{name}", type=int)
    args = parser.parse_args()
    if args.socket is None:
        sys.exit(start(sys.argv[1:]))
    train(args)


if __name__ == "__main__":
    main()
