"""Checks, series and state diffs → which component was lost, with the evidence."""

from harness.diagnosis.cause import in_order_of_cause
from harness.diagnosis.deciding import crash, diagnose
from harness.diagnosis.recipes import with_recipes
from harness.diagnosis.result import COMPONENTS, Candidate, Diagnosis

__all__ = [
    "COMPONENTS",
    "Candidate",
    "Diagnosis",
    "crash",
    "diagnose",
    "in_order_of_cause",
    "with_recipes",
]
