"""Several cells in one environment, as pytest runs them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.verdict.reading import read_verdict

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests" / "faults" / "cases"
NAMES = ("dense_torch", "epoch_boundary")


def test_cells_share_one_warm_parent_and_leave_it_not_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # installed or not, the plugin is named once
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "harness.plugin", "-p", "no:cacheprovider", "test_cases",
         *(f"--cell=cpu/dev/{name}" for name in NAMES), f"--cases={CASES}", "--protocol=full",
         f"--goldens={tmp_path / 'goldens'}", f"--results={tmp_path / 'results'}"],
        cwd=ROOT,
    )  # fmt: skip
    parents: dict[int, psutil.Process] = {}
    try:
        while process.poll() is None:
            try:
                children = psutil.Process(process.pid).children()
                parents |= {
                    c.pid: c for c in children if any("harness.launch.parent" in w for w in c.cmdline())
                }
            except psutil.Error:
                pass
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    for name in NAMES:  # there is no golden; resuming is sound all the same
        verdict = read_verdict(tmp_path / "results" / "cpu" / "dev" / name / "verdict.json")
        assert {check.against for check in verdict.failures} == {"golden"}
    assert len(parents) == 1
    assert not psutil.wait_procs(list(parents.values()), timeout=5)[1]
