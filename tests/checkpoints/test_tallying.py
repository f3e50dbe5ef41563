"""A big tensor is compared by several threads, and what is found is what one thread finds."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.checkpoints.archives import Stored
from harness.checkpoints.checkpoint import open_checkpoint
from harness.checkpoints.numbers import Tally
from harness.checkpoints.tallying import Tallying
from harness.errors import CheckpointError

ELEMENTS = 3 << 20  # 12 MiB of float32: more blocks than are left to one thread


def written(folder: Path, tensor: torch.Tensor) -> Path:
    folder.mkdir()
    torch.save({"weight": tensor}, folder / "model.pt")
    return folder


def tallied(a: Path, b: Path, threads: int) -> Tally:
    one, two = (open_checkpoint(p).entries["weight"] for p in (a, b))
    with Tallying(threads) as tallying:
        found = tallying.tally(one, two)
        assert tallying.bytes_read == 2 * one.nbytes
    return found


@pytest.mark.parametrize("changed", [[], [0], [ELEMENTS - 1], [2_000_000, 5, 2_999_999], slice(None)])
def test_threads_find_what_one_finds(tmp_path: Path, changed: list[int] | slice) -> None:
    tensor = torch.randn(3, ELEMENTS // 3, generator=torch.Generator().manual_seed(1))
    other = tensor.clone().view(-1)
    other[changed] += torch.arange(1, other[changed].numel() + 1) / 7
    a, b = written(tmp_path / "a", tensor), written(tmp_path / "b", other.view(3, -1))
    alone = tallied(a, b, 1)
    assert alone.differing == (ELEMENTS if isinstance(changed, slice) else len(changed))
    if isinstance(changed, list) and changed:
        assert (alone.first, alone.last) == (min(changed), max(changed))
        assert alone.max_abs == pytest.approx(float((other - tensor.view(-1)).abs().max()))
    for _ in range(3):
        assert tallied(a, b, 3) == alone


def test_a_torn_file_is_one_error_and_no_thread_or_file_is_left(tmp_path: Path) -> None:
    tensor = torch.randn(ELEMENTS)
    a, b = written(tmp_path / "a", tensor), written(tmp_path / "b", tensor)
    one, two = (open_checkpoint(p).entries["weight"] for p in (a, b))
    files = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else None
    stored = two.parts[0].open()
    assert isinstance(stored, Stored)
    os.truncate(stored.path, stored.position + two.nbytes // 2)
    with pytest.raises(CheckpointError, match=r"model\.pt: ends at byte"), Tallying(3) as tallying:
        tallying.tally(one, two)
    assert not [t for t in threading.enumerate() if t.name.startswith("state-diff")]
    if files is not None:
        assert len(os.listdir("/proc/self/fd")) == files


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="how glibc keeps memory")
def test_memory_is_not_asked_for_anew_with_each_block(tmp_path: Path) -> None:
    """In a new process, which has not read anything large before; counted, not timed."""
    for name, value in (("a", 0.0), ("b", 1.0)):
        (tmp_path / name).mkdir()
        save_file({"w": torch.full((16 << 20,), value)}, tmp_path / name / "model.safetensors")
    script = (
        "import resource, sys, pathlib\n"
        "from harness.checkpoints import diff\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "before = faults()\n"
        "diff(*map(pathlib.Path, sys.argv[1:]))\n"
        "print(faults() - before)\n"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 16_000  # it was 37,800, it is 4,000
