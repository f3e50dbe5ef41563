"""What is known, from outside, of the environment that a trainer's own processes run in."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def version_of(package: str) -> str:
    """The installed version, without the part that names a build; ``none`` when it is not here."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "none"


def device(hardware: str) -> str:
    """The product names of the devices that a cell of ``hardware`` runs on, or the CPU's."""
    from harness.machine.hardware import describe_cpu, devices_of

    names = sorted({device.name for device in devices_of(hardware)}) if hardware != "cpu" else []
    return ", ".join(names) or describe_cpu()
