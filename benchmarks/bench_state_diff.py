"""State diff of two big checkpoints: peak memory, and throughput against ``cat`` on the same files.

    python benchmarks/bench_state_diff.py --folder /some/disk [--gigabytes 2]

Makes two checkpoints of each format in the folder, three ways apart (equal; one element; every
element), measures each comparison in a process of its own, removes everything again. ``cat`` reads
both checkpoints; each pair of timings is taken with the files in the page cache and with them
dropped from it. On a busy machine both wait for others, so the bytes per second of processor time
(the kernel's copying counted) are given too. Prints a Markdown table and one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LAYER = (4096, 4096)


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
    if kind == "torch_dist":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.save(tensors, checkpoint_id=folder, no_dist=True)
    else:
        rank = folder / "mp_rank_00_000"
        rank.mkdir()
        content = {"format": "native-torch-1", "tensors": tensors, "shards": {}, "aliases": {}}
        torch.save(content, rank / "model_optim_rng.pt")


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


def cat(files: list[Path]) -> tuple[float, float]:
    """Seconds that ``cat FILES > /dev/null`` takes, and those of processor time."""
    before = os.times()
    with Path(os.devnull).open("wb") as sink:
        started = time.perf_counter()
        subprocess.run(["cat", *map(str, files)], stdout=sink, check=True)
        seconds = time.perf_counter() - started
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, cpu


def child(*words: str) -> str:
    """Run this file again; returns what it prints."""
    done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
    return done.stdout


def rows(folder: Path, gigabytes: float) -> Iterator[dict[str, Any]]:
    """One row per format, distance and state of the page cache."""
    for kind in ("torch", "torch_dist"):
        for change in ("none", "one", "all"):
            root = Path(tempfile.mkdtemp(dir=folder, prefix="bench-state-diff-"))
            try:
                a, b = root / "a", root / "b"
                child("--make", kind, "none", str(a), "--gigabytes", str(gigabytes))
                child("--make", kind, change, str(b), "--gigabytes", str(gigabytes))
                files = files_of(a, b)
                for cache in ("cold", "warm"):
                    if cache == "cold":
                        drop(files)
                    size = sum(path.stat().st_size for path in files)
                    by_cat, cat_cpu = cat(files)
                    if cache == "cold":
                        drop(files)
                    found = json.loads(child("--measure", str(a), str(b)))
                    yield {
                        "format": kind,
                        "apart": change,
                        "cache": cache,
                        **found,
                        "gb_per_s": found["bytes"] / found["seconds"] / 1e9,
                        "gb_per_cpu_s": found["bytes"] / found["cpu"] / 1e9,
                        "cat_gb_per_s": size / by_cat / 1e9,
                        "cat_gb_per_cpu_s": size / max(cat_cpu, 0.01) / 1e9,
                    }
            finally:
                shutil.rmtree(root)


def main() -> None:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of each checkpoint")
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
    print(
        "| format | apart | page cache | diff GB/s | cat GB/s | ratio "
        "| diff GB/CPU s | cat GB/CPU s | MB above torch |"
    )
    print("|---|---|---|---:|---:|---:|---:|---:|---:|")
    found = []
    for row in rows(args.folder, args.gigabytes):
        found.append(row)
        print(
            f"| {row['format']} | {row['apart']} | {row['cache']} | {row['gb_per_s']:.2f} "
            f"| {row['cat_gb_per_s']:.2f} | {row['gb_per_s'] / row['cat_gb_per_s']:.2f} "
            f"| {row['gb_per_cpu_s']:.2f} | {row['cat_gb_per_cpu_s']:.2f} | {row['above_mb']:.0f} |",
            flush=True,
        )
    print(json.dumps({"benchmark": "state_diff", "gigabytes": args.gigabytes, "rows": found}))


if __name__ == "__main__":
    main()
