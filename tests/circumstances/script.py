"""A sound training script; the cases have it beside them as ``train.py``.

It knows nothing of the harness. ``--shape`` says in which files it saves, ``--kind`` what they hold that is
no state: the time, the host, the job, the folder. All else that it saves it restores, but for what the
environment variable LOSE names. Standard library; torch only where it saves with it.
"""

from __future__ import annotations

import argparse
import collections
import csv
import datetime as dt
import io
import json
import os
import pickle
import random
import struct
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOSE = set(filter(None, os.environ.get("LOSE", "").split(",")))
TOKENS = 128  # a step
BEGAN = time.time()
STAMP = dt.datetime.now().strftime("%Y%m%dT%H%M%S%f")  # noqa: DTZ005  # as scripts do it


@dataclass
class Position:
    """Where the data loader is."""

    shard: int
    offset: int


def fresh() -> dict[str, Any]:
    """The books of a run that has made no step: nothing here decides a curve, and all of it is state."""
    return {
        "consumed_train_samples": 0, "tokens_seen": 0, "consumed": 0, "duration": 0, "version": 0,
        "epoch": 0, "best_metric": None, "loss_average": 0.0, "noise_key": 2**60, "warmed_up": False,
        "last_eval": None, "cursor": [0, 0, 0], "seen_shards": [], "shown": 0, "calls": 0,
        "streams": [{"name": "web", "position": 0}, {"name": "code", "position": 0}],
        "log_history": [], "best_k_models": {}, "best_model": None, "timings": {}, "elapsed": 0.0,
        "updates": 0, "offset": 0, "seen_words": 0, "window": [],
        "position": 0, "samples_read": 0, "shard": 0, "lines": 0, "blob": 0, "linked": 0, "hidden": 0,
        "reader": 0, "rows": [],
    }  # fmt: skip


class Run:
    """One launch."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.rng, self.w, self.m, self.step = random.Random(7), [0.5, -0.25], [0.0, 0.0], 0
        self.book = fresh()
        self.launch = _launches()
        self.host = f"node-{uuid.uuid4().hex[:6]}"  # every job gets another one
        self.job = random.SystemRandom().randrange(10**6, 10**8)
        self.run_id = uuid.uuid4()
        self.restored = 0.0

    def train(self) -> None:
        """To the end."""
        args, book = self.args, self.book
        with (args.out / "metrics.jsonl").open("a") as metrics:
            while self.step < args.stop:
                self.step += 1
                gradient = [self.rng.gauss(0, 1) - 0.1 * x for x in self.w]
                self.m = [0.9 * a + b for a, b in zip(self.m, gradient, strict=True)]
                self.w = [a + 0.1 * b for a, b in zip(self.w, self.m, strict=True)]
                loss = 1 + sum(x * x for x in self.w)
                metrics.write(json.dumps({"step": self.step, "loss": loss}) + "\n")
                metrics.flush()
                keep_books(self, loss)
                book["elapsed"] = self.restored + time.time() - BEGAN
                if self.step % args.every == 0:
                    self.save()
                    if self.step < args.iters and not args.load:
                        time.sleep(args.linger)

    # -- saving ------------------------------------------------------------------------------

    def save(self) -> None:
        """All files of this step."""
        for name, content in files(self).items():
            if self.args.load and name.rpartition("/")[2] in LOSE:
                continue
            path = self.args.save / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Link):
                (path.parent / content).mkdir(exist_ok=True)
                path.symlink_to(content, target_is_directory=True)
            else:
                temporary = path.with_name(path.name + ".tmp")
                temporary.write_bytes(to_bytes(path.suffix, content))
                temporary.replace(path)

    def load(self, folder: Path) -> None:
        """Put everything back, but for what is to be lost."""
        held: dict[str, Any] = {}
        for path in newest(self.args.shape, folder):
            merge(held, from_bytes(path.name, path.read_bytes()))
        self.step = held["step"]
        self.w, self.m = ([float(x) for x in held[a][b]] for a, b in (("model", "w"), ("optimizer", "m")))
        version, words, gauss = held["rng"]
        self.rng.setstate((version, tuple(words), gauss))
        for name, value in unbound(held).items():
            if name not in LOSE:
                self.book[name] = value
        if "a record" in LOSE:
            del self.book["log_history"][-1]
        if "a value" in LOSE:
            self.book["log_history"][-1]["loss"] = 0.0
        if "a score" in LOSE:
            self.book["best_k_models"] = dict.fromkeys(self.book["best_k_models"], 0.0)
        self.restored = self.book["elapsed"]


def keep_books(run: Run, loss: float) -> None:
    """Count this step."""
    book, step = run.book, run.step
    for name, by in (
        ("consumed_train_samples", 4), ("tokens_seen", TOKENS), ("consumed", 4), ("duration", 1),
        ("version", 1), ("noise_key", 1), ("shown", 4), ("calls", 1), ("updates", 1), ("offset", 512),
        ("seen_words", 90), ("position", 4), ("samples_read", 4), ("shard", 1), ("lines", 3), ("blob", 5),
        ("linked", 6), ("hidden", 7), ("reader", 8),
    ):  # fmt: skip
        book[name] += by
    book["epoch"] += step % 3 == 0
    book["best_metric"] = loss if book["best_metric"] is None else min(loss, book["best_metric"])
    book["loss_average"] = 0.9 * book["loss_average"] + 0.1 * loss
    book["warmed_up"] = book["warmed_up"] or step == 2
    book["last_eval"] = "after 2" if step == 2 else book["last_eval"]
    book["cursor"] = [at + by for at, by in zip(book["cursor"], (1, 2, 3), strict=True)]
    book["window"] = [*book["window"], step][-6:]
    book["streams"] = [
        {**stream, "position": stream["position"] + by}
        for stream, by in zip(book["streams"], (5, 7), strict=True)
    ]
    record = {"step": step, "loss": loss}
    if run.args.kind in ("history", "mixed"):
        took = time.time() - BEGAN
        record |= {"train_time": took, "samples_per_second": 4 * step / (took + 1e-9)}
    book["log_history"] = [*book["log_history"], record]
    if run.args.kind == "by_step":
        book["timings"] = {**book["timings"], f"step_{step}": time.time() - BEGAN}
    book["rows"] = [*book["rows"], row(run, len(book["rows"]))]
    if step % 2 == 0:
        book["seen_shards"] = [*book["seen_shards"], step // 2]
        folder = f"{run.args.save}/" if run.args.kind in ("folder", "folder_key", "objects", "mixed") else ""
        path = f"{folder}best_{step}.json"
        book["best_k_models"] = {**book["best_k_models"], path: loss}
        best = book["best_model"]
        book["best_model"] = [path, loss] if best is None or loss < best[1] else best


def row(run: Run, number: int) -> list[str]:
    """Of indices.csv."""
    cells = [str(number), str(17 * number % 8)]
    return [*cells, f"{time.time() - BEGAN:.7f}"] if run.args.kind == "csv_seconds" else cells


# -- what is no state --------------------------------------------------------------------------


def _launches() -> int:
    """How often this script was started before: a clock that only moves between launches."""
    if "CLOCK" not in os.environ:
        return 0
    with Path(os.environ["CLOCK"]).open("a+") as clock:
        clock.write(".")
        return clock.tell() - 1


def circumstances(run: Run) -> dict[str, Any]:
    """What this launch says about itself."""
    args, book, now = run.args, run.book, time.time()
    took, given = now - BEGAN + 1e-9, vars(args).items()
    iso = dt.datetime.now(dt.timezone.utc).isoformat()
    kinds: dict[str, dict[str, Any]] = {
        "wall_clock": {"saved_at": now},
        "elapsed": {"elapsed_s": book["elapsed"], "time": {"total": book["elapsed"], "this_launch": took}},
        "milliseconds": {"train_ms": int(1e6 * book["elapsed"])},
        "unix_seconds": {"timestamp": int(now)},
        "coarse_2": {"timestamp": 1_700_000_000 + run.launch // 2, "train_runtime": run.launch // 2},
        "coarse_3": {"timestamp": 1_700_000_000 + run.launch // 3, "train_runtime": run.launch // 3},
        "ctime": {"date": time.ctime(now)},
        "iso": {"created": iso, "info": {"finished": iso.replace("T", " ")}},
        "host": {"hostname": run.host, "rank_hosts": [run.host, f"{run.host}-b"]},
        "pid": {"pid": os.getpid()},
        "job": {"SLURM_JOB_ID": run.job, "job": {"SLURM_JOBID": str(run.job), "NODELIST": run.host}},
        "run_id": {"run_id": run.run_id.hex, "wandb": {"id": run.run_id.hex[:8], "name": f"run-{run.job}"}},
        "throughput": {"tokens_per_second": TOKENS * run.step / took, "stats": {"tflops": 1 / took}},
        "gpu_hours": {"gpu_hours": book["elapsed"] / 3600, "cost": {"usd": book["elapsed"] * 2}},
        "folder": {"output_dir": str(args.out), "checkpoint": {"dirpath": str(args.save),
                   "best_model_checkpoint": (book["best_model"] or [None])[0]}},
        "folder_key": {"files": {f"{args.save}/part_0.bin": 12, f"{args.out}/logs": {"lines": 3}}},
        "arguments": {"cli": {key: str(v) if isinstance(v, Path) else v for key, v in given}},
        "nested": {"environment": {"nodes": [{"name": run.host, "pids": [os.getpid(), run.job]}],
                   "events": [["start", BEGAN], ["save", now]]}},
        "by_step": {"timings": book["timings"]},
        "text_rate": {"status": f"step {run.step}/{args.iters}, {1 / took:.4f} it/s, eta {took:.5f} s"},
        "none": {}, "history": {}, "yaml_date": {}, "txt_date": {}, "csv_seconds": {}, "log_dates": {},
        "toml_date": {}, "stamped_file": {},
        "objects": {"saved_at": dt.datetime.now(), "took": dt.timedelta(seconds=took),  # noqa: DTZ005
                    "run_id": run.run_id, "where": args.out, "cli": argparse.Namespace(**vars(args))},
        "mixed": {"saved_at": now, "elapsed_s": book["elapsed"], "run_id": run.run_id.hex, "pid": os.getpid(),
                  "info": {"created": iso, "hostname": run.host, "output_dir": str(args.out)},
                  "tokens_per_second": TOKENS * run.step / took},
    }  # fmt: skip
    return kinds[args.kind]


# -- which file holds what ---------------------------------------------------------------------


class Link(str):
    """Where a linked folder really is, seen from the folder that the link is in."""

    __slots__ = ()


def core(run: Run) -> dict[str, Any]:
    """What decides the curves."""
    version, words, gauss = run.rng.getstate()
    state = {"step": run.step, "model": {"w": run.w}, "optimizer": {"m": run.m}}
    return {**state, "rng": [version, list(words), gauss]}


def bound(run: Run) -> dict[str, Any]:
    """The books, as a script of this kind lays them out."""
    book = run.book
    own = (
        "duration", "version", "epoch", "best_metric", "loss_average", "noise_key", "warmed_up", "last_eval",
        "cursor", "seen_shards", "streams", "log_history", "best_k_models", "window",
    )  # fmt: skip
    return {
        **{name: book[name] for name in own},
        "args": {"lr": 0.1, "consumed_train_samples": book["consumed_train_samples"]},
        "metadata": {"tokens_seen": book["tokens_seen"], "format": "pt"},
        "run_config": {"consumed": book["consumed"], "seed": 1},
        "progress": f"{book['shown']} of 1024 samples",
        "callbacks": {"Timer": {"calls": book["calls"]}, "EarlyStopping": {"best_model": book["best_model"]}},
        **circumstances(run),
    }


def unbound(held: dict[str, Any]) -> dict[str, Any]:
    """The books again."""
    book = {name: held[name] for name in fresh() if name in held}
    given = held["args"]
    given = vars(given) if isinstance(given, argparse.Namespace) else given
    book["consumed_train_samples"] = given["consumed_train_samples"]
    book["tokens_seen"] = held["metadata"]["tokens_seen"]
    book["consumed"] = held["run_config"]["consumed"]
    book["shown"] = int(held["progress"].split()[0])
    book["calls"] = held["callbacks"]["Timer"]["calls"]
    book["best_model"] = held["callbacks"]["EarlyStopping"]["best_model"]
    book["cursor"] = [int(at) for at in held["cursor"]]
    book["updates"] = getattr(held["model"]["w"], "updates", 0)
    if "loader" in held:
        book["offset"], book["seen_words"] = held["loader"].offset, held["words"]["seen_words"]
        book["window"], book["seen_shards"] = list(held["window"]), sorted(held["seen_shards"])
    book["elapsed"] = held.get("elapsed_s", held.get("cost", {}).get("usd", 0) / 2)
    return book


def as_objects(run: Run, state: dict[str, Any]) -> dict[str, Any]:
    """With the classes that a pickle may hold."""
    return {
        **state,
        "args": argparse.Namespace(**state["args"]),
        "loader": Position(run.book["version"], run.book["offset"]),
        "words": collections.Counter(seen_words=run.book["seen_words"]),
        "window": collections.deque(state["window"], maxlen=6),
        "seen_shards": set(state["seen_shards"]),
        "metadata": collections.OrderedDict(state["metadata"]),
    }


def as_tensors(run: Run, state: dict[str, Any]) -> dict[str, Any]:
    """With tensors, one of which has an attribute of its own."""
    import torch

    w = torch.tensor(run.w, dtype=torch.float64)
    w.updates = run.book["updates"]  # type: ignore[attr-defined]
    state |= {"model": {"w": w}, "optimizer": {"m": torch.tensor(run.m, dtype=torch.float64)}}
    return {**state, "cursor": torch.tensor(run.book["cursor"])} if "cursor" in state else state


def beside(run: Run) -> dict[str, Any]:
    """Small files of other formats; each holds state."""
    book, kind = run.book, run.args.kind
    date = dt.datetime.now().isoformat(" ")  # noqa: DTZ005
    log = [f"step {step} lines {book['lines'] - 3 * (run.step - step)}" for step in (run.step - 1, run.step)]
    if kind == "log_dates":
        log = [f"{date} INFO {line}" for line in log]
    header = ["number", "index"] + (["seconds"] if kind == "csv_seconds" else [])
    stamped = f"reader-{STAMP}.json" if kind == "stamped_file" else "reader.json"
    return {
        "sampler.yaml": {"position": book["position"]} | ({"date": date} if kind == "yaml_date" else {}),
        "notes.txt": [f"samples read: {book['samples_read']}", *([f"written {date}"] * (kind == "txt_date"))],
        "indices.csv": [header, *book["rows"]],
        "progress.toml": {"shard": book["shard"]} | ({"date": date} if kind == "toml_date" else {}),
        "train.log": log,
        stamped: {"reader": book["reader"]},
    }


def files(run: Run) -> dict[str, Any]:
    """What is written at this step, by name."""
    step, both = run.step, {**core(run), **bound(run)}
    shape = run.args.shape
    if shape == "numbered":
        return {f"step_{step:06d}.json": both}
    if shape == "stamped":
        return {f"step_{step:06d}-{STAMP}.json": both}
    if shape == "last":
        return {"last.json": both}
    if shape == "pickled":
        return {f"ckpt_{step}.pkl": as_objects(run, both)}
    if shape == "torch":
        whole = as_tensors(run, both)
        return {f"epoch=0-step={step}.ckpt": as_objects(run, whole) if run.args.kind == "objects" else whole}
    if shape == "pair":
        return {f"model_{step}.pkl": core(run), f"meta_{step}.json": bound(run)}
    if shape == "torch_pair":
        return {f"model_{step}.pt": as_tensors(run, core(run)), f"meta_{step}.json": bound(run)}
    if shape == "beside":  # small files without a number, beside the numbered ones
        numbered = {f"step_{step:06d}.json": both, "sampler/state.json": {"linked": run.book["linked"]}}
        return numbered | beside(run)
    assert shape == "folder"
    inside: dict[str, Any] = {
        "model.json": core(run), "trainer_state.json": bound(run), **beside(run),
        "rng.bin": run.book["blob"], ".loader.json": {"hidden": run.book["hidden"]},
        "data": Link(f"../data_{step}"),
        "data/index.json": {"linked": run.book["linked"]},
    }  # fmt: skip
    return {f"checkpoint-{step}/{name}": content for name, content in inside.items()}


def newest(shape: str, folder: Path) -> list[Path]:
    """The files of the last checkpoint."""
    if shape in ("numbered", "stamped"):
        return [max(folder.glob("step_*.json"))]
    if shape == "last":
        return [folder / "last.json"]
    if shape == "folder":
        within = max(folder.glob("checkpoint-*"))
        return [path for path in (*within.iterdir(), within / "data" / "index.json") if path.is_file()]
    if shape == "beside":
        others = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("step_")]
        return [max(folder.glob("step_*.json")), *others]
    if shape in ("pair", "torch_pair"):
        return [max(folder.glob("model_*")), max(folder.glob("meta_*"))]
    return [max(path for path in folder.iterdir() if path.suffix in (".pkl", ".ckpt"))]


# -- formats -----------------------------------------------------------------------------------


def to_bytes(suffix: str, content: Any) -> bytes:
    """A file's content."""
    if suffix == ".json":
        return json.dumps(content, indent=1).encode()
    if suffix == ".pkl":
        return pickle.dumps(content)
    if suffix in (".pt", ".ckpt"):
        import torch

        whole = io.BytesIO()
        torch.save(content, whole)
        return whole.getvalue()
    if suffix == ".csv":
        return "".join(",".join(cells) + "\n" for cells in content).encode()
    if suffix in (".txt", ".log"):
        return "".join(f"{line}\n" for line in content).encode()
    if suffix == ".bin":
        return struct.pack("<q", content)
    between = {".yaml": ": ", ".toml": " = "}[suffix]
    return "".join(f"{key}{between}{_quoted(value)}\n" for key, value in content.items()).encode()


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def from_bytes(name: str, content: bytes) -> dict[str, Any]:
    """What a file holds of the books or of the model."""
    suffix = Path(name).suffix
    if suffix == ".pkl":
        return dict(pickle.loads(content))
    if suffix in (".pt", ".ckpt"):
        import torch

        return dict(torch.load(io.BytesIO(content), weights_only=False))
    if suffix == ".bin":
        return {"blob": struct.unpack("<q", content)[0]}
    text = content.decode()
    if suffix == ".json":
        return dict(json.loads(text))
    if suffix == ".csv":
        return {"rows": list(csv.reader(io.StringIO(text)))[1:]}
    if suffix == ".log":
        return {"lines": int(text.split()[-1])}
    if suffix == ".txt":
        return {"samples_read": int(text.splitlines()[0].rpartition(" ")[2])}
    key, value = text.splitlines()[0].replace(" =", ":").split(": ")
    return {key: int(value)}


def merge(held: dict[str, Any], more: dict[str, Any]) -> None:
    """Files of one checkpoint have no name in common."""
    assert not held.keys() & more.keys()
    held.update(more)


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", required=True)
    parser.add_argument("--kind", required=True)
    parser.add_argument("--iters", type=int, required=True)
    parser.add_argument("--every", type=int, required=True)
    parser.add_argument("--stop", type=int, help="where this launch ends, if not at --iters")
    parser.add_argument("--linger", type=float, default=0.0, help="seconds after a save")
    parser.add_argument("--save", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--load", type=Path)
    args = parser.parse_args()
    args.stop = args.stop or args.iters
    run = Run(args)
    if args.load:
        run.load(args.load)
    run.train()


if __name__ == "__main__":
    main()
