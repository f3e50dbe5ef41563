"""State diff of two big checkpoints: peak memory, and throughput against ``cat`` on the same files.

    python -m benchmarks.bench_state_diff [--folder /some/disk] [--gigabytes 2] [--repeats 3] [--formats …]

Makes two checkpoints of each format in the folder, three ways apart (equal; one element; every
element), measures each comparison in a process of its own, removes everything again. ``cat`` reads
both checkpoints. ``cat`` and diff take turns, with the files in the page cache and with them dropped
from it before each; medians, with the range of the ratios. Prints a Markdown table and one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

FORMATS = ("torch", "torch_dist", "safetensors")
LAYER = (4096, 4096)
ROOT = Path(__file__).parents[1]


def make(folder: Path, gigabytes: float, kind: str, change: str) -> None:
    """Write a checkpoint under native names: weights, masters and both moments of many layers."""
    import torch
    import torch.distributed.checkpoint as dcp

    torch.manual_seed(0)
    size = LAYER[0] * LAYER[1] * 4
    names = ("model", "optimizer.master", "optimizer.exp_avg", "optimizer.exp_avg_sq")
    layers = max(1, round(gigabytes * (1 << 30) / size / len(names)))
    base = torch.randn(LAYER)
    tensors = {
        f"{name}.decoder.layers.{i}.mlp.linear_fc1.weight": base + i for i in range(layers) for name in names
    }
    tensors["iteration"] = torch.tensor(50)
    if change == "one":
        tensors[f"model.decoder.layers.{layers - 1}.mlp.linear_fc1.weight"][-1, -1] += 1
    elif change == "all":
        for tensor in tensors.values():
            tensor.add_(1)
    folder.mkdir(parents=True)
    if kind == "safetensors":
        shards(folder, tensors)
    elif kind == "torch_dist":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.save(tensors, checkpoint_id=folder, no_dist=True)
    else:
        rank = folder / "mp_rank_00_000"
        rank.mkdir()
        content = {"format": "native-torch-1", "tensors": tensors, "shards": {}, "aliases": {}}
        torch.save(content, rank / "model_optim_rng.pt")


def shards(folder: Path, tensors: dict[str, Any], count: int = 4) -> None:
    """Safetensors as transformers writes them: some files, and an index."""
    from safetensors.torch import save_file

    names = sorted(tensors)
    where: dict[str, str] = {}
    for i in range(count):
        file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        held = names[i * len(names) // count : (i + 1) * len(names) // count]
        save_file({name: tensors[name] for name in held}, folder / file, {"format": "pt"})
        where |= dict.fromkeys(held, file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def resident(what: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {what}")


def measure(a: Path, b: Path) -> None:
    """In a process of its own: compare, print what it took."""
    import torch  # noqa: F401 - the yardstick is an interpreter with torch

    from harness.checkpoints import diff

    before = resident("VmRSS")
    started, worked = time.perf_counter(), time.process_time()
    found = diff(a, b)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu": cpu,
                "above_mb": (resident("VmHWM") - before) / 1e6,
                "bytes": found.bytes_read,
                "differing": sum(e.differing for e in found.entries),
            }
        )
    )


def files_of(*folders: Path) -> list[Path]:
    """Every file of the checkpoints."""
    return [p for folder in folders for p in sorted(folder.rglob("*")) if p.is_file()]


def drop(files: list[Path]) -> None:
    """Out of the page cache, without being root."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def cat(files: list[Path]) -> float:
    """Seconds that ``cat FILES > /dev/null`` takes."""
    with Path(os.devnull).open("wb") as sink:
        started = time.perf_counter()
        subprocess.run(["cat", *map(str, files)], stdout=sink, check=True)
        return time.perf_counter() - started


def child(*words: str) -> str:
    """Run this file again; returns what it prints."""
    command = [sys.executable, "-m", "benchmarks.bench_state_diff", *words]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def rows(folder: Path, gigabytes: float, repeats: int, formats: Iterable[str]) -> Iterator[dict[str, Any]]:
    """One row per format, distance and state of the page cache."""
    for kind in formats:
        for change in ("none", "one", "all"):
            root = Path(tempfile.mkdtemp(dir=folder, prefix="bench-state-diff-"))
            try:
                a, b = root / "a", root / "b"
                child("--make", kind, "none", str(a), "--gigabytes", str(gigabytes))
                child("--make", kind, change, str(b), "--gigabytes", str(gigabytes))
                for cache in ("cold", "warm"):
                    taken = [turn(a, b, cold=cache == "cold", diff_first=i % 2 == 1) for i in range(repeats)]
                    speed = {key: [one[key] for one in taken] for key in ("diff", "cat")}
                    ratios = [d / c for d, c in zip(speed["diff"], speed["cat"], strict=True)]
                    yield {
                        "format": kind,
                        "apart": change,
                        "cache": cache,
                        "diff_gb_per_s": statistics.median(speed["diff"]),
                        "cat_gb_per_s": statistics.median(speed["cat"]),
                        "ratio": statistics.median(ratios),
                        "ratios": ratios,
                        "cores": statistics.median(one["cores"] for one in taken),
                        "above_mb": max(one["above_mb"] for one in taken),
                    }
            finally:
                shutil.rmtree(root)


def turn(a: Path, b: Path, *, cold: bool, diff_first: bool) -> dict[str, Any]:
    """``cat`` and diff, each once, GB per second by the clock."""
    files = files_of(a, b)
    size = sum(path.stat().st_size for path in files)
    found: dict[str, Any] = {}
    for who in ("diff", "cat") if diff_first else ("cat", "diff"):
        if cold:
            drop(files)
        if who == "cat":
            found["cat"] = size / cat(files) / 1e9
        else:
            done = json.loads(child("--measure", str(a), str(b)))
            cores = done["cpu"] / done["seconds"]
            found |= {"diff": done["bytes"] / done["seconds"] / 1e9, "cores": cores}
            found["above_mb"] = done["above_mb"]
    return found


def main() -> None:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of each checkpoint")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make(Path(args.make[2]), args.gigabytes, args.make[0], args.make[1])
        return
    if args.measure:
        measure(*args.measure)
        return
    needed, free = 2 * args.gigabytes * 1.1e9, shutil.disk_usage(args.folder).free
    if free < needed:
        raise SystemExit(f"{args.folder}: {free / 1e9:.1f} GB free, expected {needed / 1e9:.1f}")
    print("| format | apart | page cache | diff GB/s | cat GB/s | ratio | spread | cores | MB above torch |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|")
    found = []
    for row in rows(args.folder, args.gigabytes, args.repeats, args.formats):
        found.append(row)
        print(
            f"| {row['format']} | {row['apart']} | {row['cache']} | {row['diff_gb_per_s']:.2f} "
            f"| {row['cat_gb_per_s']:.2f} | {row['ratio']:.2f} "
            f"| {min(row['ratios']):.2f}–{max(row['ratios']):.2f} | {row['cores']:.1f} "
            f"| {row['above_mb']:.0f} |",
            flush=True,
        )
    print(json.dumps({"benchmark": "state_diff", "gigabytes": args.gigabytes, "rows": found}))


if __name__ == "__main__":
    main()
