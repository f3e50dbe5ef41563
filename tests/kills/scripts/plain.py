"""A plain script: one number, momentum and noise; ``--how`` says how it saves, and how it reads that again.

The standard library only, so that it starts at once. Each save has a checksum as its last line; what the
script has read of it, and whether that was whole, it notes in ``loaded.json`` for the tests, not for itself.

    atomic      a new file under another name, then its own; then ``latest``
    last        the same, one file only, which tells no iteration
    checked     in place, and what is not whole is passed over for the one before
    lenient     in place, ``latest`` first; what is missing is as at the beginning (planted)
    lenient-last   the same, one file only (planted)
    parts       two files in a folder, in place, ``latest`` first; what is missing is made up (planted)
    strict      in place, ``latest`` first; what is not whole is an error, and no older one is tried (planted)
    forgiving   the same, and then it begins anew (planted)
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
import zlib
from pathlib import Path
from typing import Any

STEP, HALF = 0.02, 0.02  # s: of a step, and between the halves of a save
NEW: dict[str, Any] = {"step": 0, "weight": 3.0, "momentum": 0.0, "noise": None}


def write(path: Path, text: str) -> None:
    """In two halves, as a larger file would come."""
    with path.open("w") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        time.sleep(HALF)
        file.write(text[len(text) // 2 :])


def named(folder: Path, step: int) -> None:
    (folder / "latest.part").write_text(f"step_{step}.txt\n")
    os.replace(folder / "latest.part", folder / "latest")


def save(folder: Path, how: str, state: dict[str, Any]) -> None:
    lines = [f"{key} {json.dumps(value)}" for key, value in state.items()]
    text = "\n".join(lines) + "\n"
    text += f"sum {zlib.crc32(text.encode())}\n"
    path = folder / ("last.txt" if how in ("last", "lenient-last") else f"step_{state['step']}.txt")
    if how in ("atomic", "last"):
        write(path.with_name(path.name + ".part"), text)
        os.replace(path.with_name(path.name + ".part"), path)
        if how == "atomic":
            named(folder, state["step"])
        return
    if how == "parts":
        named(folder, state["step"])
        path = path.with_suffix("")
        path.mkdir(exist_ok=True)
        write(path / "model.json", json.dumps({"step": state["step"], "weight": state["weight"]}))
        write(path / "rest.json", json.dumps({"momentum": state["momentum"], "noise": state["noise"]}))
        return
    if how in ("lenient", "strict", "forgiving"):
        named(folder, state["step"])
    write(path, text)


def read(path: Path) -> tuple[dict[str, Any], bool]:
    """What there is of a save, and whether it is whole."""
    text = path.read_text()
    body, _, checksum = text.rpartition("sum ")
    whole = checksum.strip().isdigit() and zlib.crc32(body.encode()) == int(checksum)
    state = dict(NEW)
    for line in (body if whole else text).splitlines():
        key, _, value = line.partition(" ")
        try:
            state[key] = json.loads(value)
        except ValueError:
            break
    return {key: state[key] for key in NEW}, whole


def read_parts(folder: Path) -> tuple[dict[str, Any], bool]:
    state, whole = dict(NEW), True
    for name in ("model.json", "rest.json"):
        try:
            state |= json.loads((folder / name).read_text())
        except (OSError, ValueError):
            whole = False
    return state, whole


def load(folder: Path, how: str) -> tuple[dict[str, Any], bool]:
    if how == "parts":
        latest = folder / "latest"
        named = folder / latest.read_text().strip().removesuffix(".txt") if latest.exists() else None
        if named is None:
            return dict(NEW), True
        state, whole = read_parts(named)
        return state | {"step": int(named.name[5:])}, whole
    files = sorted(folder.glob("step_*.txt"), key=lambda path: int(path.stem[5:]))
    if how in ("last", "lenient-last"):
        files = [folder / "last.txt"] if (folder / "last.txt").exists() else []
    elif how != "checked":
        latest = folder / "latest"
        files = [folder / latest.read_text().strip()] if latest.exists() else []
    for path in reversed(files):
        if not path.exists() and how in ("lenient", "forgiving"):
            break
        state, whole = read(path)
        if whole or how in ("lenient", "lenient-last"):
            if how == "lenient":
                state["step"] = int(path.stem[5:])
            return state, whole
        if how == "strict":
            raise RuntimeError(f"cannot load the checkpoint {path}: its checksum is wrong")
        if how == "forgiving":
            break
    return dict(NEW), True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--how", required=True)
    parser.add_argument("--iters", type=int, required=True)
    parser.add_argument("--every", type=int, required=True)
    parser.add_argument("--save", type=Path, required=True)
    parser.add_argument("--load", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    state, whole = load(args.load, args.how) if args.load else (dict(NEW), True)
    (args.out / "loaded.json").write_text(json.dumps({"step": state["step"], "whole": whole}))
    noise = random.Random(1)
    if state["noise"]:
        version, internal, gauss = state["noise"]
        noise.setstate((version, tuple(internal), gauss))
    weight, momentum = state["weight"], state["momentum"]
    with (args.out / "metrics.jsonl").open("a") as metrics:
        for step in range(state["step"] + 1, args.iters + 1):
            time.sleep(STEP)
            loss = weight * weight + noise.random()
            momentum = 0.9 * momentum + 2 * weight * noise.random()
            weight -= 0.1 * (1 - step / args.iters) * momentum
            metrics.write(json.dumps({"step": step, "loss": loss, "weight": weight}) + "\n")
            metrics.flush()
            if step % args.every == 0 or step == args.iters:
                save(args.save, args.how, {"step": step, "weight": weight, "momentum": momentum,
                                           "noise": noise.getstate()})  # fmt: skip


if __name__ == "__main__":
    main()
