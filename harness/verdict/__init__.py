"""The verdict of a cell, and its file.

Reading the file needs msgspec (:mod:`harness.verdict.reading`); a verdict itself, and writing it, do not.
"""

from harness.verdict.verdict import NOT_RUN, Run, Status, Verdict

__all__ = ["NOT_RUN", "Run", "Status", "Verdict"]
