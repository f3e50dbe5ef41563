"""Which switches decide bits: the operations of training under each, against the portable setting.

    python -m benchmarks.numerics [--precision fp32|bf16|fp16] [--train CASE] [--processor NAME …]

Each row is a process of its own with one thing set otherwise, and names the operations that give other bits
(:mod:`harness.machine.numerics`). With ``--train`` the case is trained too, and a column says at which step
its curves leave those of the portable setting; a row whose operations all give the same bits and whose
training does not would be a fault of the digests, and the exit status 1. ``--processor`` emulates one, each
with the portable setting and without, instruction by instruction (``qemu-x86_64 -cpu help``; some minutes
each). Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.checks.bounds import is_bounded
from harness.machine.portable import PORTABLE
from harness.metrics import Series, read_metrics

ROOT = Path(__file__).parents[1]
PROBE = """
import json, sys, torch, warnings
warnings.simplefilter("ignore")  # of an empty ATEN_CPU_CAPABILITY
torch.set_num_threads(1)
{prelude}
from harness.machine.numerics import measure
print(json.dumps(measure("cpu", sys.argv[1])))
"""


@dataclass(frozen=True)
class Setting:
    """One way to run.

    Args:
        name: for the table.
        variables: set beside, or in place of, the portable ones.
        prelude: Python that is run once torch is imported: what the trainer pins itself, and is not trained.
        processor: emulated, and not trained: what is started below an emulator is not emulated.
    """

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)
    prelude: str = ""
    processor: str = ""


#: The libraries take an empty variable for none, and the trainer for one that somebody wants to be none.
UNSET = dict.fromkeys(PORTABLE, "")
SETTINGS = (
    Setting("portable"),
    Setting("none of the three", UNSET),
    *(Setting(f"without {name}", {name: value}) for name, value in UNSET.items()),
    Setting("ATEN_CPU_CAPABILITY=default", {"ATEN_CPU_CAPABILITY": "default"}),
    Setting("MKL_CBWR=AVX2", {"MKL_CBWR": "AVX2"}),
    Setting("MKL_CBWR=COMPATIBLE,STRICT", {"MKL_CBWR": "COMPATIBLE,STRICT"}),
    Setting("ONEDNN_MAX_CPU_ISA=SSE41", {"ONEDNN_MAX_CPU_ISA": "SSE41"}),
    Setting("DNNL_MAX_CPU_ISA=SSE41 beside ours", {"DNNL_MAX_CPU_ISA": "SSE41"}),
    Setting("ONEDNN_DEFAULT_FPMATH_MODE=ANY", {"ONEDNN_DEFAULT_FPMATH_MODE": "ANY"}),
    Setting("ONEDNN_CPU_ISA_HINTS=PREFER_YMM", {"ONEDNN_CPU_ISA_HINTS": "PREFER_YMM"}),
    Setting("MKL_ENABLE_INSTRUCTIONS=SSE4_2", {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}),
    Setting("MKL_VML_MODE=EP", {"MKL_VML_MODE": "EP"}),
    Setting("libm without AVX2 and FMA", {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4"}),
    Setting("OMP_NUM_THREADS=2", {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}),
    Setting("two threads", prelude="torch.set_num_threads(2)"),
    Setting("denormals flushed", prelude="torch.set_flush_denormal(True)"),
    Setting("float32 products in bfloat16", prelude='torch.set_float32_matmul_precision("medium")'),
    Setting("oneDNN off", prelude="torch.backends.mkldnn.enabled = False"),
)


def environment(setting: Setting) -> dict[str, str]:
    """This process's variables with the setting's."""
    return {**os.environ, **PORTABLE, **setting.variables}


def digests(setting: Setting, precision: str) -> dict[str, str]:
    """Of each operation."""
    emulator = ["qemu-x86_64", "-cpu", setting.processor] if setting.processor else []
    done = subprocess.run(
        [*emulator, sys.executable, "-c", PROBE.format(prelude=setting.prelude), precision],
        env=environment(setting),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def curves(setting: Setting, case: str) -> dict[str, Series]:
    """Of the uninterrupted run, without time and memory."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "--hardware",
            "cpu",
            "--protocol",
            "full",
            "--results",
            folder,
            "--goldens",
            f"{folder}/none",
        ]
        subprocess.run(
            [sys.executable, "-m", "harness", "run", case, *words],
            env=environment(setting),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,  # without a golden it is red
        )
        (run,) = Path(folder).glob("cpu/*/*/continuous")
        found = read_metrics(run / "tensorboard", run)
        return {name: series for name, series in found.items() if not is_bounded(name)}


def first_step(expected: Mapping[str, Series], actual: Mapping[str, Series]) -> int | None:
    """The first at which any curve has other bits; None where all are the same."""
    steps = [
        int(line.steps[at[0]])
        for name, line in expected.items()
        if (at := (line.values != actual[name].values).nonzero()[0]).size
    ]
    return min(steps, default=None)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.numerics", description=__doc__)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--train", metavar="CASE", help="a case that is trained under each setting too")
    parser.add_argument(
        "--processor", nargs="*", default=[], metavar="NAME", help="emulated; needs qemu-user"
    )
    arguments = parser.parse_args()
    heads = ["set otherwise", f"operations with other bits, {arguments.precision}"]
    heads += ["training leaves at step"] if arguments.train else []
    print(f"| {' | '.join(heads)} |\n" + "|---" * len(heads) + "|")
    emulated = [
        Setting(f"{name}, emulated{said}", variables, processor=name)
        for name in arguments.processor
        for said, variables in ((", portable", {}), (", none of the three", UNSET))
    ]
    reference = SETTINGS[0]
    portable, trained, silent = digests(reference, arguments.precision), None, []
    for setting in (*SETTINGS, *emulated):
        measured = digests(setting, arguments.precision)
        apart = [name for name in portable if measured[name] != portable[name]]
        row = f"| {setting.name} | {'; '.join(apart) or 'none'} |"
        if arguments.train and (setting.prelude or setting.processor):
            row += " not trained |"
        elif arguments.train:
            lines = curves(setting, arguments.train)
            trained = trained or lines
            step = first_step(trained, lines)
            row += f" {'never' if step is None else step} |"
            silent += [setting.name] if step is not None and not apart else []
        print(row, flush=True)
    for name in silent:
        print(f"{name}: the training has other bits and no operation has", file=sys.stderr)
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
