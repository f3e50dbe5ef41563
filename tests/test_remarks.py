"""What a case of anybody's script is likely to have wrong: linted, and said before a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.commands.cli import main
from harness.trainers.command.remarks import script

STAND_IN = Path(__file__).parent / "stand_ins" / "plain_script.py"
TOLD = ["--iters", "${TRAIN_ITERS}", "--every", "${SAVE_INTERVAL}", "--save", "${CHECKPOINT_SAVE_PATH}",
        "--metrics", "${OUTPUT_PATH}/metrics.jsonl"]  # fmt: skip
LOAD = ["--load", "${CHECKPOINT_LOAD_PATH}"]


@pytest.fixture(autouse=True)
def _cores_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))


def case(
    tmp_path: Path, train: list[str], resume: list[str] | None = None, env: Any = None, **ours: Any
) -> Path:
    folder = tmp_path / "cases" / "mine" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(STAND_IN, folder / "train.py")
    command = {"train": train, **({"resume": resume} if resume else {})}
    keys = {
        "ENV_VARS": env or {},
        "MODEL_ARGS": {"--train-iters": 8, "--save-interval": 4},
        "HARNESS": {"trainer": "command", "command": command, **ours},
    }
    (folder / "model_config.yaml").write_text(json.dumps(keys))
    return folder


def linted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, str]]]:
    capsys.readouterr()
    status = main(["cases", "lint", str(tmp_path / "cases"), "--json"])
    return status, json.loads(capsys.readouterr().out)["findings"]


def run(tmp_path: Path, folder: Path, *more: str) -> int:
    return main(
        ["run", str(folder), "--hardware", "cpu", "--goldens", str(tmp_path / "goldens"),
         "--results", str(tmp_path / "results"), *more]
    )  # fmt: skip


PYTHON = ["python", "train.py", *TOLD]
SOUND: dict[str, dict[str, Any]] = {
    "both lists": {"train": PYTHON, "resume": [*PYTHON, *LOAD]},
    "no resume": {"train": [*PYTHON, *LOAD]},
    "told to stop": {"train": [*PYTHON, "--stop", "${EXIT_ITERS}"], "resume": [*PYTHON, *LOAD]},
    "N itself": {"train": ["python", "train.py", "-n=8", "--stop", "$EXIT_ITERS", "$OUTPUT_PATH", *LOAD]},
    "by variables": {
        "train": ["python", "train.py"],
        "env": {"L": "${CHECKPOINT_LOAD_PATH}", "S": "${EXIT_ITERS}", "N": "${TRAIN_ITERS}",
                "O": "${TENSORBOARD_PATH}"},
    },
    "printed": {
        "train": ["python", "train.py", *LOAD],
        "metrics": {"stdout": r"(?P<step>\d+) (?P<loss>\S+)"},
    },
    "a script elsewhere": {"train": ["python", "${MY_CHECKOUT}/train.py", *TOLD, *LOAD]},
    "in a container": {"train": ["docker", "run", "image", "python", "/src/t.py", *TOLD, *LOAD]},
}  # fmt: skip
#: Each with the kinds of what is found, and what must be said.
DOUBTFUL: dict[str, tuple[dict[str, Any], str, str]] = {
    "resume without load": (
        {"train": [*PYTHON, *LOAD], "resume": PYTHON},
        "load",
        "HARNESS: command: resume: found no ${CHECKPOINT_LOAD_PATH}, expected it",
    ),
    "no resume and no load": ({"train": PYTHON}, "load", "command: train: found no ${CHECKPOINT_LOAD_PATH}"),
    "a name that begins like it": (
        {"train": [*PYTHON, "$CHECKPOINT_LOAD_PATHS"]}, "load", "found no ${CHECKPOINT_LOAD_PATH}"
    ),
    "another schedule": (
        {"train": ["python", "train.py", "--steps=${EXIT_ITERS}", "--o=${OUTPUT_PATH}", "18", "8.5", *LOAD]},
        "schedule",
        "found ${EXIT_ITERS} and no ${TRAIN_ITERS}, expected both: where this launch stops, and the 8 ",
    ),
    "no place for metrics": (
        {"train": ["python", "train.py", "--save", "${CHECKPOINT_SAVE_PATH}", *LOAD]},
        "metrics",
        "found neither ${OUTPUT_PATH} nor ${TENSORBOARD_PATH}, and no HARNESS: metrics: stdout",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_case_is_not_remarked_upon(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case(tmp_path, **SOUND[name])
    assert linted(tmp_path, capsys) == (0, [])


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_may_be_meant_so_is_a_warning(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, kind, said = DOUBTFUL[name]
    case(tmp_path, **keys)
    status, found = linted(tmp_path, capsys)
    assert status == 0
    assert [(one["case"], one["kind"], one["level"]) for one in found] == [("mine/tiny", kind, "warning")]
    assert said in found[0]["message"]
    assert " — " in found[0]["message"]  # and what to do
    assert main(["cases", "lint", str(tmp_path / "cases")]) == 0
    out = capsys.readouterr().out
    assert "mine/tiny: warning: HARNESS: command: " in out
    assert "nothing is wrong, 1 warning" in out


@pytest.mark.parametrize(
    "words",
    [
        ["python", "trian.py", *TOLD, *LOAD],
        ["python3", "-u", "-X", "dev", "../train.py", *TOLD, *LOAD],
        ["torchrun", "--standalone", "--nproc_per_node", "2", "trian.py", *TOLD, *LOAD],
        ["bash", "scripts/run.sh", *TOLD, *LOAD],
    ],
)
def test_a_script_that_is_not_there_is_an_error_before_anything_is_started(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = case(tmp_path, words)
    name = script(words)
    status, (found,) = linted(tmp_path, capsys)
    assert (status, found["kind"], found["level"]) == (1, "script", "error")
    assert f"HARNESS: command: train: found the script {name}, expected a file there" in found["message"]
    if shutil.which(words[0]) is None:
        return  # then that is said
    assert run(tmp_path, folder) == 2
    assert f"model_config.yaml: HARNESS: command: train: found the script {name}" in capsys.readouterr().err
    results = tmp_path / "results" / "cpu" / "dev" / "tiny"
    assert json.loads((results / "verdict.json").read_text())["status"] == "refused"
    assert not list(results.rglob("trainer.log"))
    assert run(tmp_path, folder, "--dry-run") == 0  # it may be there where that is pasted


def test_the_script_of_resume_is_looked_for_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = case(tmp_path, PYTHON, ["python", "resume.py", *TOLD, *LOAD])
    assert linted(tmp_path, capsys)[0] == 1
    assert run(tmp_path, folder) == 2
    assert "HARNESS: command: resume: found the script resume.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["python", "t.py", "x.py"], "t.py"),
        (["/usr/bin/python3.11", "-W", "error", "-Xdev", "-uO", "a/t.py"], "a/t.py"),
        (["python", "-m", "package.train", "t.py"], None),
        (["python", "-um", "train"], None),
        (["python", "-c", "pass", "t.py"], None),
        (["python", "-cpass", "t.py"], None),
        (["python", "-", "t.py"], None),
        (["python", "folder", "t.py"], "folder"),
        (["python"], None),
        (["torchrun", "--nproc-per-node=2", "a/t.py", "b.py"], "a/t.py"),
        (["torchrun", "-m", "train", "t.py"], None),
        (["torchrun", "--no-python", "bash", "t.py"], None),
        (["accelerate", "launch", "--config_file", "c.yaml", "t.py"], "t.py"),
        (["bash", "-c", "python t.py"], None),
        (["sh", "run.sh"], "run.sh"),
        (["./train", "t.py"], None),
        (["srun", "python", "t.py"], None),
    ],
)
def test_which_word_is_the_script(words: list[str], found: str | None) -> None:
    assert script(words) == found


def test_a_run_says_it_before_it_starts_and_runs_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = case(tmp_path, [*PYTHON, "--stop", "${EXIT_ITERS}"])
    assert run(tmp_path, folder) == 1
    out = "".join(capsys.readouterr().out.split())
    key = "HARNESS: command: train: found no ${CHECKPOINT_LOAD_PATH}"
    said = f"warning: {folder / 'model_config.yaml'}: {key}"
    assert out.count("".join(said.split())) == 1
    assert out.index("".join(said.split())) < out.index("FAILED")


def test_a_trainer_command_without_a_command_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = case(tmp_path, PYTHON)
    (folder / "model_config.yaml").write_text("MODEL_ARGS: {}\nHARNESS: {trainer: command}\n")
    status, (found,) = linted(tmp_path, capsys)
    assert (status, found["kind"]) == (1, "command")


def test_no_case_of_this_repository_is_remarked_upon(capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[1]
    for folder in ("docs/examples", "test_cases", "tests"):
        assert main(["cases", "lint", str(root / folder), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["cases"]["run"] > 1
        assert found["findings"] == []
