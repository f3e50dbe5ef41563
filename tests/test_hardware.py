"""What nvidia-smi says, in every odd way it says it; the nvidia-smi here is a script on PATH."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import HardwareMissing, UsageError
from harness.machine import hardware
from harness.matrix import HARDWARE

A100 = "NVIDIA A100-SXM4-80GB"
H100 = "NVIDIA H100 80GB HBM3"
Installs = Callable[..., None]


def gpu(index: int, name: str, mig: str = "[N/A]", memory: str = "81559") -> str:
    return f"{index}, GPU-{index}aaaa-bbbb, {memory}, {mig}, {name}"


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installs:
    """Put an nvidia-smi on PATH that prints these lines: for a query, and for -L."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)

    def install(*lines: str, listing: str = "", status: int = 0, before: str = ":") -> None:
        (tmp_path / "query").write_text("".join(line + "\n" for line in lines))
        (tmp_path / "list").write_text(listing)
        script = tmp_path / "nvidia-smi"
        script.write_text(
            f"#!/bin/sh\n{before}\n"
            f'case "$1" in -L) cat "{tmp_path}/list";; *) cat "{tmp_path}/query";; esac\nexit {status}\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


def names() -> list[str]:
    return [str(device) for device in hardware.detect()]


def refusal(kind: str, world: int) -> str:
    with pytest.raises(HardwareMissing) as caught:
        hardware.require(kind, world)
    return str(caught.value)


def test_every_gpu_has_its_name_number_uuid_and_memory(smi: Installs) -> None:
    smi(gpu(0, H100), gpu(1, H100))
    first, second = hardware.detect()
    assert (first.name, first.index, first.uuid) == (H100, 0, "GPU-0aaaa-bbbb")
    assert second.memory == 81559 << 20
    assert second.hardware == "h100"


def test_eight_gpus_are_enough_for_eight_ranks_and_too_few_for_nine(smi: Installs) -> None:
    smi(*(gpu(number, H100) for number in range(8)))
    hardware.require("h100", 8)
    assert refusal("h100", 9) == f"case(h100) needs 9 H100 GPUs, and nvidia-smi found 8 × {H100}"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA H200", "h200"), ("NVIDIA H200 NVL", "h200"), ("NVIDIA B200", "b200"),
        ("NVIDIA GB200", "gb200"), ("NVIDIA GB300", "gb300"),
        ("NVIDIA GH200 480GB", None), ("NVIDIA B300 SXM6 AC", None),
    ],
)  # fmt: skip
def test_todays_gpus_are_known_by_their_product_names(name: str, kind: str | None, smi: Installs) -> None:
    smi(gpu(0, name))
    (device,) = hardware.detect()
    assert device.hardware == kind
    if kind:
        hardware.require(kind, 1)
        assert HARDWARE[kind].platform == f"dgx_{kind}"


def test_another_kind_of_gpu_is_named_not_used(smi: Installs) -> None:
    smi(gpu(0, A100), gpu(1, A100))
    assert refusal("h100", 1) == f"case(h100) needs 1 H100 GPU, and nvidia-smi found 2 × {A100}"


def test_a_machine_without_nvidia_smi_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware.detect() == ()
    assert "case(h200) needs 8 H200 GPUs, and nvidia-smi is not on PATH" in refusal("h200", 8)


def test_the_cpu_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    hardware.require("cpu", 8)
    assert hardware.hardware_here() == "cpu"


def test_unknown_hardware_is_a_usage_error_that_lists_the_known() -> None:
    with pytest.raises(UsageError, match=" or ".join(HARDWARE)):
        hardware.require("h1000", 1)


def test_a_failing_nvidia_smi_is_quoted(smi: Installs) -> None:
    said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    smi(said, "Retry.", status=9)
    assert hardware.detect() == ()
    assert refusal("a100", 1).endswith(f"and nvidia-smi failed: {said} Retry")


def test_no_devices_is_no_gpu(smi: Installs) -> None:
    smi("No devices were found")
    assert refusal("a100", 1) == "case(a100) needs 1 A100 GPU, and nvidia-smi failed: No devices were found"


def test_an_answer_that_is_no_table_is_quoted(smi: Installs) -> None:
    smi("Unable to determine the device handle for GPU0000:3B:00.0: GPU is lost")
    assert "nvidia-smi said 'Unable to determine" in refusal("a100", 1)


def test_a_silent_nvidia_smi_is_given_up(smi: Installs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_SMI_TIMEOUT", 0.2)
    smi(before="exec sleep 600")
    assert "gave no answer in" in refusal("a100", 1)


def test_a_file_that_cannot_be_started_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_bytes(b"\x7fELF no program")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "nvidia-smi cannot be started: Exec format error" in refusal("a100", 1)


def test_a_name_may_hold_a_comma_and_memory_may_be_unknown(smi: Installs) -> None:
    smi(gpu(0, "NVIDIA GB10, laptop", memory="[N/A]"))
    (device,) = hardware.detect()
    assert (device.name, device.memory, device.hardware) == ("NVIDIA GB10, laptop", 0, None)


@pytest.mark.parametrize("name", ["NVIDIA GH200 480GB", "NVIDIA H100X", "NVIDIA A100X", "NVIDIA H800"])
def test_a_name_that_only_contains_one_is_another(smi: Installs, name: str) -> None:
    smi(gpu(0, name))
    assert hardware.hardware_here() == "cpu"


def test_slices_are_named_and_never_taken_for_the_whole(smi: Installs) -> None:
    listing = (
        f"GPU 0: {H100} (UUID: GPU-0aaaa-bbbb)\n"
        "  MIG 1g.10gb     Device  0: (UUID: MIG-1111)\n"
        "  MIG 2g.20gb     Device  1: (UUID: MIG-2222)\n"
        f"GPU 1: {H100} (UUID: GPU-1aaaa-bbbb)\n"
        f"GPU 2: {H100} (UUID: GPU-2aaaa-bbbb)\n"
    )
    smi(gpu(0, H100, "Enabled"), gpu(1, H100, "Disabled"), gpu(2, H100, "Enabled"), listing=listing)
    assert names() == [f"MIG 1g.10gb of {H100}", f"MIG 2g.20gb of {H100}", H100, f"MIG (no slice) of {H100}"]
    assert [device.uuid for device in hardware.devices_of("h100")] == ["GPU-1aaaa-bbbb"]
    assert f"found 1 × MIG 1g.10gb of {H100} and 1 × MIG 2g.20gb of {H100} and" in refusal("h100", 2)


def test_a_mixed_machine_is_named_not_guessed(smi: Installs) -> None:
    smi(gpu(0, A100), gpu(1, A100), gpu(2, H100))
    assert refusal("h100", 2).endswith(f"found 2 × {A100} and 1 × {H100}")
    hardware.require("a100", 2)
    with pytest.raises(UsageError, match="--hardware a100 or h100"):
        hardware.hardware_here()


@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1", [1]),
        ("2, 0", [2, 0]),
        ("0,7,1", [0]),
        ("1,1", []),
        ("GPU-1", [1]),
        ("GPU-2aaaa-bbbb,GPU-0aaaa-bbbb", [2, 0]),
        ("GPU-", []),
        ("MIG-GPU-1", []),
    ],
)
def test_cuda_visible_devices_means_what_cuda_makes_of_it(
    smi: Installs, monkeypatch: pytest.MonkeyPatch, setting: str, seen: list[int]
) -> None:
    smi(gpu(0, H100), gpu(1, H100), gpu(2, H100))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert [device.index for device in hardware.detect()] == seen
    assert f"of which CUDA_VISIBLE_DEVICES={setting} shows" in refusal("h100", 4)


def test_a_slice_can_be_made_visible(smi: Installs, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = f"GPU 0: {H100} (UUID: GPU-0aaaa-bbbb)\n  MIG 1g.10gb     Device  0: (UUID: MIG-1111)\n"
    smi(gpu(0, H100, "Enabled"), listing=listing)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1111")
    assert names() == [f"MIG 1g.10gb of {H100}"]


def test_numbers_on_a_mixed_machine_need_an_order(smi: Installs, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(gpu(0, A100), gpu(1, H100))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in refusal("a100", 1)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert names() == [A100]
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1aaaa-bbbb")
    assert names() == [H100]


def test_nvidia_smi_is_asked_once_a_process(smi: Installs, tmp_path: Path) -> None:
    smi(gpu(0, H100), before=f"echo asked >> {tmp_path}/asked")
    for _ in range(3):
        hardware.require("h100", 1)
    assert (tmp_path / "asked").read_text() == "asked\n"


def test_the_processor_has_a_name_and_cores() -> None:
    assert hardware.describe_cpu()
    assert 1 <= hardware.cores() <= (os.cpu_count() or 1)


def test_cores_follow_the_affinity() -> None:
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    code += "from harness.machine.hardware import cores; print(cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_it_is_imported_with_the_standard_library_alone(tmp_path: Path) -> None:
    code = "import harness.machine.hardware, sys; print(*sys.modules)"
    root = Path(hardware.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    ours = {name.partition(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names)
    assert {name for name in ours if not name.startswith(("_", "sitecustomize"))} == {"harness"}
