"""What a checkpoint by itself contradicts, or lacks for the run that wrote it.

What is neither saved nor restored leaves no trace in a diff, and what was saved wrong comes back as it
was saved. Both show in the checkpoint alone, beside the layout and the arguments of its run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.diagnosis.result import Finding

if TYPE_CHECKING:
    from harness.checkpoints import Checkpoint

_STREAM = re.compile(r"rng\.(?P<stream>.+)\.\d+_\d+_\d+")
_HALF = ("bfloat16", "float16")
_LARGEST = 16 << 20  # elements of a tensor that is read whole
_IN_ALL = 256 << 20  # elements that are read in all; what was saved wrong shows long before
#: An argument, a word of the names that it makes a training state hold, and the component of those.
_ASKED: tuple[tuple[str, str, str], ...] = (
    ("--moe-router-enable-expert-bias", "expert_bias", "experts"),
    ("--num-experts", ".experts.", "experts"),
    ("--untie-embeddings-and-output-weights", "output_layer.", "embedding"),
    ("--fp8-format", ".fp8.", "buffers"),
    ("--fp16", "grad_scaler.", "grad-scaler"),
)


def faults(path: Path, arguments: Mapping[str, Any] | None) -> list[Finding]:
    """What is wrong with a checkpoint of the native trainer, whatever is loaded from it.

    Args:
        path: the checkpoint.
        arguments: those of the run that wrote it, where they are known.

    Returns:
        Nothing for anybody else's checkpoint, and for one that cannot be read (which is told elsewhere).
    """
    from harness.checkpoints import open_checkpoint
    from harness.errors import CheckpointError

    try:
        checkpoint = open_checkpoint(path)
        if not checkpoint.native:
            return []
        return [*_streams(checkpoint), *_asked(checkpoint, arguments or {}), *_masters(checkpoint)]
    except CheckpointError:
        return []


def _streams(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Every rank has its own state of every random stream."""
    sizes = [checkpoint.layout.get(size) for size in ("tp", "pp", "dp")]
    if not all(sizes):
        return
    ranks = math.prod(size or 1 for size in sizes)
    held: dict[str, int] = {}
    for name in checkpoint.entries:
        if match := _STREAM.fullmatch(name):
            held[match["stream"]] = held.get(match["stream"], 0) + 1
    for stream, count in sorted(held.items()):
        if count < ranks:
            yield Finding(
                "rng",
                f"{checkpoint.path.name} holds the random stream `{stream}` of {count} of {ranks} ranks: "
                "the others go on with a peer's, or with a new one",
            )


def _asked(checkpoint: Checkpoint, arguments: Mapping[str, Any]) -> Iterator[Finding]:
    """What the arguments make part of the training state must be in it."""
    for argument, word, component in _ASKED:
        value = arguments.get(argument)
        if value in (None, False) or str(value).lower() in ("false", "0", "none"):
            continue
        if not any(word in name for name in checkpoint.entries):
            yield Finding(
                component,
                f"{checkpoint.path.name} holds nothing called *{word}*, which {argument} makes part of the "
                "training state: it was not saved",
            )


def _masters(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Weights of half precision are their float32 masters, rounded."""
    import torch

    odd, budget = [], _IN_ALL
    for name, entry in checkpoint.entries.items():
        master = f"optimizer.master.{name.removeprefix('model.')}"
        known = checkpoint.entries.get(master)
        if not name.startswith("model.") or entry.dtype not in _HALF or known is None:
            continue
        if known.shape != entry.shape or entry.numel > min(_LARGEST, budget):
            continue
        budget -= entry.numel
        weights = checkpoint.read(name)
        apart = int(torch.count_nonzero(checkpoint.read(master).to(weights.dtype) != weights))
        if apart:
            odd.append((name, apart, entry.numel, entry.dtype))
    if odd:
        name, apart, count, dtype = odd[0]
        more = f"; {len(odd) - 1} more tensors are not theirs" if len(odd) > 1 else ""
        yield Finding(
            "weights",
            f"{checkpoint.path.name}: {apart} of {count} elements of {name} are not their float32 master "
            f"rounded to {dtype}{more}",
        )
