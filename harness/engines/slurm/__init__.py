"""The nodes of a Slurm cluster: an allocation a cell, a step a phase.

Nothing but Slurm's own programs is used (salloc, srun, scancel, squeue, scontrol, sinfo).
"""

from __future__ import annotations

from harness.engines.slurm.engine import Slurm

__all__ = ["Slurm"]
