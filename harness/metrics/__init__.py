"""Series, and their readers: one module a format, one row of :mod:`harness.metrics.reading`."""

from harness.metrics.reading import read_metrics
from harness.metrics.series import Series, join

__all__ = ["Series", "join", "read_metrics"]
