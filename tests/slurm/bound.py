"""Notes which GPUs this node's share of a job is bound to, then trains as the plain script does."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

notes = Path(os.environ["NOTES"])
notes.mkdir(exist_ok=True)
name = f"{os.environ['SLURMD_NODENAME']}-{os.environ['SLURM_STEP_ID']}"
(notes / name).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
sys.argv[0] = str(Path(__file__).parents[1] / "stand_ins" / "plain_script.py")
runpy.run_path(sys.argv[0], run_name="__main__")
