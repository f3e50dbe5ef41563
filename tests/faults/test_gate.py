"""The classes of faults that the gate once did not look at are seen."""

from __future__ import annotations

import pytest

from tests.faults.gate import GATE_FAULTS, GateFault, missed

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("fault", GATE_FAULTS, ids=lambda fault: fault.lost)
def test_the_gate_sees_it(fault: GateFault) -> None:
    assert not missed(fault)
