"""Variables with which every x86-64 processor that has AVX2 gives the same floating-point bits.

torch, MKL and oneDNN choose kernels by what a processor can do and by who made it, and other kernels add up
in another order. Asked by name, they take those that all of them have. ``python -m benchmarks.numerics``
shows what each of the three decides, that other switches decide nothing, and emulates other processors.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Final

#: By whom it is read: ATen's own kernels; MKL's matrix products, exponentials and logarithms, for which AVX2
#: is another code on Intel's processors than on AMD's; oneDNN's activations and 16-bit products.
PORTABLE: Final = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "AVX2"}
#: Other names of the same switch; the library reads the first that is set.
_ALSO: Final = {"ONEDNN_MAX_CPU_ISA": ("DNNL_MAX_CPU_ISA",)}
_MACHINES: Final = ("x86_64", "amd64")


def portable(*environments: Mapping[str, str]) -> dict[str, str]:
    """What to set on this machine; without what somebody has set already, who is taken to mean it.

    Args:
        environments: variables that are set, by name; a later one is set on top.
    """
    if platform.machine().lower() not in _MACHINES:
        return {}
    return {name: value for name, value in PORTABLE.items() if _found(name, environments) is None}


def kept(*environments: Mapping[str, str]) -> tuple[str, ...]:
    """``NAME=value`` of what somebody has set otherwise: it stays, and may change bits."""
    if platform.machine().lower() not in _MACHINES:
        return ()
    found = {name: _found(name, environments) for name in PORTABLE}
    return tuple(
        "=".join(one) for name, one in found.items() if one and one[1].lower() != PORTABLE[name].lower()
    )


def switches(*environments: Mapping[str, str]) -> str:
    """Those that are set, ``NAME=value`` with blanks between, as a fingerprint has them."""
    return " ".join("=".join(one) for name in PORTABLE if (one := _found(name, environments)))


def effective(*environments: Mapping[str, str]) -> str:
    """As :func:`switches`, once :func:`portable` was set on top."""
    return switches(*environments, portable(*environments))


def _found(switch: str, environments: tuple[Mapping[str, str], ...]) -> tuple[str, str] | None:
    for environment in reversed(environments):
        for name in (switch, *_ALSO.get(switch, ())):
            if name in environment:  # also where it is empty: somebody wants none
                return name, environment[name]
    return None
