"""Checks, series and state diffs → which component was lost, with the evidence."""

from harness.diagnosis.cause import in_order_of_cause
from harness.diagnosis.crashes import crash
from harness.diagnosis.deciding import diagnose
from harness.diagnosis.loading import could_not_load, said_unable
from harness.diagnosis.recipes import with_recipes
from harness.diagnosis.replicas import asks_for_replicas, settled
from harness.diagnosis.result import COMPONENTS, Candidate, Diagnosis

__all__ = [
    "COMPONENTS",
    "Candidate",
    "Diagnosis",
    "asks_for_replicas",
    "could_not_load",
    "crash",
    "diagnose",
    "in_order_of_cause",
    "said_unable",
    "settled",
    "with_recipes",
]
