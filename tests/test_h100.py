"""``nox -s "case(h100)"`` where H100s and a checkout are; the device and the script are stand-ins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.tools, pytest.mark.torch]

ROOT = Path(__file__).parents[1]
HEART = "gpt3_mcore_te_tp1_pp4_vp1_resume_torch_decoupled_lr"
NOXFILE = "from harness.nox import sessions\nsessions()\n"
#: The container's own environment: what the track pins for a GPU is not installed for this.
OWN = "[tool.harness]\ntracks = {dev = {group = false}}\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A repository with the heart case, this repository's goldens of it, and eight H100s."""
    shutil.copytree(ROOT / "test_cases" / "gpt" / HEART, tmp_path / "test_cases" / "gpt" / HEART)
    shutil.copytree(ROOT / "goldens" / HEART, tmp_path / "goldens" / HEART)
    (tmp_path / "noxfile.py").write_text(NOXFILE)
    (tmp_path / "pyproject.toml").write_text(OWN)
    programs = tmp_path / "bin"
    programs.mkdir()
    gpus = "\n".join(f"{i}, GPU-{i}aaaa-bbbb, 81559, [N/A], NVIDIA H100 80GB HBM3" for i in range(8))
    (programs / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<END\n{gpus}\nEND\n")
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    return tmp_path


def test_the_cell_finds_the_golden_of_h100_and_is_compared_with_it_by_tolerance(place: Path) -> None:
    without = ("CI", "NOXSESSION", "CUDA_VISIBLE_DEVICES")
    env = {name: value for name, value in os.environ.items() if name not in without}
    env |= {
        "PATH": f"{place / 'bin'}:{env['PATH']}", "PYTHONPATH": str(ROOT), "NO_COLOR": "1",
        "MEGATRON_LM_PATH": str(ROOT / "tests" / "stand_ins"), "DATA_PATH": "/mnt/artifacts",
        "GPUS_PER_NODE": "4", "OMP_NUM_THREADS": "1", "HARNESS_LEASES": str(place / "leases"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "nox", "-s", f"case(h100)(dev,{HEART})"],
        cwd=place, env=env, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    path = place / "results" / "h100" / "dev" / HEART / "verdict.json"
    assert path.is_file(), done.stdout + done.stderr
    verdict = json.loads(path.read_text())
    provenance = verdict["provenance"]
    assert provenance["golden"].endswith(
        f"goldens/{HEART}/golden_values_dev_dgx_h100.json: compared by tolerance: "
        "nobody knows what it was recorded on (imported)"
    )
    assert provenance["compared"] == "tolerance"
    source = provenance["golden_provenance"]["source"]
    assert source["repository"] == "https://github.com/NVIDIA/Megatron-LM"
    assert source["path"].endswith(f"/{HEART}/golden_values_dev_dgx_h100.json")
    against = {
        check["metric"]: check["passed"] for check in verdict["checks"] if check["against"] == "golden"
    }
    assert "lm loss" in against
    assert not against["lm loss"]  # a toy's
    said = [
        one for one in provenance["notes"] if one.startswith("LAUNCHER: ft_launcher is not installed here")
    ]
    assert bool(said) != bool(shutil.which("ft_launcher"))
