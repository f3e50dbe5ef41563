"""Packages: what is made of GPU kernels is not there, or has a small substitute."""

from __future__ import annotations

import importlib.util
import os
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness.trainers.megatron.on_cpu.apex import FusedAdam, FusedLayerNormAffineFunction
from harness.trainers.megatron.on_cpu.helpers import built_outside
from harness.trainers.megatron.on_cpu.table import Row

#: Names the training script for processes that a rank spawns.
SCRIPT = "HARNESS_MEGATRON_SCRIPT"
_SPAWNED = Path(__file__).with_name("spawned.py")


def _module(name: str, **content: Any) -> Callable[[Any], types.ModuleType]:
    """A package that holds this, and nothing else can be imported from."""
    module = types.ModuleType(name)
    module.__path__ = []
    vars(module).update(content)
    return lambda _: module


def _own_async_strategy(config: Any) -> Any:
    field = getattr(config, "__dataclass_fields__", {}).get("async_strategy")
    if field is not None and importlib.util.find_spec("nvidia_resiliency_ext") is None:
        field.default = "mcore"  # what arguments are made of
    return config


def _begin_with_us(prepare: Callable[..., Any]) -> Callable[..., Any]:
    def get_preparation_data(name: str) -> Any:
        data = prepare(name)
        if SCRIPT in os.environ:
            data.pop("init_main_from_name", None)
            data["init_main_from_path"] = str(_SPAWNED)
        return data

    return get_preparation_data


ROWS = (
    Row(
        "transformer_engine transformer_engine_torch amp_C flash_attn flash_attn_3 flash_attn_interface "
        "flash_mla deep_ep grouped_gemm fused_layer_norm_cuda causal_conv1d mamba_ssm",
        "kernels of a GPU: where they are installed they are not imported, and every machine runs the same",
        lambda _: None,
        kind="module",
    ),
    Row(
        "apex",
        "an empty package: with it Megatron-LM's local layers take apex's layer norm, not torch's, "
        "which they refuse together with sequence parallelism",
        _module("apex"),
        kind="module",
    ),
    Row("apex.normalization", "likewise", _module("apex.normalization"), kind="module"),
    Row(
        "apex.normalization.fused_layer_norm",
        "torch's layer norm, by the name that they call it",
        _module(
            "apex.normalization.fused_layer_norm", FusedLayerNormAffineFunction=FusedLayerNormAffineFunction
        ),
        kind="module",
    ),
    Row(
        "apex.optimizers",
        "without a fused Adam Megatron-LM takes torch's, whose state its distributed optimizer cannot load "
        "(it wants one step a group)",
        _module("apex.optimizers", FusedAdam=FusedAdam, FusedSGD=torch.optim.SGD),
        kind="module",
    ),
    Row(
        "megatron.legacy.fused_kernels",
        "core 0.16 and before ask nvcc for its version, in order to build nothing",
        _module("megatron.legacy.fused_kernels", load=lambda *_: None),
        kind="module",
    ),
    Row(
        "megatron.core.transformer.moe.moe_utils.te_general_gemm",
        "core 0.16 asks whether it is None where Transformer Engine is not there, and has not said so",
        lambda there: there,
        kind="later",
    ),
    Row(
        "megatron.training.config.training_config.CheckpointConfig",
        "without nvidia-resiliency-ext, whose wheels want a newer libc than most have, the head of 2026-08 "
        "cannot save asynchronously by its default; it can by --async-strategy mcore, its own",
        _own_async_strategy,
        kind="later",
    ),
    Row(
        "megatron.core.datasets.utils.compile_helpers",
        "it runs make in the checkout, with another Python than this where PATH says so",
        built_outside,
        kind="later",
    ),
    Row(
        "typing.override",
        "megatron.training of the head of 2026-08 imports it, and Python has it from 3.12 on",
        lambda there: there or (lambda function: function),
    ),
    Row(
        "multiprocessing.spawn.get_preparation_data",
        "a process that a rank spawns (the persistent checkpoint worker) begins with the stand-in too",
        _begin_with_us,
    ),
)
