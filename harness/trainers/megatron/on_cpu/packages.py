"""Packages: what is made of GPU kernels is not there, or has a small substitute."""

from __future__ import annotations

import os
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness.trainers.megatron.on_cpu.adam import FusedAdam
from harness.trainers.megatron.on_cpu.helpers import built_outside
from harness.trainers.megatron.on_cpu.table import Row

#: Names the training script for processes that a rank spawns.
SCRIPT = "HARNESS_MEGATRON_SCRIPT"
_SPAWNED = Path(__file__).with_name("spawned.py")


def _optimizers(_: object) -> types.ModuleType:
    module = types.ModuleType("apex.optimizers")
    module.FusedAdam, module.FusedSGD = FusedAdam, torch.optim.SGD  # type: ignore[attr-defined]
    return module


def _kernels(_: object) -> types.ModuleType:
    module = types.ModuleType("megatron.legacy.fused_kernels")
    module.load = lambda *_: None  # type: ignore[attr-defined]
    return module


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
        "transformer_engine transformer_engine_torch apex amp_C flash_attn flash_attn_3 flash_attn_interface "
        "flash_mla deep_ep grouped_gemm fused_layer_norm_cuda causal_conv1d mamba_ssm",
        "kernels of a GPU: where they are installed they are not imported, and every machine runs the same",
        lambda _: None,
        kind="module",
    ),
    Row(
        "apex.optimizers",
        "without a fused Adam Megatron-LM takes torch's, whose state its distributed optimizer cannot load "
        "(it wants one step a group)",
        _optimizers,
        kind="module",
    ),
    Row(
        "megatron.legacy.fused_kernels",
        "core 0.16 and before ask nvcc for its version, in order to build nothing",
        _kernels,
        kind="module",
    ),
    Row(
        "megatron.core.transformer.moe.moe_utils.te_general_gemm",
        "core 0.16 asks whether it is None where Transformer Engine is not there, and has not said so",
        lambda there: there,
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
