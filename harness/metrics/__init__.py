"""Series, and their readers: one module a format."""

from harness.metrics.series import Series, join, read_json_lines, read_metrics, read_tensorboard

__all__ = ["Series", "join", "read_json_lines", "read_metrics", "read_tensorboard"]
