"""Small checkpoints of every kind, made by torch itself."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

Nest = dict[str, Any]
WEIGHT = "decoder.layers.0.mlp.linear_fc1.weight"


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    """A whole training state under the native trainer's names."""
    torch.manual_seed(seed)
    weight, embedding = torch.randn(6, 4), torch.randn(8, 4)
    tensors = {"iteration": torch.tensor(50)}
    for name, value in ((WEIGHT, weight), ("embedding.word_embeddings.weight", embedding)):
        tensors[f"model.{name}"] = value
        tensors[f"optimizer.exp_avg.{name}"] = value * 0.1
        tensors[f"optimizer.exp_avg_sq.{name}"] = value**2
        tensors[f"optimizer.step.{name}"] = torch.tensor(50)
    tensors["scheduler.step"] = torch.tensor(200)
    tensors["data.consumed_samples"] = torch.tensor(200)
    tensors["rng.default.0_0_0"] = torch.arange(16, dtype=torch.uint8)
    return tensors


def ranks(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    *,
    tp: int = 1,
    aliases: Mapping[str, str] | None = None,
) -> Path:
    """The native ``torch`` format: weights cut along dimension 0 over ``tp`` rank folders."""
    for rank in range(tp):
        mine: dict[str, torch.Tensor] = {}
        shards: dict[str, tuple[list[int], list[int]]] = {}
        for name, tensor in tensors.items():
            if name.endswith("weight") and tp > 1 and tensor.ndim == 2:
                rows = tensor.shape[0] // tp
                mine[name] = tensor[rank * rows : (rank + 1) * rows].clone()
                shards[name] = (list(tensor.shape), [rank * rows, 0])
            else:
                mine[name] = tensor
        content = {
            "format": "native-torch-1",
            "tensors": mine,
            "shards": shards,
            "aliases": dict(aliases or {}),
        }
        save(content, folder / f"mp_rank_{rank:02d}" / "model_optim_rng.pt")
    return folder


def dist(folder: Path, tensors: Mapping[str, Any], *, flat: bool = True, **options: Any) -> Path:
    """torch's distributed format; without ``flat``, a nest is one pickled object, as Megatron-core has it."""
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        planner = dcp.DefaultSavePlanner(flatten_state_dict=flat)
        dcp.save(dict(tensors), checkpoint_id=folder, no_dist=True, planner=planner, **options)
    return folder


def save(nest: Any, path: Path, **options: Any) -> Path:
    """``torch.save``, with the folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(nest, path, **options)
    return path
