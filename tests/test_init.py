"""harness init: what it makes of a script, and that it overwrites nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cases import load_case
from harness.commands.cli import main
from harness.init.case import guess
from harness.init.files import repository_files
from harness.init.script import look

LOOP = """
import argparse, os, torch
parser = argparse.ArgumentParser()
{options}
args = parser.parse_args()
torch.manual_seed(1)
{body}
"""


def script(folder: Path, body: str, *options: str) -> Path:
    said = "\n".join(f"parser.add_argument({one})" for one in options)
    path = folder / "train.py"
    path.write_text(LOOP.format(options=said, body=body))
    return path


def case_of(folder: Path, path: Path) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """train, resume and what was not seen; the case is one that can be read."""
    (folder / ".git").mkdir(exist_ok=True)
    found = guess(look(path), folder)
    case = folder / "test_cases" / "mine" / "train"
    case.mkdir(parents=True, exist_ok=True)
    (case / "model_config.yaml").write_text(found.text)
    read = load_case(case)
    assert read.harness.command is not None
    return read.harness.command.train[2:], read.harness.command.resume[2:], "\n".join(found.unseen)


PRINT = 'print(f"step {step} loss {loss.item():.3f}")\n'
SAVE_FILE = "torch.save(state, args.ckpt)\n"
SAVE_FOLDER = 'torch.save(state, os.path.join(args.out_dir, "last.pt"))\n'


def test_an_option_is_known_by_its_name_and_a_file_by_its_use(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        PRINT + SAVE_FILE + "state = torch.load(args.resume_from)\n",
        '"--max_steps", type=int',
        '"--stop-at", type=int',
        '"--ckpt", default="model.pt"',
        '"--resume_from"',
        '"--print-every", default=10',
    )
    train, resume, unseen = case_of(tmp_path, path)
    told = ("--max_steps", "${TRAIN_ITERS}", "--stop-at", "${EXIT_ITERS}", "--print-every", "1")
    assert train == (*told, "--ckpt", "${CHECKPOINT_SAVE_PATH}/model.pt")
    assert resume == (*train, "--resume_from", "${CHECKPOINT_LOAD_PATH}/model.pt")
    assert not unseen


def test_a_flag_resumes_from_where_it_saves(tmp_path: Path) -> None:
    options = ('"--steps", type=int', '"--stop", type=int', '"--out-dir"', '"--resume", action="store_true"')
    train, resume, unseen = case_of(tmp_path, script(tmp_path, PRINT + SAVE_FOLDER, *options))
    assert train[-2:] == ("--out-dir", "${CHECKPOINT_SAVE_PATH}")
    assert resume[-3:] == ("--out-dir", "${CHECKPOINT_LOAD_PATH}", "--resume")
    assert not unseen


def test_a_name_with_the_step_in_it_needs_no_option_to_stop(tmp_path: Path) -> None:
    body = PRINT + 'if step % 30 == 0:\n    torch.save(state, f"{args.out_dir}/ckpt_{step:06d}.pt")\n'
    body += "state = torch.load(args.resume)\n"
    options = ('"--steps", type=int', '"--out-dir"', '"--resume"')
    path = script(tmp_path, body, *options)
    _, resume, unseen = case_of(tmp_path, path)
    assert resume[-1] == "${CHECKPOINT_LOAD_PATH}/ckpt_000030.pt"
    assert not unseen
    text = guess(look(path), tmp_path).text
    assert "--train-iters: 60 " in text
    assert "--save-interval: 30 " in text


@pytest.mark.parametrize(
    ("body", "options", "words"),
    [
        (SAVE_FOLDER + PRINT, "steps out-dir resume", "no option to stop at a step"),
        (SAVE_FOLDER + PRINT, "steps stop out-dir", "no option to resume with"),
        (SAVE_FOLDER + PRINT, "stop out-dir resume", "no option for the number of steps"),
        (SAVE_FOLDER, "steps stop out-dir resume", "no line is printed with a step"),
        (PRINT, "steps stop out-dir resume", "no call of torch.save"),
        ('torch.save(x, "a.pt")\n' + PRINT, "steps stop resume", "no option for the folder"),
        (SAVE_FOLDER + PRINT, "steps stop out-dir resume corpus", "asks for --corpus"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(tmp_path: Path, body: str, options: str, words: str) -> None:
    _, _, unseen = case_of(
        tmp_path, script(tmp_path, body, *(f'"--{one}", required=True' for one in options.split()))
    )
    assert words in unseen


def test_a_seed_and_a_framework_are_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text("import torch\ntorch.save({}, 'x')\n")
    assert "no seed" in "\n".join(guess(look(path), tmp_path).unseen)
    path.write_text("from transformers import Trainer\n")
    assert look(path).framework == "transformers"
    assert "uses transformers" in "\n".join(guess(look(path), tmp_path).unseen)


@pytest.mark.parametrize(
    "line",
    [
        'print(f"step {step:5d}/{args.steps} | loss {loss.item():.4f} | {dt:.1f} ms")',
        'print("step %d loss %.4f" % (step, loss))',
        'print("step", step, "loss", loss.item())',
        'logger.info("iter {} train loss: {:.3f}".format(it, loss))',
    ],
)
def test_the_metrics_are_read_from_the_line_that_is_printed(tmp_path: Path, line: str) -> None:
    path = tmp_path / "train.py"
    path.write_text(f"import torch\n{line}\n")
    (printed,) = look(path).prints
    assert "(?P<step>" in printed.expression
    assert "loss>" in printed.expression
    assert "stdout:" in guess(look(path), tmp_path).text


@pytest.mark.parametrize(
    ("text", "words"), [("def f(:\n", "line 1: is not Python"), (None, "is not there"), (b"\xff", "UTF-8")]
)
def test_what_is_no_script_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: object,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("train.py").write_bytes(text if isinstance(text, bytes) else str(text).encode())
    assert main(["init", "train.py"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("harness: train.py")
    assert words in said
    assert not Path("noxfile.py").exists()


def test_nothing_is_overwritten_and_lines_are_added_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".git").mkdir()
    mine = {
        "noxfile.py": "import nox\n",
        "pyproject.toml": "[project]\nname = 'mine'\n",
        ".gitignore": "*.pt",
    }
    for name, text in mine.items():
        (tmp_path / name).write_text(text)
    path = script(tmp_path, PRINT + SAVE_FOLDER, '"--steps"', '"--out-dir"')
    monkeypatch.chdir(tmp_path)
    assert main(["init", "train.py"]) == 0
    said = capsys.readouterr().out
    assert "kept  noxfile.py: add to it: from harness.nox import sessions sessions()" in said
    assert "kept  pyproject.toml: add the dependency group" in said
    assert (tmp_path / "noxfile.py").read_text() == mine["noxfile.py"]
    assert (tmp_path / "pyproject.toml").read_text() == mine["pyproject.toml"]
    assert (tmp_path / ".gitignore").read_text() == "*.pt\n/results/\n/.nox/\n"
    (case,) = (tmp_path / "test_cases").rglob("model_config.yaml")
    case.write_text("mine: 1\n")
    assert main(["init", str(path)]) == 0
    assert case.read_text() == "mine: 1\n"
    assert (tmp_path / ".gitignore").read_text() == "*.pt\n/results/\n/.nox/\n"
    assert "model_config.yaml: remove it to have it written anew" in capsys.readouterr().out


def test_a_script_of_another_repository_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here" / ".git").mkdir(parents=True)
    path = script(tmp_path, PRINT)
    monkeypatch.chdir(tmp_path / "here")
    assert main(["init", str(path)]) == 2
    assert "lies outside of" in capsys.readouterr().err


def test_the_track_pins_what_the_script_imports(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    repository_files(tmp_path, ["numpy", "yaml", "no_such_package"])
    text = (tmp_path / "pyproject.toml").read_text()
    import numpy as np
    import yaml

    assert f'dev = ["numpy=={np.__version__}", "PyYAML=={yaml.__version__}", "no_such_package"]' in text
    assert json.dumps("nox[uv]>=2026.10.20") in (tmp_path / "noxfile.py").read_text()
    assert len((tmp_path / "noxfile.py").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("origin", "file"),
    [
        ("git@github.com:me/mine.git", ".github/workflows/resume.yml"),
        ("https://gitlab.example/me/mine", ".gitlab-ci.yml"),
    ],
)
def test_the_file_for_ci_is_that_of_where_the_repository_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    origin: str,
    file: str,
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text(f'[remote "origin"]\n\turl = {origin}\n')
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert "no workflow for CI: --workflows OWNER/NAME@REF" in capsys.readouterr().out
    assert main(["init", "--workflows", "them/harness@v1"]) == 0
    assert f"wrote {file}" in capsys.readouterr().out
    assert "them/harness" in (tmp_path / file).read_text()
    (tmp_path / file).write_text("mine: 1\n")
    assert main(["init", "--workflows", "them/harness@v1"]) == 0
    assert (tmp_path / file).read_text() == "mine: 1\n"
    assert main(["init", "--workflows", "nobody"]) == 2
