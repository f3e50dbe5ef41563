"""What stands in for a GPU: a checkout of Megatron-LM trains on CPUs, over gloo.

For the correctness of saving and resuming, never for speed: times and memory are not the program's.
Every thing that is replaced is a :class:`~harness.trainers.megatron.on_cpu.table.Row` with its reason, in
``tensors``, ``cuda``, ``streams``, ``collectives`` and ``packages``; ``python -m
harness.trainers.megatron.on_cpu`` prints them. What no row answers raises an error that names it.

``launch`` is started in torchrun's place. Nothing is imported here: the harness itself has no torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

LAUNCH: Final = Path(__file__).with_name("launch.py")
#: What a verdict says of a run behind the stand-in.
REMARK: Final = (
    "ran on CPUs, behind a stand-in for the GPU and over gloo: it tells whether saving and resuming are "
    "correct, and nothing of speed or memory, which are not judged"
)
#: Variables, each with its reason; what is set already stays.
_VARIABLES: Final = {
    "CUDA_VISIBLE_DEVICES": ("", "a GPU that is there is not used"),
    "TORCHDYNAMO_DISABLE": (
        "1",
        "compiled kernels take longer to make than these runs last, and want a device",
    ),
    "OMP_NUM_THREADS": ("1", "a rank has one core at most; more threads would add up in another order"),
    "GLOO_SOCKET_IFNAME": ("lo" if sys.platform == "linux" else "lo0", "nothing leaves the host"),
}


def variables(nodes: int = 1) -> Mapping[str, str]:
    """What the environment of the ranks has beside that of Megatron-LM's scripts.

    Args:
        nodes: of the ranks; on several, they find each other by the names of theirs.
    """
    found = {name: os.environ.get(name, value) for name, (value, _) in _VARIABLES.items()}
    if nodes > 1 and "GLOO_SOCKET_IFNAME" not in os.environ:
        del found["GLOO_SOCKET_IFNAME"]
    return found
