"""One comparison of one metric → one :class:`Check`."""

from harness.checks.curves import Lane, compare_curves
from harness.checks.envelope import statistics_of
from harness.checks.legacy import compare_as_megatron
from harness.checks.result import Against, Check, Kind, Worst

__all__ = [
    "Against", "Check", "Kind", "Lane", "Worst", "compare_as_megatron", "compare_curves", "statistics_of",
]  # fmt: skip
