"""Each fault has its place in the checkout of Megatron-LM that ``MEGATRON_LM_PATH`` names.

Without one none of this is collected (tests/conftest.py says so).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.megatron_faults.bank import FAULTS, Fault
from tests.megatron_faults.planting import planted


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.key)
def test_a_fault_has_its_place_in_the_checkout(fault: Fault) -> None:
    for edit in fault.edits:
        source = Path(os.environ["MEGATRON_LM_PATH"], edit.file).read_text()
        compile(planted(source, edit, fault.key), edit.file, "exec")
