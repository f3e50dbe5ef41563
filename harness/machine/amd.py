"""AMD's GPUs, as ``amd-smi`` or the older ``rocm-smi`` tells of them. Standard library only.

Never run on such a machine: what both print is known from what others have shown of it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from harness.machine.device import Device, names_of
from harness.machine.tools import ask

#: What names the visible ones by number; HIP takes the first that is set.
VISIBLE: Final = ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
#: What lets the runtime see some only; HIP then counts among these.
_BELOW: Final = "ROCR_VISIBLE_DEVICES"
_NEW, _OLD = "amd-smi", "rocm-smi"
_ASKED: Final[Mapping[str, tuple[str, ...]]] = {
    _NEW: ("static", "--asic", "--vram", "--partition", "--json"),
    _OLD: ("--showproductname", "--showmeminfo", "vram", "--showcomputepartition", "--json"),
}
#: Of a GPU that is not cut into several: anything else is a part of one.
_WHOLE = ("", "SPX", "N/A")
_UNITS: Final = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


def driver_here() -> bool:
    """Whether there is any sign of AMD's driver; takes no time."""
    return any(map(shutil.which, _ASKED)) or os.path.exists("/dev/kfd")


def look() -> tuple[tuple[Device, ...], str]:
    """The visible devices, and what was found as the end of a sentence."""
    program = next(filter(None, map(shutil.which, _ASKED)), None)
    if program is None:
        beside = " though there is a driver" if driver_here() else ""
        return (), f"neither {_NEW} nor {_OLD} is on PATH{beside}"
    present, found = _present(program)
    if present and os.environ.get(_BELOW) is not None:
        present = _shown(present, os.environ[_BELOW], count=True)
        found += f", of which {_BELOW}={os.environ[_BELOW]} shows {names_of(present)}"
    for variable in VISIBLE:
        setting = os.environ.get(variable)
        if setting is not None and present:
            shown = _shown(present, setting)
            return shown, f"{found}, of which {variable}={setting} shows {names_of(shown)}"
    return present, found


def _shown(present: Sequence[Device], setting: str, *, count: bool = False) -> tuple[Device, ...]:
    """Those that a list of numbers names, up to the first that names none; ``count``: numbered anew."""
    found: list[Device] = []
    for entry in (part.strip() for part in setting.split(",")):
        named = [one for one in present if entry.isdigit() and one.index == int(entry)]
        if not named or named[0] in found:
            break
        found += named
    if count:
        return tuple(Device(d.name, i, str(i), d.memory, d.mig) for i, d in enumerate(found))
    return tuple(found)


@lru_cache
def _present(program: str) -> tuple[tuple[Device, ...], str]:
    """Every device, whoever may see it; asked once a process."""
    name = Path(program).name
    lines, problem = ask(program, *_ASKED[name])
    if problem:
        return (), problem
    text = "\n".join(lines)
    try:
        told = json.loads(text[min(i for i in (text.find("["), text.find("{")) if i >= 0) :])
        devices = tuple((_new if name == _NEW else _old)(told))
    except (ValueError, TypeError, KeyError, AttributeError):
        return (), f"{name} said {text[:80]!r}"
    return devices, f"{name} found {names_of(devices)}"


def _new(told: Any) -> Iterator[Device]:  # noqa: ANN401 - JSON
    """``amd-smi static --json``: a list of GPUs, in newer ones below ``gpu_data``."""
    for one in told["gpu_data"] if isinstance(told, dict) else told:
        size = one.get("vram", {}).get("size", {})
        size = size if isinstance(size, dict) else {}
        cut = one.get("partition", {})
        cut = cut if isinstance(cut, dict) else {}
        mode = str(cut.get("accelerator_partition") or cut.get("compute_partition") or "")
        memory = int(size.get("value", 0)) * _UNITS.get(str(size.get("unit")), 0)
        index = int(one["gpu"])
        yield Device(str(one["asic"]["market_name"]), index, str(index), memory, _part(mode))


def _old(told: Any) -> Iterator[Device]:  # noqa: ANN401 - JSON
    """``rocm-smi --json``: what is known of ``card0``, ``card1``, …, under keys that are not always alike."""
    for card, known in told.items():
        number = re.fullmatch(r"card(\d+)", card)
        if number is None:
            continue
        said = {key.lower(): str(value) for key, value in known.items()}
        memory = said.get("vram total memory (b)", "0")
        yield Device(
            said["card series"], int(number[1]), number[1], int(memory) if memory.isdigit() else 0,
            _part(said.get("compute partition", "")),
        )  # fmt: skip


def _part(mode: str) -> str:
    return "" if mode.upper() in _WHOLE else mode
