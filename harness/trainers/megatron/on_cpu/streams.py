"""Random numbers: the host's stream and the device's are two, as on a machine with a GPU.

The device's is torch's default generator, from which dropout and first weights are drawn. What a program
draws on its host (the seed of a loader, a permutation) has a generator of its own. Not told apart: numbers
that are drawn in place into a tensor that was made on the host (``normal_``); they come from the device's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from harness.trainers.megatron.on_cpu.table import Row, calls
from harness.trainers.megatron.on_cpu.tensors import is_gpu

_HOST, _DEVICE = torch.Generator(), torch.default_generator


def _seed_both(seed: int) -> torch.Generator:
    _DEVICE.manual_seed(int(seed))
    return _HOST.manual_seed(int(seed))


def _seed_device(seed: int) -> None:
    _DEVICE.manual_seed(int(seed))


def _fresh() -> int:
    found = int(_HOST.seed())
    _DEVICE.manual_seed(found)
    return found


def _on_the_host(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that draws: without a GPU to draw on, from the host's stream."""

    @functools.wraps(function)
    def drawn(*args: Any, **more: Any) -> Any:
        if more.get("generator") is None and not is_gpu(more.get("device")):
            more["generator"] = _HOST
        return function(*args, **more)

    return drawn


def _get(generator: torch.Generator) -> Callable[..., Any]:
    return lambda *_, **__: generator.get_state()


def _set(generator: torch.Generator) -> Callable[..., Any]:
    return lambda new_state, *_, **__: generator.set_state(new_state)


def _twice(name: str, *modules: str) -> str:
    return " ".join(f"{module}.{name}" for module in modules)


_HOSTS, _GPUS = ("torch", "torch.random"), ("torch.cuda", "torch.cuda.random")

ROWS = (
    Row(_twice("manual_seed", *_HOSTS), "seeds the host's and every device's", calls(_seed_both)),
    Row(_twice("seed", *_HOSTS), "likewise, by chance", calls(_fresh)),
    Row(_twice("initial_seed", *_HOSTS), "the host's", calls(_HOST.initial_seed)),
    Row(_twice("get_rng_state", *_HOSTS), "the host's", calls(_get(_HOST))),
    Row(_twice("set_rng_state", *_HOSTS), "the host's", calls(_set(_HOST))),
    Row(
        "torch.rand torch.randint torch.randn torch.randperm",
        "what is drawn without a device is drawn on the host",
        _on_the_host,
    ),
    Row(
        "torch.Tensor.random_",
        "whole numbers that are drawn in place are seeds: those of a loader, each time that it is iterated, "
        "and of a sampler; they are drawn on the host",
        _on_the_host,
    ),
    Row(
        f"{_twice('manual_seed', *_GPUS)} {_twice('manual_seed_all', *_GPUS)}",
        "the device's",
        calls(_seed_device),
    ),
    Row(f"{_twice('seed', *_GPUS)} {_twice('seed_all', *_GPUS)}", "the device's", calls(_DEVICE.seed)),
    Row(_twice("initial_seed", *_GPUS), "the device's", calls(_DEVICE.initial_seed)),
    Row(_twice("get_rng_state", *_GPUS), "the device's", calls(_get(_DEVICE))),
    Row(_twice("set_rng_state", *_GPUS), "the device's", calls(_set(_DEVICE))),
    Row(_twice("get_rng_state_all", *_GPUS), "that of each device that a rank sees: one",
        calls(lambda: [_DEVICE.get_state()])),
    Row(_twice("set_rng_state_all", *_GPUS), "likewise", calls(lambda states: _DEVICE.set_state(states[0]))),
    Row("torch.cuda.default_generators", "Megatron-LM sets the device's state by way of it",
        lambda _: (_DEVICE,)),
)  # fmt: skip
