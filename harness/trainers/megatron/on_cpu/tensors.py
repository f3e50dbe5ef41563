"""Tensors: what is made on a GPU, or moved to one, is on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from harness.trainers.megatron.on_cpu.table import Row

_CPU = torch.device("cpu")


def is_gpu(device: object) -> bool:
    """Whether it names a GPU, as torch would read it: a number does."""
    if isinstance(device, str):
        return device.startswith("cuda")
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return isinstance(device, int) and not isinstance(device, bool)


def _made(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that makes a tensor."""

    @functools.wraps(function)
    def made(*args: Any, **more: Any) -> Any:
        if is_gpu(more.get("device")):
            more["device"] = _CPU
        if more.get("pin_memory"):
            more["pin_memory"] = False
        return function(*args, **more)

    return made


def _moved(to: Callable[..., Any]) -> Callable[..., Any]:
    """``to`` of a tensor or of a module: a device may stand anywhere, a number only first."""

    @functools.wraps(to)
    def moved(self: Any, *args: Any, **more: Any) -> Any:
        args = tuple(
            _CPU if is_gpu(one) and (i == 0 or not isinstance(one, int)) else one
            for i, one in enumerate(args)
        )
        return to(self, *args, **{name: _CPU if name == "device" and is_gpu(one) else one
                                  for name, one in more.items()})  # fmt: skip

    return moved


def _typed(type_of: Callable[..., Any]) -> Callable[..., Any]:
    """``Tensor.type``: tells a GPU's type, and takes one for the CPU's."""

    @functools.wraps(type_of)
    def typed(self: torch.Tensor, *args: Any, **more: Any) -> Any:
        if not args and not more:
            return type_of(self).replace("torch.", "torch.cuda.")
        plain = [one.replace("cuda.", "") if isinstance(one, str) else one for one in args]
        return type_of(self, *plain, **more)

    return typed


def _loaded(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def loaded(*args: Any, **more: Any) -> Any:
        if is_gpu(more.get("map_location")):
            more["map_location"] = "cpu"
        return load(*args, **more)

    return loaded


def _itself(_: object) -> Callable[..., Any]:
    return lambda self, *_, **__: self


def _nothing(_: object) -> Callable[..., None]:
    return lambda *_, **__: None


_MAKERS = """
    arange as_tensor empty empty_like empty_strided eye full full_like linspace logspace ones ones_like rand
    rand_like randint randint_like randn randn_like randperm tensor tril_indices triu_indices zeros zeros_like
"""

ROWS = (
    Row(
        " ".join(f"torch.{name}" for name in _MAKERS.split()),
        "what is made with device=cuda is made here; memory that no GPU copies from need not be pinned",
        _made,
    ),
    Row(
        "torch.Tensor.new_empty torch.Tensor.new_full torch.Tensor.new_ones torch.Tensor.new_tensor "
        "torch.Tensor.new_zeros",
        "likewise",
        _made,
    ),
    Row("torch.Tensor.to torch.nn.Module.to", "what is moved to a GPU stays", _moved),
    Row(
        "torch.Tensor.cuda torch.Tensor.pin_memory torch.nn.Module.cuda",
        "likewise: the tensor, or the module, itself",
        _itself,
    ),
    Row(
        "torch.Tensor.record_stream",
        "there is one stream, so memory is never used by another",
        _nothing,
    ),
    Row(
        "torch.Tensor.type",
        "Megatron-LM tells parameters and gradients by the names of a GPU's types (torch.cuda.FloatTensor)",
        _typed,
    ),
    Row("torch.load", "map_location=cuda is the CPU", _loaded),
)  # fmt: skip
