"""What this machine has. Standard library only: the noxfile asks before anything is installed.

GPUs are those that ``nvidia-smi`` tells of and ``CUDA_VISIBLE_DEVICES`` leaves visible, and AMD's
(``harness/machine/amd.py``). A slice of one (MIG) is named, and never taken for the whole: neither its times
nor its memory are those of a golden.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from harness.errors import HardwareMissing, UsageError
from harness.machine import amd
from harness.machine.device import Device, is_amd, names_of
from harness.machine.tools import TIMEOUT, ask
from harness.matrix import HARDWARE

_SMI = "nvidia-smi"
_SMI_TIMEOUT = TIMEOUT
_FIELDS = ("index", "uuid", "memory.total", "mig.mode.current", "name")  # the name may hold a comma
_SLICE = re.compile(r"\s+MIG\s+(?P<profile>\S+)\s+Device\s+\d+:\s+\(UUID:\s*(?P<uuid>\S+?)\)")
_WHOLE = re.compile(r"GPU\s+\d+:.*\(UUID:\s*(?P<uuid>\S+?)\)")
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_NVIDIA = "/dev/nvidiactl"


def driver_here(hardware: str = "") -> bool:
    """Whether there is any sign of a driver, of that hardware where it is named; takes no time."""
    nvidia = shutil.which(_SMI) is not None or os.path.exists(_NVIDIA)
    if hardware:
        return amd.driver_here() if of_amd(hardware) else nvidia
    return nvidia or amd.driver_here()


def of_amd(hardware: str) -> bool:
    """Whether that kind of hardware is AMD's, and runs ROCm."""
    return hardware in HARDWARE and is_amd(HARDWARE[hardware].device_names)


def detect() -> tuple[Device, ...]:
    """The GPUs, and slices of GPUs, that a process started now would see; in its order."""
    return (*_look()[0], *amd.look()[0])


def devices_of(hardware: str) -> tuple[Device, ...]:
    """The GPUs of one kind that a process started now would see."""
    found, _ = amd.look() if of_amd(hardware) else _look()
    return tuple(device for device in found if device.hardware == hardware)


def showing(hardware: str, devices: Sequence[str]) -> dict[str, str]:
    """What to set for a process that is to see these devices only, by their own names; none for the CPU."""
    if of_amd(hardware):
        return {amd.VISIBLE[0]: ",".join(devices)}
    return {_VISIBLE: "" if hardware == "cpu" else ",".join(devices)}


def hardware_here() -> str:
    """What a person means who names no hardware: the one kind of GPU that is here, else ``cpu``.

    Raises:
        UsageError: there are several kinds.
    """
    kinds = sorted({device.hardware for device in detect() if device.hardware})
    if len(kinds) > 1:
        raise UsageError(
            f"this machine has several kinds of GPU: {names_of(detect())}",
            f"say which is meant: --hardware {' or '.join(kinds)}",
        )
    return kinds[0] if kinds else "cpu"


def require(hardware: str, world: int) -> None:
    """Refuse what this machine has not got.

    Args:
        hardware: a key of :data:`HARDWARE`.
        world: how many ranks; each needs a GPU of its own, and on the CPU they share the cores.

    Raises:
        HardwareMissing: one sentence: what was looked for, and what was found.
        UsageError: there is no such hardware.
    """
    if hardware not in HARDWARE:
        raise UsageError(f"hardware {hardware!r}: expected {' or '.join(HARDWARE)}")
    kind = HARDWARE[hardware].device_names
    if not kind:
        return
    devices, found = amd.look() if is_amd(kind) else _look()
    if sum(device.hardware == hardware for device in devices) < world:
        wanted = f"{world} {' or '.join(kind)} GPU{'s' if world > 1 else ''}"
        raise HardwareMissing(f"case({hardware}) needs {wanted}, and {found}")


def describe_cpu() -> str:
    """The processor as far as bits depend on it: its model's name and numbers, and what it can do.

    A virtual machine gives many processors one name, and hides some of what they can do; libraries
    choose their kernels by both.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    keys = "model name|cpu family|model|flags|CPU implementer|CPU part"
    said = dict(re.findall(rf"^({keys})\s*:\s*(.+?)\s*$", text, re.MULTILINE))
    if "model name" in said:
        can = hashlib.sha256(" ".join(sorted(said.get("flags", "").split())).encode()).hexdigest()[:8]
        numbers = f"family {said.get('cpu family', '?')} model {said.get('model', '?')}"
        return f"{' '.join(said['model name'].split())} ({numbers}, flags {can})"
    if "CPU part" in said:  # Arm's kernels give numbers
        return f"{platform.machine()} {said.get('CPU implementer', '?')}/{said['CPU part']}"
    return platform.processor() or platform.machine() or "unknown"


def cores() -> int:
    """How many cores this process may keep busy: its affinity, within its control group's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, int(quota) // int(period)))


# -- nvidia-smi --------------------------------------------------------------------------------


def _look() -> tuple[tuple[Device, ...], str]:
    """The visible devices, and what was found as the end of a sentence."""
    smi = shutil.which(_SMI)
    if smi is None:
        beside = " though there is a driver (in a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
        return (), f"{_SMI} is not on PATH{beside if os.path.exists(_NVIDIA) else ''}"
    present, found = _ask(smi)
    setting = os.environ.get(_VISIBLE)
    if setting is None or not present:
        return present, found
    kinds = {device.name for device in present}
    by_bus = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if len(kinds) > 1 and not by_bus and re.search(r"(^|,)\s*\d", setting):
        # CUDA counts the fastest first, nvidia-smi as they lie on the bus.
        why = "counts in an order of its own: set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID"
        return (), f"{found}, of which {_VISIBLE}={setting} {why}"
    visible = _visible(present, setting)
    return visible, f"{found}, of which {_VISIBLE}={setting} shows {names_of(visible)}"


def _visible(present: Sequence[Device], setting: str) -> tuple[Device, ...]:
    """What CUDA makes of the variable: it stops at the first entry that names nothing."""
    found: list[Device] = []
    for entry in (part.strip() for part in setting.split(",")):
        if entry.isdigit():
            named = [device for device in present if device.index == int(entry) and not device.mig]
        elif entry.startswith(("GPU-", "MIG-")):
            named = [device for device in present if device.uuid.startswith(entry)]
        else:
            named = []
        if len(named) != 1:
            break
        if named[0] in found:  # CUDA then shows none at all
            return ()
        found += named
    return tuple(found)


@lru_cache
def _ask(smi: str) -> tuple[tuple[Device, ...], str]:
    """Every device, whoever may see it; asked once a process, for it takes up to seconds."""
    lines, problem = ask(
        smi, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits", timeout=_SMI_TIMEOUT
    )
    if problem:
        return (), problem
    devices: list[Device] = []
    sliced: set[str] = set()
    for line in lines:
        fields = [field.strip() for field in line.split(",", len(_FIELDS) - 1)]
        if len(fields) != len(_FIELDS) or not fields[0].isdigit():
            return (), f"{_SMI} said {line[:80]!r}"
        index, uuid, memory, mig, name = fields
        devices.append(Device(name, int(index), uuid, int(memory) << 20 if memory.isdigit() else 0))
        if mig == "Enabled":
            sliced.add(uuid)
    if sliced:
        lines, problem = ask(smi, "-L", timeout=_SMI_TIMEOUT)
        if problem:
            return (), problem
        devices = list(_with_slices(devices, sliced, lines))
    return tuple(devices), f"{_SMI} found {names_of(devices)}"


def _with_slices(devices: Iterable[Device], sliced: set[str], lines: Iterable[str]) -> Iterable[Device]:
    """Put the slices, of which only ``nvidia-smi -L`` tells, in the place of their GPUs."""
    slices: dict[str, list[re.Match[str]]] = {}
    parent = ""
    for line in lines:
        if whole := _WHOLE.match(line):
            parent = whole["uuid"]
        elif part := _SLICE.match(line):
            slices.setdefault(parent, []).append(part)
    for device in devices:
        if device.uuid not in sliced:
            yield device
        elif device.uuid not in slices:
            yield replace(device, mig="(no slice)")
        for part in slices.get(device.uuid, []):
            yield replace(device, uuid=part["uuid"], memory=0, mig=part["profile"])
