"""Read, fingerprint and diff saved training state, never executing any of it."""

from harness.checkpoints.distcp import safe_reader

__all__ = ["safe_reader"]
