"""Alter some entries of a checkpoint and nothing else, to see whether a trainer takes them up."""

from harness.ablation.altering import Alterable, alter, alterable

__all__ = ["Alterable", "alter", "alterable"]
