"""Trains two numbers, and logs as somebody's script does: `--logger`. Knows nothing of the harness."""

from __future__ import annotations

import argparse
import csv
import json
import random
import time
from pathlib import Path
from typing import Any


class Model:
    """Its momentum and its random stream are state; `--forgets momentum` plants a fault."""

    def __init__(self) -> None:
        self.step, self.w, self.m, self.rng = 0, 0.5, 0.0, random.Random(3)

    def train(self) -> float:
        self.step += 1
        gradient = 2 * (self.w - self.rng.random())
        self.m = 0.9 * self.m + gradient
        self.w -= 0.01 * self.m
        return gradient * gradient

    def state(self) -> dict[str, Any]:
        version, internal, gauss = self.rng.getstate()
        return {"step": self.step, "w": self.w, "momentum": self.m, "rng": [version, list(internal), gauss]}

    def load(self, state: dict[str, Any], forgets: str) -> None:
        self.step, self.w = state["step"], state["w"]
        self.m = 0.0 if forgets == "momentum" else state["momentum"]
        version, internal, gauss = state["rng"]
        self.rng.setstate((version, tuple(internal), gauss))


class Log:
    """One way to log."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.history = args, list[dict[str, Any]]()
        self.sum, self.trained = 0.0, 0

    def log(self, step: int, loss: float) -> None:
        raise NotImplementedError

    def validated(self, step: int, value: float) -> None:
        """Only some log that."""

    def end(self, step: int, loss: float) -> None:
        """Only some have last words."""


class Lines(Log):
    """With what people put beside the numbers, and last words as transformers' Trainer has them."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        buffered = args.logger == "buffered"
        self.file = (args.out / "metrics.jsonl").open("a", buffering=-1 if buffered else 1)
        if args.logger == "fields":
            print(json.dumps({"config": {"lr": 0.01, "host": "here"}, "seed": 3}), file=self.file)

    def log(self, step: int, loss: float) -> None:
        line: dict[str, Any] = {"step": step, "loss": loss}
        if self.args.logger == "fields":
            line = {"global_step": step, "rank": 0, "timestamp": time.time(), "training": True,
                    "stage": "fit",
                    "val_loss": None, "train": {"loss": loss, "seconds": time.time()},
                    "sys": {"free": time.time()}, "elapsed": "0:00:01",
                    "tokens_per_sec": time.time()}  # fmt: skip
        if self.args.logger == "last-words":
            line["epoch"] = step / 8
        print(json.dumps(line), file=self.file)
        self.sum, self.trained = self.sum + loss, self.trained + 1

    def validated(self, step: int, value: float) -> None:
        print(json.dumps({"step": step, "val_loss": value}), file=self.file)

    def end(self, step: int, loss: float) -> None:
        if self.args.logger == "last-words":
            last = {
                "step": step,
                "train_loss": self.sum / step,
                "train_runtime": time.time(),
                "epoch": step / 8,
            }
            print(json.dumps(last), file=self.file)


class Cells(Log):
    """As Lightning's CSVLogger, below a folder of its own."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        folder = args.out / "lightning_logs" / "version_0"
        folder.mkdir(parents=True, exist_ok=True)
        self.file = (folder / "metrics.csv").open("w", newline="", buffering=1)
        self.rows = csv.writer(self.file)
        self.rows.writerow(["epoch", "step", "train_loss", "val_loss"])

    def log(self, step: int, loss: float) -> None:
        self.rows.writerow([0, step - 1, repr(loss), ""])

    def validated(self, step: int, value: float) -> None:
        self.rows.writerow([0, step - 1, "", repr(value)])


class State(Log):
    """Nowhere but in its checkpoints, as transformers' Trainer with `report_to="none"`."""

    def log(self, step: int, loss: float) -> None:
        self.history.append({"loss": loss, "epoch": step / 8, "step": step})


class Boards(Log):
    """TensorBoard, with runs beside each other: `add_scalars`, `add_hparams`, Keras's folders."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        from torch.utils.tensorboard import SummaryWriter

        folder = args.out / "tensorboard"
        self.writers = {name: SummaryWriter(str(folder / name)) for name in ("", "train", "validation")}

    def log(self, step: int, loss: float) -> None:
        self.writers[""].add_scalars("loss", {"train": loss, "valid": loss * 2}, step)
        self.writers[""].add_scalar("lr", 0.01, step)
        self.writers["train"].add_scalar("epoch_loss", loss * 3, step)
        self.writers["validation"].add_scalar("epoch_loss", loss * 4, step)

    def end(self, step: int, loss: float) -> None:
        self.writers[""].add_hparams({"lr": 0.01}, {"final": loss})
        for writer in self.writers.values():
            writer.close()


LOGGERS = {"csv": Cells, "state": State, "boards": Boards}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--logger", required=True)
    parser.add_argument("--iters", type=int, required=True)
    parser.add_argument("--stop", type=int)
    parser.add_argument("--save-every", type=int, required=True)
    parser.add_argument("--validate-every", type=int)
    parser.add_argument("--save", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--load", type=Path)
    parser.add_argument("--forgets", default="")
    parser.add_argument("--pause", type=float, default=0.0)
    args = parser.parse_args()
    model, log, loss = Model(), LOGGERS.get(args.logger, Lines)(args), 0.0

    def validate() -> None:
        if args.validate_every and model.step % args.validate_every == 0:
            log.validated(model.step, model.w)

    if args.load and args.forgets != "all":
        newest = max(args.load.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        model.load(json.loads((newest / "state.json").read_text()), args.forgets)
        log.history = json.loads((newest / "trainer_state.json").read_text())["log_history"]
        validate()  # the process that saved had come to its end before
    stop = args.stop or args.iters
    while model.step < stop:
        loss = model.train()
        log.log(model.step, loss)
        if model.step % args.save_every == 0:
            folder = args.save / f"checkpoint-{model.step}"
            folder.mkdir()
            (folder / "state.json").write_text(json.dumps(model.state()))
            known = {"global_step": model.step, "log_history": log.history}
            (folder / "trainer_state.json").write_text(json.dumps(known))
        if model.step < stop:
            validate()
        time.sleep(args.pause)
    validate() if stop == args.iters else None
    log.end(model.step, loss)


if __name__ == "__main__":
    main()
