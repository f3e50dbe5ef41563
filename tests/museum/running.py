"""A case of an exhibit, its verdicts, and whether they are as expected."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.museum.environments import python_of
from tests.museum.exhibits import SCRIPTS, Exhibit, Release

_N = 40
#: How long one verdict may take, s.
_LIMIT = 900
#: Fail where a golden is missing, or was just recorded.
_OF_THE_GOLDEN = ("golden: is there", "golden: recorded")
#: What each script may be told; it is given what it says it takes.
_TOLD = {
    "--stop": "${EXIT_ITERS}",
    "--metrics": "${OUTPUT_PATH}/metrics.jsonl",
    "--tensorboard": "${TENSORBOARD_PATH}",
}


@dataclass(frozen=True)
class Found:
    """What became of an exhibit.

    Args:
        sound, faulty: the verdicts' components: None where all was held; empty where there was none to run.
        first: the first iteration that a curve of the faulty release is wrong at.
        caught: how many checks failed.
        wrong: what is not as expected, a sentence each.
        seconds: of all verdicts, environments left out.
    """

    exhibit: Exhibit
    component: str = ""
    first: int | None = None
    caught: int = 0
    wrong: tuple[str, ...] = ()
    seconds: float = 0.0

    def line(self) -> str:
        """For a terminal."""
        said = "right" if not self.wrong else "WRONG"
        seen = f": lost {self.component}, from step {self.first}" if self.component else ""
        return (
            f"{said}  {self.exhibit.name} ({self.exhibit.reference or 'sound'}){seen}, {self.seconds:.0f} s"
        )


def visit(exhibit: Exhibit, folder: Path, environments: Path, torch: str) -> Found:
    """Record and judge the sound release, judge the faulty one.

    Args:
        folder: a scratch folder of this exhibit's own.
        environments: where environments are kept.
        torch: the requirement of releases that name none.
    """
    wrong: list[str] = []
    component, first, caught, seconds = "", None, 0, 0.0
    shutil.rmtree(folder, ignore_errors=True)
    try:
        pythons = {
            release: python_of(release, exhibit.python, environments, torch)
            for release in (exhibit.sound, exhibit.faulty)
            if release
        }
    except subprocess.CalledProcessError as error:
        return Found(exhibit, wrong=(f"sound, faulty: no environment: {' '.join(map(str, error.cmd))}",))
    if exhibit.sound:
        python = pythons[exhibit.sound]
        case = write_case(exhibit, exhibit.sound, folder / "sound")
        began = time.monotonic()
        for label, words in (("record", ["--golden-update"]), ("clean", [])):
            status, verdict = judge(python, case, folder, f"sound-{label}", *words)
            failed = [f"{name}: {message}" for name, message in failures(verdict)]
            if status != (1 if label == "record" else 0):
                wrong += [f"sound, {label}: exit {status}: {verdict.get('message', '')}", *failed[:6]]
                break
        seconds += time.monotonic() - began
    if exhibit.faulty:
        python = pythons[exhibit.faulty]
        case = write_case(exhibit, exhibit.faulty, folder / "faulty")
        began = time.monotonic()
        status, verdict = judge(python, case, folder, "faulty-full", "--protocol", "full")
        seconds += time.monotonic() - began
        failed = [f"{name}: {message}" for name, message in failures(verdict)]
        diagnosis = verdict.get("diagnosis") or {}
        component, caught = diagnosis.get("component") or "", len(failed)
        steps = [
            check["first_bad_step"]
            for check in verdict.get("checks", ())
            if not check["passed"]
            and check["against"] == "continuous"
            and check["first_bad_step"] is not None
        ]
        first = min(steps, default=None)
        if status != 1 or not failed:
            wrong.append(f"faulty: exit {status}, {caught} checks failed: {verdict.get('message', '')}")
        elif component not in exhibit.components:
            wrong += [f"faulty: named {component}, expected {', '.join(exhibit.components)}", *failed[:6]]
    return Found(exhibit, component, first, caught, tuple(wrong), seconds)


def write_case(exhibit: Exhibit, release: Release, folder: Path) -> Path:
    """The folder of a case that runs a script of ``scripts/``, as the command trainer has it."""
    case = folder / exhibit.name
    case.mkdir(parents=True)
    text = (SCRIPTS / exhibit.script).read_text()
    (case / "train.py").write_text(text)
    words = ["python", "train.py", "--iters", "${TRAIN_ITERS}", "--save-every", "${SAVE_INTERVAL}"]
    words += ["--save", "${CHECKPOINT_SAVE_PATH}"]
    for option, value in _TOLD.items():
        if f'"{option}"' in text:
            words += [option, value]
    words += release.words
    (case / "model_config.yaml").write_text(yaml.safe_dump({
        "MODEL_ARGS": {"--train-iters": _N, "--save-interval": exhibit.save_interval},
        "ENV_VARS": {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **dict(exhibit.env)},
        "HARNESS": {"trainer": "command", "command": {
            "train": words, "resume": [*words, "--load", "${CHECKPOINT_LOAD_PATH}"],
        }},
    }))  # fmt: skip
    return case


def judge(python: Path, case: Path, folder: Path, label: str, *words: str) -> tuple[int, dict[str, Any]]:
    """One verdict by an environment's ``harness run``: exit status, and ``verdict.json`` or what was said."""
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    # Without bytecode each process compiles all of its framework anew: three times the time.
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "VIRTUAL_ENV"):
        env.pop(name, None)
    # transformers of before torch 2.6 loads its own random states by unpickling.
    env["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    results = folder / label
    run = [str(python.with_name("harness")), "run", str(case), "--hardware", "cpu", "--track", "dev"]
    run += ["--goldens", str(folder / "goldens"), "--results", str(results), *words]
    process = subprocess.Popen(
        run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=_LIMIT)
    except BaseException as error:
        process.terminate()  # the harness ends what it started
        said, _ = process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        said += f"\nnot done after {_LIMIT} s"
    (folder / f"{label}.log").write_text(said)
    written = next(results.rglob("verdict.json"), None)
    if written is None:
        return process.returncode, {"message": said[-400:]}
    return process.returncode, json.loads(written.read_text())


def failures(verdict: dict[str, Any]) -> list[tuple[str, str]]:
    """The failed checks that are about the run: (name, message)."""
    return [
        (check["name"], check["message"])
        for check in verdict.get("checks", ())
        if not check["passed"] and check["name"] not in _OF_THE_GOLDEN
    ]
