"""The one driver of all cells: ``pytest test_cases --cell=cpu/dev/<case>``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.matrix import Cell
    from harness.verdict import Verdict


def test_cell(harness_cell: Cell, harness_run: Callable[[Cell], Verdict]) -> None:
    """Train, save, stop, resume, compare; say what was lost."""
    verdict = harness_run(harness_cell)
    if not verdict.passed:
        from harness.report.terminal import render
        from harness.text import for_log

        pytest.fail(for_log(render(verdict)), pytrace=False)
