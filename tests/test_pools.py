"""The pools of the banks of faults: who ends them leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.pools import spawned

_ENDED_WITHIN = 30  # seconds, on a busy machine


def work(folder: Path) -> None:
    """Say which process this is, and go on for longer than any test."""
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_workers_end_with_the_process_that_started_them(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-m", "tests.test_pools", str(tmp_path)]
    pids: list[int] = []
    with subprocess.Popen(command, cwd=Path(__file__).parents[1]) as main:
        try:
            until = time.monotonic() + _ENDED_WITHIN
            while len(pids) < 2:
                assert main.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)
                pids = [int(path.name) for path in tmp_path.iterdir()]
            main.send_signal(getattr(signal, name))
            assert main.wait(_ENDED_WITHIN) == -getattr(signal, name)
            until = time.monotonic() + _ENDED_WITHIN
            while any(map(_runs, pids)) and time.monotonic() < until:
                time.sleep(0.1)
            assert not any(map(_runs, pids))
        finally:
            main.kill()
            for pid in filter(_runs, pids):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    with spawned(2) as pool:
        list(pool.map(work, [Path(sys.argv[1])] * 2))
