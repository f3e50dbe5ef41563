"""What the harness starts, beside what a checkout's own scripts start: run by bash, with recorders.

``MEGATRON_LM_PATH`` names the checkout; without it none of this is collected (tests/conftest.py says so). Its
``run_ci_test.sh`` and ``_run_training.sh`` are copied, and call a stand-in of yq (``tests/yq_stand_in.py``),
and in place of ``uv`` and ``ft_launcher`` a program that writes down what it was given.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.case_tools.known import known_cases
from harness.cases import Case
from harness.trainers.base import Phase
from harness.trainers.megatron import command_line
from harness.trainers.megatron.adapter import MegatronTrainer

CHECKOUT = Path(os.environ.get("MEGATRON_LM_PATH", "/nowhere"))
SCRIPTS = Path("tests", "functional_tests", "shell_test_utils")
STAND_IN = Path(__file__).with_name("yq_stand_in.py")
HOW_MANY = 24
RECORDER = """\
#!{python}
import json, os, sys
if any(word.endswith("torch.distributed.run") for word in sys.argv) or "ft_launcher" in sys.argv[0]:
    with open({log!r}, "a") as log:
        log.write(json.dumps([sys.argv, dict(os.environ)]) + "\\n")
"""
#: docs/megatron.md, "Where it differs, and why".
NO_DATA = "/mnt/artifacts"


def values_of(case: Case) -> str:
    return " ".join(str(value) for value in {**case.model_args, **(case.model_args_2 or {})}.values())


#: What a case may have that the scripts treat in a way of their own.
FEATURES: tuple[Callable[[Case], bool], ...] = (
    lambda case: bool(case.warnings),
    lambda case: case.lightweight,
    lambda case: case.model_args_2 is not None,
    lambda case: case.test_type == "frozen-resume",
    lambda case: case.test_type == "regular",
    lambda case: any(f"${{{name}}}" in values_of(case) for name in case.env_vars),
    lambda case: "[" in values_of(case),
    lambda case: "(" in values_of(case) and "|" not in values_of(case),
    lambda case: "|" in values_of(case),
    lambda case: case.launcher == "torchrun",
    lambda case: bool(case.before_script),
    lambda case: any("{" in value for value in case.env_vars.values()),
)


def chosen() -> list[Case]:
    """One of each family and of each feature, and others between."""
    run = [one.case for one in known_cases(CHECKOUT).all if one.state == "run" and one.case is not None]
    # Without it the scripts pass `--exit-interval` and no number, which no training script takes.
    run = [case for case in run if "--train-iters" in case.model_args]
    found = {case.family: case for case in reversed(run)}
    picked = list(found.values())
    for feature in FEATURES:
        picked += [case for case in run if feature(case) and case not in picked][:1]
    others = [case for case in run if case not in picked]
    step = max(1, len(others) // max(1, HOW_MANY - len(picked)))
    return (picked + others[::step])[:HOW_MANY]


CASES = chosen() if CHECKOUT.is_dir() else []


@dataclass(frozen=True)
class Started:
    """A phase as it was started: the launcher, the script, its arguments, variables."""

    launcher: str
    script: str
    arguments: list[str]
    env: dict[str, str]


def theirs(case: Case, trainer: MegatronTrainer, tmp_path: Path) -> list[Started]:
    root = tmp_path / "checkout"
    (root / SCRIPTS).mkdir(parents=True)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    log = tmp_path / "started.jsonl"
    for name in ("uv", "ft_launcher"):
        (bin_ / name).write_text(RECORDER.format(python=sys.executable, log=str(log)))
        (bin_ / name).chmod(0o755)
    yq = bin_ / "yq"
    yq.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n')
    yq.chmod(0o755)
    for name in ("run_ci_test.sh", "_run_training.sh"):
        text = (CHECKOUT / SCRIPTS / name).read_text()
        assert "/usr/local/bin/yq" in text
        (root / SCRIPTS / name).write_text(text.replace("/usr/local/bin/yq", str(yq)))
    parameters = tmp_path / "model_config.yaml"
    shutil.copy(case.directory / "model_config.yaml", parameters)
    stored = tmp_path / "stored"
    stored.mkdir()
    (stored / "latest_checkpointed_iteration.txt").write_text("1")
    given = {
        "TRAINING_SCRIPT_PATH": trainer.node.script, "TRAINING_PARAMS_PATH": str(parameters),
        "GOLDEN_VALUES_PATH": str(tmp_path / "golden.json"), "OUTPUT_PATH": str(tmp_path / "output"),
        "TENSORBOARD_PATH": str(tmp_path / "tensorboard"), "CHECKPOINT_SAVE_PATH": str(tmp_path / "save"),
        "CHECKPOINT_LOAD_PATH": str(stored), "DATA_PATH": NO_DATA, "DATA_CACHE_PATH": "/cache",
        "N_REPEAT": "1", "ENABLE_LIGHTWEIGHT_MODE": "false", "RECORD_CHECKPOINTS": "true",
        "GPUS_PER_NODE": str(trainer.node.gpus),
    }  # fmt: skip
    env = {"PATH": f"{bin_}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    words = [f"{name}={value}" for name, value in given.items()]
    done = subprocess.run(
        ["bash", str(root / SCRIPTS / "run_ci_test.sh"), *words],
        cwd=root, env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert log.is_file(), done.stderr[-3000:]
    return [told(*json.loads(line)) for line in log.read_text().splitlines()]


def told(argv: list[str], env: dict[str, str]) -> Started:
    launcher = "ft_launcher" if argv[0].endswith("ft_launcher") else "torchrun"
    at = next(i for i, word in enumerate(argv) if word.endswith(".py"))
    return Started(launcher, argv[at], argv[at + 1 :], env)


def ours(case: Case, trainer: MegatronTrainer, tmp_path: Path) -> Iterator[Started]:
    n, k = case.train_iters("h100"), case.resume_at("h100")
    for name, load in (("continuous", None), ("resumed", tmp_path / "from"))[: 2 if trainer.resumes else 1]:
        phase = Phase(
            "resumed" if load else "continuous", tmp_path / name, tmp_path / name / "save", load,
            k if load else 0, n, n, case.save_interval("h100"),
        )  # fmt: skip
        launch = trainer.launch(phase)
        argv = list(launch.argv)
        argv = argv[argv.index("harness") + 1 :] if argv[0] == "bash" else argv
        yield told(argv, dict(launch.env))


def plain(text: str, tmp_path: Path) -> str:
    """Without the places where either of them puts its files."""
    phases = [tmp_path / name for name in ("continuous", "resumed")]
    places = [
        *((tmp_path / name, "<CHECKPOINTS>") for name in ("save", "stored", "from")),
        *((tmp_path / "tensorboard" / f"run_{i}", "<EVENTS>") for i in (1, 2)),
        (tmp_path / "tensorboard", "<EVENTS>"),
        (tmp_path / "output", "<OUTPUT>"),
        *((phase / name, "<CHECKPOINTS>") for phase in phases for name in ("save", "no_checkpoint")),
        *((phase / "tensorboard", "<EVENTS>") for phase in phases),
        *((phase, "<OUTPUT>") for phase in phases),
    ]
    text = text.replace(f"{tmp_path}/1/", f"{tmp_path}/")  # the scripts' first repetition
    for path, name in places:
        text = text.replace(str(path), name)
    return text.replace("/tmp/checkpoints/", "<CHECKPOINTS>")


def once(words: list[str], case: Case) -> list[str]:
    """Without the values of a repeated key that argparse overwrites: the harness passes the last one only."""
    repeated = {said.split()[2] for said in case.warnings}
    found: dict[int, list[str]] = {}
    first: dict[str, int] = {}
    at = -1
    for i, word in enumerate(words):
        if word.startswith("--"):
            at = first.setdefault(word, i) if word in repeated else i
            found[at] = [word]
        else:
            found[at].append(word)
    return [word for group in found.values() for word in group]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_started_is_what_the_checkouts_scripts_start(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MASTER_PORT", "MASTER_ADDR", "HARNESS_ALLOW_SCRIPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GPUS_PER_NODE", "8")  # what several nodes run is refused without
    monkeypatch.setenv("DATA_PATH", NO_DATA)
    monkeypatch.setenv("DATA_CACHE_PATH", "/cache")
    monkeypatch.setenv("CHECKPOINT_LOAD_PATH", str(tmp_path / "stored"))
    monkeypatch.setattr("harness.trainers.megatron.command_line.which", lambda name: f"/bin/{name}")
    trainer = MegatronTrainer(case, "h100")
    expected, found = theirs(case, trainer, tmp_path), list(ours(case, trainer, tmp_path))
    assert len(expected) == len(found)
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        assert (one.launcher, one.script) == (other.launcher, other.script)
        words = [plain(word, tmp_path) for word in once(one.arguments, case)]
        if number and case.model_args_2 is not None and "--exit-interval" not in words:
            words += ["--exit-interval", str(case.train_iters("h100"))]  # so that both phases end alike
        assert [plain(word, tmp_path) for word in other.arguments] == words
        here = {name: plain(value, tmp_path) for name, value in other.env.items() if name != "PYTHONPATH"}
        there = {name: plain(value, tmp_path) for name, value in one.env.items()}
        own = {
            name for name, value in case.env_vars.items() if "$" in value
        }  # of each other: docs/megatron.md
        # What today's scripts export is exported for older checkouts too.
        own |= {name for name in command_line._DEFAULTS if name not in there}
        assert {k: v for k, v in here.items() if k not in own} == {
            name: there.get(name, "<none>") for name in here if name not in own
        }
