"""Goldens: what a cell is compared with; reading, writing, and what stands behind ``harness goldens``."""

from harness.goldens.fingerprints import Apart, apart
from harness.goldens.golden import SIZE_LIMIT, Golden, file_name, read, resolve, side_file
from harness.goldens.subjects import subject_apart, subject_of
from harness.goldens.writing import Change, provenance_of, unfit, write

__all__ = [
    "SIZE_LIMIT",
    "Apart",
    "Change",
    "Golden",
    "apart",
    "file_name",
    "provenance_of",
    "read",
    "resolve",
    "side_file",
    "subject_apart",
    "subject_of",
    "unfit",
    "write",
]
