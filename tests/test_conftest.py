"""tests/conftest.py: in CI nothing is skipped but for missing hardware."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TAKEN = """
import pytest

@pytest.mark.skip(reason="missing hardware: two GPUs")
def test_a(): pass

@pytest.mark.xfail(reason="fails", strict=True)
def test_b(): assert False

def test_c(): pass
"""
#: Ways to skip what could be installed.
SKIPS = {
    "by_a_mark": '@pytest.mark.skip(reason="REASON")\ndef test_d(): pass',
    "by_a_condition": '@pytest.mark.skipif(True, reason="REASON")\ndef test_d(): pass',
    "within": 'def test_d(): pytest.skip("REASON")',
    "in_a_fixture": '@pytest.fixture\ndef f(): pytest.skip("REASON")\ndef test_d(f): pass',
    "a_module": 'pytest.skip("REASON", allow_module_level=True)',
    "for_want_of_a_module": 'pytest.importorskip("no_such_module", reason="REASON")',
}


def run(folder: Path, *words: str, ci: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = torch\n")
    # Installed or not, the harness's own plugin has no part in this.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:harness", *words]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "CI": ci}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def skipping(tmp_path: Path) -> Path:
    """A folder with a module for each way to skip."""
    for name, text in SKIPS.items():
        (tmp_path / f"test_{name}.py").write_text("import pytest\n" + text.replace("REASON", f"no {name}"))
    return tmp_path


@pytest.mark.parametrize("spread", [(), ("-n", "2")], ids=["alone", "spread"])
def test_every_skip_fails_in_ci(skipping: Path, spread: tuple[str, ...]) -> None:
    done = run(skipping, "--continue-on-collection-errors", *spread, ci="true")
    assert done.returncode == 1
    for name in SKIPS:
        assert f"skipped in CI, where only hardware may be missing: no {name}\n" in done.stdout


def test_elsewhere_a_skip_is_a_skip(skipping: Path) -> None:
    done = run(skipping, "-q", ci="")
    assert f"{len(SKIPS)} skipped in" in done.stdout, done.stdout


def test_missing_hardware_is_no_failure_in_ci(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TAKEN)
    done = run(tmp_path, ci="true")
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped, 1 xfailed" in done.stdout


def test_what_imports_torch_is_marked_and_where_torch_is_not_asked_for_not_even_imported(
    tmp_path: Path,
) -> None:
    (tmp_path / "test_module.py").write_text("import torch.no_such_module\ndef test_a(): pass\n")
    (tmp_path / "test_some.py").write_text(
        "def test_b():\n    import torch.nn\n\ndef test_c(): pass\ndef test_d():\n    from torch import nn\n"
    )
    done = run(tmp_path, "--collect-only", "-q", "-m", "not torch", ci="true")
    assert done.returncode == 0, done.stdout
    assert [line for line in done.stdout.splitlines() if "::" in line] == ["test_some.py::test_c"]
    done = run(tmp_path, "--collect-only", "-q", "-m", "torch", "test_some.py", ci="true")
    assert [line[-6:] for line in done.stdout.splitlines() if "::" in line] == ["test_b", "test_d"]
