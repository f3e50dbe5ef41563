"""A sound training that keeps its state in many places; LOSE names the one that is lost when it is resumed.

``STOP SAVE OUTPUT [LOAD]``. Standard library only, and torch for SHAPE=torch. Nothing that can be lost here
decides a curve, but for ``momentum``.
"""

import json
import os
import pathlib
import random
import sys
from typing import Any

LOSE, SHAPE = os.environ.get("LOSE", ""), os.environ.get("SHAPE", "")
N, K = 40, 20


def read(load: pathlib.Path) -> tuple[dict[str, Any], int, int, int]:
    state = json.loads(max(load.glob("*.json")).read_text())
    sampler = int((load / "sampler.yaml").read_text().split(": ")[1])
    linked = int((load / "data" / "position.txt").read_text())
    updates = 0
    if SHAPE == "torch":
        import torch

        updates = torch.load(load / f"step_{state['step']:04d}.pt", weights_only=False)["w"].updates
    return state, sampler, linked, updates


def write(save: pathlib.Path, state: dict[str, Any], sampler: int, linked: int, updates: int) -> None:
    name = "last" if SHAPE == "last" else f"step_{state['step']:04d}"
    (save / f"{name}.json").write_text(json.dumps(state))
    (save / "sampler.yaml").write_text(f"position: {sampler}\n")
    far = save.parent / f"far-{save.name}"
    far.mkdir(exist_ok=True)
    (far / "position.txt").write_text(str(linked))
    if not (save / "data").exists():
        (save / "data").symlink_to(far)
    if SHAPE == "torch":
        import torch

        weight = torch.tensor([state["w"]])
        weight.updates = updates  # type: ignore[attr-defined]
        torch.save({"w": weight}, save / f"{name}.pt")


def main() -> None:
    stop, save, out, *load = sys.argv[1:]
    state: dict[str, Any] = {"step": 0, "w": 1.0, "m": 0.0, "args": {"consumed_train_samples": 0}}
    sampler = linked = updates = 0
    digests = 1 << 62
    if load:
        state, sampler, linked, updates = read(pathlib.Path(load[0]))
        state["m"] = 0.0 if LOSE == "momentum" else state["m"]
        state["args"]["consumed_train_samples"] *= LOSE != "args"
        sampler, linked, updates = (
            sampler * (LOSE != "side"),
            linked * (LOSE != "linked"),
            updates * (LOSE != "attribute"),
        )
        digests += 100 * (LOSE == "digest")
    end = min(int(stop), 24) if LOSE == "end" else int(stop)
    with (pathlib.Path(out) / "metrics.jsonl").open("a") as log:
        while state["step"] < end:
            state["step"] += 1
            gradient = state["w"] - random.Random(state["step"]).random()
            state["m"] = 0.9 * state["m"] + gradient
            state["w"] -= 0.001 * state["m"]
            state["args"]["consumed_train_samples"] += 4
            sampler, linked, updates = sampler + 1, linked + 2, updates + 3
            line = {
                "step": state["step"],
                "loss": state["w"] ** 2 + 1,
                "batch-digest": digests + state["step"],
                "other": state["w"],
            }
            log.write(json.dumps(line) + "\n")
            if state["step"] in (K, N, end):
                write(pathlib.Path(save), state, sampler, linked, updates)


if __name__ == "__main__":
    main()
