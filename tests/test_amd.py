"""What amd-smi and rocm-smi say; both are scripts on PATH here. No such machine was at hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HardwareMissing
from harness.machine import amd, hardware
from harness.machine.leases import lease

NAME = "AMD Instinct MI300X"
Installs = Callable[..., None]


@pytest.fixture(autouse=True)
def _nobody_elses_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*amd.VISIBLE, "ROCR_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installs:
    """Put a program on PATH that prints this, and fails where it is told something else than it knows."""

    def install(program: str, told: Any, *, before: str = "", status: int = 0) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "said").write_text(before + (told if isinstance(told, str) else json.dumps(told)))
        wanted = {"amd-smi": "static", "rocm-smi": "--showproductname"}[program]
        script = folder / program
        script.write_text(
            f'#!/bin/sh\n[ "$1" = {wanted} ] || exit 9\n/bin/cat "{folder}/said"\nexit {status}\n'
        )
        script.chmod(0o755)

    return install


def new(index: int, name: str = NAME, mode: str = "SPX") -> dict[str, Any]:
    """A GPU as ``amd-smi static --json`` has it."""
    return {
        "gpu": index,
        "asic": {"market_name": name, "vendor_id": "0x1002", "num_compute_units": 304},
        "vram": {"type": "HBM", "size": {"value": 196592, "unit": "MB"}},
        "partition": {"compute_partition": mode, "memory_partition": "NPS1"},
    }


def old(name: str = NAME, mode: str = "SPX") -> dict[str, str]:
    """A GPU as ``rocm-smi --json`` has it."""
    return {
        "Card Series": name, "Card Model": "0x74a1", "GFX Version": "gfx942",
        "VRAM Total Memory (B)": "206141652992", "Compute Partition": mode,
    }  # fmt: skip


def refusal(world: int) -> str:
    with pytest.raises(HardwareMissing) as caught:
        hardware.require("mi300x", world)
    return str(caught.value)


@pytest.mark.parametrize(
    ("program", "told", "memory"),
    [
        ("amd-smi", [new(0), new(1)], 196592 << 20),
        ("amd-smi", {"gpu_data": [new(0), new(1)]}, 196592 << 20),
        ("rocm-smi", {"card0": old(), "card1": old(), "system": {"Driver version": "6.10"}}, 206141652992),
        ("rocm-smi", {"card0": {"Card series": NAME}, "card1": {"Card series": NAME}}, 0),
    ],
)
def test_gpus_are_those_that_either_program_tells_of(
    program: str, told: Any, memory: int, says: Installs
) -> None:
    says(program, told)
    devices = hardware.devices_of("mi300x")
    assert [(one.name, one.index, one.memory) for one in devices] == [(NAME, 0, memory), (NAME, 1, memory)]
    assert hardware.hardware_here() == "mi300x"
    hardware.require("mi300x", 2)
    assert refusal(3) == f"case(mi300x) needs 3 MI300X GPUs, and {program} found 2 × {NAME}"
    assert hardware.driver_here("mi300x")
    assert not hardware.devices_of("h100")


def test_the_newer_program_is_asked_where_both_are_and_a_warning_before_the_json_is_no_harm(
    says: Installs,
) -> None:
    says("rocm-smi", {"card0": old("AMD Instinct MI250X")})
    says("amd-smi", [new(0)], before="WARNING: user is not in the group render\n")
    (device,) = hardware.detect()
    assert device.hardware == "mi300x"


def test_without_either_it_is_said_which_were_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    said = "case(mi300x) needs 8 MI300X GPUs, and neither amd-smi nor rocm-smi is on PATH"
    assert refusal(8) == said
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/dev/kfd")
    assert refusal(8) == f"{said} though there is a driver"


@pytest.mark.parametrize(
    ("told", "status", "expected"),
    [
        ("no amdgpu driver", 1, "amd-smi failed: no amdgpu driver"),
        ("hello", 0, "amd-smi said 'hello'"),
        ([{"gpu": 0}], 0, "amd-smi said "),
        ([], 0, "amd-smi found no GPU"),
        ([new(0, "AMD Instinct MI325X")], 0, "amd-smi found 1 × AMD Instinct MI325X"),
        ([new(0, mode="CPX")], 0, f"amd-smi found 1 × partition CPX of {NAME}"),
    ],
)
def test_what_is_no_whole_gpu_of_the_kind_is_refused_with_what_was_found(
    told: Any, status: int, expected: str, says: Installs
) -> None:
    says("amd-smi", told, status=status)
    assert expected in refusal(1)


@pytest.mark.parametrize(
    ("variables", "indices", "said"),
    [
        ({"HIP_VISIBLE_DEVICES": "2,0"}, [2, 0], "HIP_VISIBLE_DEVICES=2,0 shows 2 ×"),
        ({"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "0,2"}, [1], "HIP_VISIBLE_DEVICES=1 shows 1 ×"),
        ({"CUDA_VISIBLE_DEVICES": "0,2"}, [0, 2], "CUDA_VISIBLE_DEVICES=0,2 shows 2 ×"),
        ({"HIP_VISIBLE_DEVICES": ""}, [], "HIP_VISIBLE_DEVICES= shows no GPU"),
        ({"HIP_VISIBLE_DEVICES": "0,7,1"}, [0], "HIP_VISIBLE_DEVICES=0,7,1 shows 1 ×"),
        ({"ROCR_VISIBLE_DEVICES": "1,2"}, [0, 1], "ROCR_VISIBLE_DEVICES=1,2 shows 2 ×"),
        (
            {"ROCR_VISIBLE_DEVICES": "1,2", "HIP_VISIBLE_DEVICES": "2"},
            [],
            "HIP_VISIBLE_DEVICES=2 shows no GPU",
        ),
    ],
)
def test_only_what_the_variables_of_rocm_leave_visible_is_there(
    variables: dict[str, str], indices: list[int], said: str, says: Installs, monkeypatch: pytest.MonkeyPatch
) -> None:
    says("amd-smi", [new(0), new(1), new(2)])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert [device.index for device in hardware.devices_of("mi300x")] == indices
    assert said in refusal(9)


def test_a_lease_names_its_gpus_as_rocm_does(says: Installs) -> None:
    says("amd-smi", [new(0), new(1)])
    with lease("mi300x", 1) as first, lease("mi300x", 1) as second:
        assert (first, second) == ({"HIP_VISIBLE_DEVICES": "0"}, {"HIP_VISIBLE_DEVICES": "1"})


def test_an_nvidia_driver_is_none_for_an_amd_gpu(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvidia-smi").touch(mode=0o755)
    assert hardware.driver_here()
    assert hardware.driver_here("h100")
    assert hardware.driver_here("mi300x") == os.path.exists("/dev/kfd")
