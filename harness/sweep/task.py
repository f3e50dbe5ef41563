"""One task of an array, on its node: ``python -m harness.sweep.task FILE`` becomes the command of its cell.

``SLURM_ARRAY_TASK_ID`` and the array's file say which one, so that nothing of a cell stands in a script.
Standard library only: it may be another Python than the cell's.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any, Final

from harness.verdict.sweep import JOB, MARKER

#: Which job it is, by which it claims its folder, and where Slurm is.
_KEPT: Final = (
    "SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT",
)  # fmt: skip


def main(words: list[str]) -> int:
    """Say where it runs, then become the cell's command; returns only where that cannot be."""
    if len(words) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    path, task = Path(words[0]), int(os.environ["SLURM_ARRAY_TASK_ID"])
    array = json.loads(path.read_bytes())
    cell = array["cells"][task]
    restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    told = {
        "host": platform.node(),
        "started": time.time(),
        "restart": restart,
        "before": _run(Path(cell["folder"])),
    }
    record = path.with_name(f"{path.stem}-{task}.json")
    beside = record.with_name(f".{record.name}.{platform.node()}.{os.getpid()}")
    beside.write_text(json.dumps(told), encoding="utf-8")
    beside.replace(record)
    env = dict(os.environ)
    if not array["engine"]:  # it runs as on any machine: frameworks take these for a launch of their own
        env = {
            name: value
            for name, value in env.items()
            if name in _KEPT or not name.startswith(("SLURM_", "SLURMD_"))
        }
    number = f"{os.environ.get('SLURM_ARRAY_JOB_ID', '')}_{task}"
    env[JOB] = f"{number}.{restart}"
    command = [*array["prefix"], array["python"], "-u", "-m", "harness", *cell["words"]]
    print(f"{platform.node()}: {cell['cell']}, job {number}", flush=True)
    try:
        os.execvpe(command[0], command, env)
    except OSError as error:
        print(f"harness: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127


def _run(folder: Path) -> str:
    """The id of the run whose results stand there now; it is not the one that is going to begin."""
    try:
        found: Any = json.loads((folder / MARKER).read_bytes())
        return str(found["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
