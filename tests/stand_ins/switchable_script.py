"""A training of two numbers that resumes as it should; SWITCH names what is wrong with it, or odd.

``STOP SAVE OUTPUT [LOAD]``. Standard library only. It trains N steps of one weight with momentum, and saves
at every EVERY-th and the last: its step, weight, momentum, position in the data and random state.
"""

import json
import os
import pathlib
import random
import sys
import time
from typing import Any

ON = os.environ.get("SWITCH", "").split(",")
N, EVERY = 20, 5


def checkpoint(save: pathlib.Path, step: int) -> pathlib.Path:
    return save / ("last.json" if "unnumbered" in ON else f"step_{step:04d}.json")


def newest(load: pathlib.Path, iteration: int | None = None) -> Any:
    paths = sorted(load.glob("*.json"))
    return json.loads((paths[-1] if iteration is None else checkpoint(load, iteration)).read_text())


def train(stop: int, save: pathlib.Path, out: pathlib.Path, load: pathlib.Path | None) -> None:
    rng = random.Random()
    rng.seed(1)
    state: Any = {"step": 0, "w": 1.0, "m": 0.0, "seen": 0, "history": [], "sessions": {"host": "here"}}
    if load is not None and "nothing_loaded" not in ON:
        state |= newest(load, 5 if "older" in ON else None)
        if "rng" not in ON:
            version, numbers, gauss = state["rng"]
            rng.setstate((version, tuple(numbers), gauss))
        for lost, value in (("m", 0.0), ("w", 1.0), ("seen", 0)):
            if f"lose_{lost}" in ON:
                state[lost] = value
    began, first = time.time(), state["step"] + 1
    end = min(stop, 15) if "ends_at_15" in ON else stop
    if load is not None and "resumed_ends_early" in ON:
        end -= 3
    if load is not None and "window" in ON:
        end = first + N - 1
    lines = list(state["history"]) if "replays" in ON else []
    if load is not None and "last_again" in ON:
        lines = state["history"][-1:]
    while state["step"] < end:
        state["step"] += 1
        gradient = state["w"] - rng.random()
        if "noise" in ON:
            gradient *= 1 + 1e-3 * random.SystemRandom().random()
        rate = 0.1 * (1 - state["step"] / (stop + 1 if "sees_stop" in ON else N + 1))
        state["m"] = 0.9 * state["m"] + gradient
        state["w"] -= rate * state["m"]
        state["seen"] += 4
        line = {"step": state["step"] - ("from_zero" in ON), "loss": state["w"] ** 2 + 1}
        if "time_only" in ON:
            line = {"step": state["step"], "iteration-time": 0.1}
        if "rate" in ON:
            line["lr"] = rate
        state["history"].append(line)
        lines.append(line)
        if state["step"] % EVERY == 0 or state["step"] == end:
            state["rng"] = rng.getstate()
            saved = dict(state, **{"seconds": time.time() - began} if "clock" in ON else {})
            if "history" not in ON and "replays" not in ON and "last_again" not in ON:
                saved.pop("history")
            checkpoint(save, state["step"]).write_text(json.dumps(saved))
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    stop, save, out, *load = sys.argv[1:]
    train(int(stop), pathlib.Path(save), pathlib.Path(out), pathlib.Path(load[0]) if load else None)
