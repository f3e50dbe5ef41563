"""The newest releases of five frameworks: each example of the documentation, sound and with a fault."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.museum.running import failures, judge

ROOT = Path(__file__).parents[2]
_EXAMPLES = ROOT / "docs" / "examples"
_PLANTS = Path(__file__).parent / "plants"
#: Stands where the example's script stood, and runs it after the plant.
_WRAPPER = """import runpy
import sys

import plant

sys.argv[0] = __file__.replace("train.py", "sound.py")
print("planted:", plant.__doc__)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Framework:
    """One of them.

    Args:
        name: of its distribution, and of its plant below ``plants/``.
        example: the folder of a case, below ``docs/examples``.
        component: what the planted fault loses.
    """

    name: str
    example: str
    component: str


FRAMEWORKS = (
    Framework("transformers", "transformers/finetune", "rng"),
    Framework("accelerate", "accelerate/no_trainer", "lr-schedule"),
    Framework("lightning", "lightning/trainer", "optimizer"),
    Framework("deepspeed", "deepspeed/zero1", "optimizer"),
    Framework("mmengine", "mmengine/runner", "optimizer"),
)


def verdicts(framework: Framework, folder: Path) -> list[str]:
    """Record the sound example, judge it, judge it with the fault: a line each, and why."""
    shutil.rmtree(folder, ignore_errors=True)
    said, python = [], Path(sys.executable)
    title = f"{framework.name} {version(framework.name)}"
    sound = folder / "sound" / Path(framework.example).name
    shutil.copytree(_EXAMPLES / framework.example, sound)
    planted = folder / "planted" / sound.name
    shutil.copytree(sound, planted)
    (planted / "train.py").rename(planted / "sound.py")
    (planted / "train.py").write_text(_WRAPPER)
    shutil.copy(_PLANTS / f"{framework.name}.py", planted / "plant.py")
    runs: tuple[tuple[str, Path, list[str], int], ...] = (
        ("record", sound, ["--golden-update"], 1),
        ("sound", sound, [], 0),
        ("planted", planted, ["--protocol", "full"], 1),
    )
    for label, case, words, expected in runs:
        began = time.monotonic()
        status, verdict = judge(python, case, folder, label, *words)
        failed = [f"    {name}: {message}" for name, message in failures(verdict)]
        right, about = status == expected and not failed, ""
        if label == "planted":
            named = (verdict.get("diagnosis") or {}).get("component")
            right = status == expected and bool(failed) and named == framework.component
            about = f", named {named}, lost {framework.component}"
        what = f"{title}, {label}: exit {status}{about}, {time.monotonic() - began:.0f} s"
        said.append(f"{'right' if right else 'WRONG'}  {what}")
        if not right:
            said += [f"    {verdict.get('message', '')}", *failed[:6]]
            break
    return said
