"""The digests of operations, the variables that make them portable, and what a golden makes of both."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.goldens.fingerprints import NUMERICS, apart
from harness.machine import portable
from harness.machine.portable import PORTABLE

ROOT = Path(__file__).parents[1]
X86 = os.uname().machine in ("x86_64", "amd64")
only_x86 = pytest.mark.skipif(not X86, reason="missing hardware: an x86-64 processor")

MEASURE = """
import json, sys, torch
torch.set_num_threads(1)
from harness.machine.numerics import measure
print(json.dumps(measure("cpu", sys.argv[1])))
"""


@functools.cache
def measured(precision: str = "fp32", prelude: str = "", **variables: str) -> dict[str, str]:
    """The digests of a fresh process, one for each setting."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.replace("from harness", prelude + "\nfrom harness"), precision],
        env={**os.environ, "PYTHONWARNINGS": "ignore", **PORTABLE, **variables},
        cwd=ROOT, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout)
    return found


def others(there: dict[str, str], here: dict[str, str]) -> set[str]:
    return {name.partition(",")[0] for name in there if there[name] != here[name]}


# -- digests -----------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_two_processes_give_the_same_digests_and_one_a_precision(precision: str) -> None:
    found = measured(precision)
    assert found == measured(precision, prelude="pass")
    assert {name.partition(", ")[2] for name in found} == {"", precision}
    assert len(set(found.values())) == len(found)


@pytest.mark.torch
def test_measuring_changes_neither_random_streams_nor_switches_and_takes_well_under_a_second() -> None:
    import torch

    from harness.machine.numerics import measure

    before = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    measure()
    began = time.process_time()
    measure()
    assert time.process_time() - began < 5.0  # seen: 0.15; the machine may be any
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == before[1:]


@only_x86
@pytest.mark.torch
@pytest.mark.parametrize(
    ("variables", "operations"),
    [
        ({"ATEN_CPU_CAPABILITY": "default"}, {"softmax", "sums", "Adam", "layer norm"}),
        ({"MKL_CBWR": "AVX2"}, {"linear", "attention"}),
        ({"ONEDNN_MAX_CPU_ISA": "SSE41"}, {"gelu"}),
    ],
)
def test_a_switch_that_decides_bits_shows_in_the_operations_that_it_is_for(
    variables: dict[str, str], operations: set[str]
) -> None:
    assert operations <= others(measured(), measured(**variables))


@pytest.mark.torch
@pytest.mark.parametrize(
    "variables",
    [
        {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4"},
        {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
        {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ONEDNN_CPU_ISA_HINTS": "PREFER_YMM", "MKL_VML_MODE": "EP"},
    ],
)  # fmt: skip
def test_what_else_a_machine_may_have_set_changes_no_operation(variables: dict[str, str]) -> None:
    assert others(measured(), measured(**variables)) == set()


@pytest.mark.torch
def test_threads_would_show_were_they_not_pinned() -> None:
    assert "sums" in others(measured(), measured(prelude="torch.set_num_threads(2)"))


@pytest.mark.torch
def test_a_result_too_large_to_be_brought_to_the_host_shows_each_of_its_bits() -> None:
    import torch

    from harness.machine.numerics import _FOLD, _digest

    large = torch.arange(_FOLD, dtype=torch.float32)
    was = _digest([large])
    assert was == _digest([large.clone()])
    for place in (0, 1, _FOLD // 2, _FOLD - 1):
        other = large.clone()
        other.view(torch.int32)[place] ^= 1
        assert _digest([other]) != was
    swapped = large.clone()
    swapped[: _FOLD // 4], swapped[_FOLD // 4 : _FOLD // 2] = (
        large[_FOLD // 4 : _FOLD // 2], large[: _FOLD // 4]
    )  # fmt: skip
    assert _digest([swapped]) != was


# -- variables ---------------------------------------------------------------------------------


@only_x86
def test_what_is_set_already_is_kept_and_said_also_by_its_old_name_and_where_it_is_empty() -> None:
    assert portable.portable({}) == PORTABLE
    ours = {"MKL_CBWR": "AVX2"}
    assert portable.portable({}, ours) == {k: v for k, v in PORTABLE.items() if k != "MKL_CBWR"}
    assert portable.kept({}, ours) == ("MKL_CBWR=AVX2",)
    assert "ONEDNN_MAX_CPU_ISA" not in portable.portable({"DNNL_MAX_CPU_ISA": "SSE41"})
    assert portable.kept({"DNNL_MAX_CPU_ISA": "SSE41"}) == ("DNNL_MAX_CPU_ISA=SSE41",)
    assert portable.kept({"ATEN_CPU_CAPABILITY": ""}) == ("ATEN_CPU_CAPABILITY=",)
    assert portable.kept({"ATEN_CPU_CAPABILITY": "AVX2"}) == ()
    assert portable.switches(PORTABLE) == " ".join(f"{k}={v}" for k, v in PORTABLE.items())
    assert portable.effective({}, {}) == portable.switches(PORTABLE)


def test_on_another_kind_of_processor_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert portable.portable({}) == {}
    assert portable.kept({"MKL_CBWR": "AVX2"}) == ()


# -- fingerprints ------------------------------------------------------------------------------

HERE: dict[str, Any] = {
    "device": "Example CPU", "torch": "2.13.0", "precision": "fp32",
    NUMERICS: {"libm": "1", "linear": "2", "softmax": "3"},
}  # fmt: skip


def test_equal_numerics_are_the_same_environment_whatever_it_is_called() -> None:
    found = apart({**HERE, "device": "Another CPU", "torch": "2.13.1"}, HERE)
    assert found.environment == ()
    assert found.names == (
        "device 'Another CPU' there, 'Example CPU' here", "torch '2.13.1' there, '2.13.0' here",
    )  # fmt: skip


def test_other_numerics_name_the_first_operation_in_the_order_of_a_step() -> None:
    there = {**HERE, NUMERICS: {"softmax": "x", "linear": "y", "libm": "1"}}
    found = apart(there, HERE)
    assert found.operations == ("linear", "softmax")
    assert found.environment == ("numerics: 'linear' gives other bits, as do 1 more of 3 operations",)


def test_an_operation_that_only_one_side_has_measured_is_no_witness() -> None:
    there = {**HERE, NUMERICS: {"libm": "1", "linear": "2"}}
    assert apart(there, HERE).environment == ()
    assert apart(HERE, there).environment == ()


@pytest.mark.parametrize("nothing", [None, {}, {"another": "1"}, "abc", ["1"]])
def test_where_one_side_has_measured_nothing_names_decide(nothing: Any) -> None:
    there = {**HERE, "device": "Another CPU", NUMERICS: nothing}
    assert apart(there, HERE).environment == ("device 'Another CPU' there, 'Example CPU' here",)
    assert apart({**HERE, NUMERICS: nothing}, HERE).environment == ()


def test_another_subject_stays_one_where_the_numerics_are_equal() -> None:
    assert apart({**HERE, "precision": "bf16"}, HERE).subject == (
        "precision: recorded with bf16, run with fp32",
    )
