"""The programs of the tests' own environment, also where it is not on PATH."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def program(name: str) -> str:
    """Where ``name`` is: beside this Python, or on PATH.

    Raises:
        AssertionError: the environment does not have what the group ``tests`` installs.
    """
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{name} is not installed beside the tests: the group `tests` of pyproject.toml has it"
    return found
