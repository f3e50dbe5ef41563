"""The same training on other processors, imitated: all of its bits are the same, or its digests say so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.machine.portable import PORTABLE
from harness.metrics import Series, read_metrics
from tests.native.conftest import MEASURED, SMALL

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(
        os.uname().machine not in ("x86_64", "amd64"), reason="missing hardware: an x86-64 processor"
    ),
]
ROOT = Path(__file__).parents[2]


def of_amd() -> bool:
    """Whether this machine's own is."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


#: One of another maker than this machine's, with AVX2 and without AVX-512, instruction by instruction.
EMULATED = "Haswell" if of_amd() else "EPYC-Milan"
EMULATOR = shutil.which("qemu-x86_64")
emulates = pytest.mark.skipif(
    EMULATOR is None,
    reason="missing hardware: other processors, or what emulates them (apt-get install qemu-user)",
)


@dataclass(frozen=True)
class Trained:
    """Curves without time and memory, and the digests of the operations."""

    series: Mapping[str, Series]
    numerics: Mapping[str, str]

    def first_other_step(self, other: Trained) -> int | None:
        """At which any curve has other bits."""
        pairs = ((line, other.series[name]) for name, line in self.series.items())
        return min((int(a.steps[a.values != b.values][0]) for a, b in pairs if (a.values != b.values).any()),
                   default=None)  # fmt: skip

    def other_operations(self, other: Trained) -> set[str]:
        """Which do not give the same bits."""
        return {
            name.partition(",")[0] for name, found in self.numerics.items() if other.numerics[name] != found
        }


def train(folder: Path, *, processor: str = "", variables: Mapping[str, str] = PORTABLE) -> Trained:
    """Train twelve steps on this processor, or on an emulated one."""
    folder.mkdir()
    given = {**SMALL, "--save": folder / "checkpoints", "--tensorboard-dir": folder / "tensorboard",
             "--hidden-dropout": 0.1, "--attention-dropout": 0.1}  # fmt: skip
    words = [word for key, value in given.items()
             for word in ([key] if value is True else [key, *str(value).split()])]  # fmt: skip
    emulator = [EMULATOR or "", "-cpu", processor] if processor else []
    environment = {key: value for key, value in os.environ.items() if key not in PORTABLE}
    environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **variables}
    subprocess.run(
        [*emulator, sys.executable, "-m", "tests.native.processor_rank", str(folder), *words],
        env=environment, cwd=ROOT, check=True, timeout=1200,
    )  # fmt: skip
    found = read_metrics(folder / "tensorboard", folder)
    about = json.loads((folder / "provenance.json").read_text())
    return Trained({k: v for k, v in found.items() if k not in MEASURED}, about["numerics"])


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The portable training on this machine's own processor."""
    return train(tmp_path_factory.mktemp("here") / "run")


@emulates
def test_a_training_has_the_same_bits_on_an_emulated_processor_of_another_maker(
    here: Trained, tmp_path: Path
) -> None:
    there = train(tmp_path / "run", processor=EMULATED)
    assert there.numerics == here.numerics
    assert there.first_other_step(here) is None
    assert len(here.series) > 8


@pytest.mark.parametrize(
    "beside",
    [
        {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4"},
        {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
         "ONEDNN_CPU_ISA_HINTS": "PREFER_YMM", "ONEDNN_DEFAULT_FPMATH_MODE": "ANY"},
    ],
    ids=["libm", "libraries"],
)  # fmt: skip
def test_what_else_a_machine_has_set_changes_no_bit(
    beside: dict[str, str], here: Trained, tmp_path: Path
) -> None:
    there = train(tmp_path / "run", variables={**PORTABLE, **beside})
    assert there.numerics == here.numerics
    assert there.first_other_step(here) is None


@pytest.mark.parametrize(
    ("variable", "value", "operation"),
    [
        ("ATEN_CPU_CAPABILITY", "default", "softmax"),
        ("MKL_CBWR", "AVX2", "linear"),
        ("ONEDNN_MAX_CPU_ISA", "SSE41", "gelu"),
    ],
)
def test_without_any_one_of_the_three_bits_are_others_and_the_digest_says_so(
    variable: str, value: str, operation: str, here: Trained, tmp_path: Path
) -> None:
    there = train(tmp_path / "run", variables={**PORTABLE, variable: value})
    assert operation in there.other_operations(here)
    assert there.first_other_step(here) is not None
