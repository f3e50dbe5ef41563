"""One comparison of one metric → one :class:`Check`."""

from harness.checks.curves import compare_curves
from harness.checks.result import Against, Check, Kind, Worst

__all__ = ["Against", "Check", "Kind", "Worst", "compare_curves"]
