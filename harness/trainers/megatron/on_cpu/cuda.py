"""``torch.cuda``: one device, one stream, no memory of its own."""

from __future__ import annotations

import contextlib
import inspect
import linecache
import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any

import torch

from harness.trainers.megatron.on_cpu.table import NoRow, Row, answer, calls


class Stream:
    """The one stream: whatever was put on it is done."""

    cuda_stream = 0
    device = torch.device("cpu")

    def __init__(self, *_: Any, **__: Any) -> None:
        """Any is the one."""

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was changed."""

    def wait(self, *_: object) -> None:
        """It is done."""

    wait_stream = wait_event = synchronize = wait

    def query(self) -> bool:
        """Whether it is done."""
        return True

    def record_event(self, event: Event | None = None) -> Event:
        """The event has happened."""
        event = event or Event()
        event.record()
        return event


class Event(Stream):
    """Something that has happened, and when."""

    _when = 0.0

    def record(self, *_: object) -> None:
        """Now."""
        self._when = time.perf_counter()

    def elapsed_time(self, later: Event) -> float:
        """Milliseconds."""
        return (later._when - self._when) * 1000


_ONE = Stream()
_PROPERTIES = SimpleNamespace(
    name="cpu", major=8, minor=0, multi_processor_count=1, total_memory=1 << 34, is_integrated=0, warp_size=32
)


def _not_here(*_: Any, **__: Any) -> None:
    """``torch.cuda._lazy_init``: torch calls it wherever it meets a GPU that no row has taken away."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    while frame is not None and frame.f_code.co_filename.endswith("on_cpu/table.py"):
        frame = frame.f_back
    if frame is None:
        raise NoRow("torch.cuda")
    module = frame.f_globals.get("__name__", "")
    if module.startswith("torch.cuda"):
        raise NoRow(f"{module}.{frame.f_code.co_name}")
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    raise NoRow(f"`{line}` ({where})")


def close(rows: Collection[str]) -> None:
    """Whatever of ``torch.cuda`` no row names says so when it is called."""
    for name in torch.cuda.__all__:
        found = getattr(torch.cuda, name, None)
        full = f"torch.cuda.{name}"
        if full in rows or not getattr(found, "__module__", "").startswith("torch.cuda"):
            continue
        if inspect.isclass(found) and not issubclass(found, (BaseException, torch.storage._LegacyStorage)):  # noqa: SLF001
            setattr(torch.cuda, name, type(name, (found,), {"__new__": _refusal(full)}))
        elif inspect.isfunction(found):
            setattr(torch.cuda, name, _refusal(full))
    for module in (torch.cuda, torch._C):  # noqa: SLF001 - where a build for CPUs has nothing of CUDA
        if "__getattr__" not in vars(module):
            vars(module)["__getattr__"] = _unknown(module.__name__)


def _unknown(module: str) -> Callable[[str], Any]:
    """``__getattr__`` of a module: what it has not got is an AttributeError, so that it can be asked for."""

    def unknown(name: str) -> Any:
        if module == "torch._C" and "cuda" not in name:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        raise AttributeError(str(NoRow(f"{module}.{name}")))

    return unknown


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NoRow(name)

    return refuse


def _devices(*_: object) -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _kind(name: str) -> Callable[[Any], Any]:
    return lambda _: getattr(torch, f"{name}Tensor")


def _of(names: str, why: str, make: Callable[[Any], Any]) -> Row:
    return Row(" ".join(f"torch.cuda.{name}" for name in names.split()), why, make)


_YES = True
_BLOCK = calls(lambda *_, **__: contextlib.nullcontext())

ROWS = (
    _of(
        "is_available is_initialized is_bf16_supported is_tf32_supported",
        "code that was written for GPUs asks first whether there is one",
        answer(_YES),
    ),
    _of("device_count", "a GPU a rank", calls(_devices)),
    _of("current_device", "each rank sees its own alone", answer(0)),
    _of(
        "init set_device synchronize empty_cache ipc_collect check_error set_stream "
        "reset_peak_memory_stats reset_max_memory_allocated",
        "there is nothing to start, choose, wait for or give back",
        answer(None),
    ),
    _of(
        "_lazy_init",
        "a GPU that no row has taken away is told by the line that asks for it",
        calls(_not_here),
    ),
    _of(
        "get_device_properties",
        "those by which kernels are chosen: an A100's",
        answer(_PROPERTIES),
    ),
    _of("get_device_capability", "likewise", answer((8, 0))),
    _of("get_device_name", "it is one", answer("cpu")),
    _of(
        "memory_allocated max_memory_allocated memory_reserved max_memory_reserved device_memory_used "
        "utilization temperature power_draw clock_rate",
        "nothing is measured: a rank's memory here says nothing of a GPU's",
        answer(0),
    ),
    _of("mem_get_info", "free and in all; enough", answer((1 << 33, 1 << 34))),
    _of("memory_stats", "every count of it is 0", calls(lambda *_, **__: defaultdict(int))),
    _of("is_current_stream_capturing", "there are no graphs", answer(not _YES)),
    _of("Stream", "work is done in the order in which it is asked for", lambda _: Stream),
    _of("Event", "likewise; the time between two is real", lambda _: Event),
    _of("current_stream default_stream", "the one", answer(_ONE)),
    _of("stream device device_of nvtx.range", "a block on it is a block", _BLOCK),
    _of(
        "nvtx.range_push nvtx.range_pop nvtx.mark nvtx.range_start nvtx.range_end",
        "no profiler of NVIDIA's listens",
        answer(None),
    ),
    *(
        _of(f"{name}Tensor", "compared with what Tensor.type tells", _kind(name))
        for name in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Byte", "Char", "Bool")
    ),
    _of(
        "get_arch_list can_device_access_peer get_sync_debug_mode",
        "as torch has it, which asks no device",
        lambda there: there,
    ),
)
