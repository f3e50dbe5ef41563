"""What a run tells: TensorBoard scalars at full float32, memory, and a fingerprint of the machine."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import torch

from harness import __version__
from harness.trainers.native.arguments import Arguments
from harness.trainers.native.parallel import Layout


class ScalarWriter:
    """Writes scalars of one process into a TensorBoard event file."""

    def __init__(self, folder: str) -> None:
        from tensorboard.summary.writer.event_file_writer import (
            EventFileWriter,
        )

        self._writer = EventFileWriter(folder)

    def write(self, iteration: int, scalars: dict[str, float]) -> None:
        """One event for all scalars of an iteration, on disk when this returns."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        event = Event(wall_time=time.time(), step=iteration, summary=Summary(value=values))
        self._writer.add_event(event)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


class Stopwatch:
    """Seconds since it was started: by CUDA events on a GPU, by the clock elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._began = self._mark()

    def _mark(self) -> Any:  # noqa: ANN401 - seconds, or an event of CUDA's
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> float:
        """Time that the work since the start took, waiting for it to end."""
        now = self._mark()
        if not self._cuda:
            return float(now - self._began)
        now.synchronize()
        return float(self._began.elapsed_time(now)) / 1000.0


def memory(device: torch.device) -> tuple[int, int]:
    """Bytes in use now and at most: of the CUDA allocator, or resident on the host."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * os.sysconf("SC_PAGE_SIZE"), highest


def write_provenance(
    folder: Path,
    args: Arguments,
    layout: Layout,
    device: torch.device,
    switches: dict[str, Any],
    numerics: dict[str, str],
) -> None:
    """``provenance.json``: what decides the bits of this run; ``numerics`` by operation, all else flat."""
    from harness.machine.hardware import describe_cpu
    from harness.machine.portable import switches as of_the_cpu

    cuda = device.type == "cuda"
    about = {
        "trainer": "native",
        "trainer_version": __version__,
        "torch": torch.__version__.partition("+")[0],
        "device": torch.cuda.get_device_name(device) if cuda else describe_cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "precision": args.precision,
        "layout": " ".join(
            f"{name.upper()}{getattr(layout, name)}" for name in ("tp", "pp", "vp", "dp", "ep", "etp")
        ),
        "ckpt_format": args.ckpt_format,
        **switches,
        **({} if cuda else {"cpu_switches": of_the_cpu(os.environ)}),
        "numerics": numerics,
    }
    if not cuda:  # memory is the resident set then, and most of that are the libraries of the build
        about["torch_build"] = torch.__version__.partition("+")[2]
    (folder / "provenance.json").write_text(json.dumps(about, indent=1) + "\n")
