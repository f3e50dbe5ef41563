"""The main module of a process that a rank spawns: the stand-in, and the script where it is asked for.

``multiprocessing`` would import the training script there at once. Few of these processes want anything of
it, and it takes seconds: it is imported when one of its names is looked for.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[4]))  # the harness that the rank has, as in launch.py

from harness.trainers.megatron.on_cpu.packages import SCRIPT
from harness.trainers.megatron.on_cpu.table import install

install()
sys.path.pop(0)
_of_script: dict[str, Any] = {}


def __getattr__(name: str) -> Any:
    if not _of_script and not name.startswith("__"):
        _of_script.update(runpy.run_path(os.environ[SCRIPT], run_name="__mp_main__"))
    if name not in _of_script:
        raise AttributeError(f"{os.environ.get(SCRIPT)} has no {name}")
    return _of_script[name]
