"""Checks, series and state diffs → which component was lost, with the evidence."""

from harness.diagnosis.deciding import crash, diagnose
from harness.diagnosis.recipes import with_recipes
from harness.diagnosis.result import COMPONENTS, Candidate, Diagnosis

__all__ = ["COMPONENTS", "Candidate", "Diagnosis", "crash", "diagnose", "with_recipes"]
