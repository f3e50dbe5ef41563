"""Read, fingerprint and diff saved training state, never executing any of it."""

from harness.checkpoints.checkpoint import Checkpoint, open_checkpoint
from harness.checkpoints.compare import StateDiff, TensorDiff, diff
from harness.checkpoints.distcp import safe_reader
from harness.checkpoints.fingerprints import fingerprint
from harness.checkpoints.folders import (
    MANIFEST,
    TRACKER,
    iter_dir,
    iterations,
    latest,
)
from harness.checkpoints.gaps import Gap
from harness.checkpoints.wholeness import Verified, verify

__all__ = [
    "MANIFEST",
    "TRACKER",
    "Checkpoint",
    "Gap",
    "StateDiff",
    "TensorDiff",
    "Verified",
    "diff",
    "fingerprint",
    "iter_dir",
    "iterations",
    "latest",
    "open_checkpoint",
    "safe_reader",
    "verify",
]
