"""harness init: what it makes of a script, and that it overwrites nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cases import load_case
from harness.commands.cli import main
from harness.errors import UsageError
from harness.init.case import guess
from harness.init.files import case_file, repository_files
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
    path.write_text("from composer import Trainer\n")
    assert look(path).framework == "Composer"
    assert "uses Composer" in "\n".join(guess(look(path), tmp_path).unseen)


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


def test_a_name_of_any_length_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(f"import torch\na{'.b' * 1500}()\n")
    assert look(path).framework == "plain torch"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:\n", "line 1: is not Python"),
        (None, "is not there"),
        (b"\xff", "UTF-8"),
        ("x = " + "-" * 20_000 + "1", "nested too deep"),
    ],
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
    assert "kept  noxfile.py: add to it: from harness.nox import sessions; sessions()" in said
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


def test_a_file_whose_name_holds_nothing_but_the_step(tmp_path: Path) -> None:
    body = PRINT + 'torch.save(state, f"{args.out}/step{step}.pt")\nstate = torch.load(args.resume)\n'
    _, resume, _ = case_of(tmp_path, script(tmp_path, body, '"--steps", type=int', '"--out"', '"--resume"'))
    assert resume[-1] == "${CHECKPOINT_LOAD_PATH}/step20.pt"


@pytest.mark.parametrize(
    "option",
    [
        'click.option("--resume/--no-resume", default=False)',
        'p.add_argument("--resume", action=argparse.BooleanOptionalAction)',
        'click.option("--resume", is_flag=True)',
    ],
)
def test_an_option_for_yes_and_no_gets_no_value(tmp_path: Path, option: str) -> None:
    path = tmp_path / "train.py"
    path.write_text(f'{option}\np.add_argument("--out")\ntorch.load(args.out)\n')
    _, resume, _ = case_of(tmp_path, path)
    assert resume[-1] == "--resume"


def test_the_options_of_click_are_plain_names(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    options = ("--steps", "--out", "--logs", "--resume")
    said = "\n".join(f'@click.option("{one}", default="x")' for one in options)
    body = 'torch.save(1, os.path.join(out, f"c_{step}.pt"))\n    torch.load(resume)\n    SummaryWriter(logs)'
    path.write_text(f"{said}\ndef main(steps, out, logs, resume):\n    {body}\n")
    train, resume, _ = case_of(tmp_path, path)
    assert train[2:4] == ("--logs", "${TENSORBOARD_PATH}")
    assert resume[-1].startswith("${CHECKPOINT_LOAD_PATH}/c_")


def test_one_file_that_is_loaded_needs_an_option_to_stop(tmp_path: Path) -> None:
    """A launch that is ended from outside may have saved it again by then."""
    body = PRINT + 'torch.save(state, args.out / f"step_{step}.pt")\n'
    body += 'torch.save(state, args.out / "latest.pt")\ntorch.load(args.out / "latest.pt")\n'
    options = ('"--steps", type=int', '"--out"', '"--resume", action="store_true"')
    _, _, unseen = case_of(tmp_path, script(tmp_path, body, *options))
    assert "no option to stop at a step, and latest.pt has no step in its name" in unseen


def test_a_process_group_is_started_by_torchrun(tmp_path: Path) -> None:
    path = script(tmp_path, PRINT + 'torch.distributed.init_process_group("gloo")\n')
    assert "torchrun" in case_of(tmp_path, path)[2]


def test_the_packages_of_the_repository_are_installed_from_no_index(tmp_path: Path) -> None:
    for name in ("mine", "src/ours", "scripts/near", "data/datasets"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.py").touch()
    (tmp_path / "datasets").mkdir()  # of files with data
    path = tmp_path / "scripts" / "train.py"
    path.write_text("import torch, mine.a, ours, near, datasets\nfrom . import x\n")
    assert look(path, tmp_path).imports == ("torch", "datasets")


def test_a_mark_of_byte_order_is_no_part_of_a_script(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_bytes(b"\xef\xbb\xbfimport torch\r\n")
    assert look(path).imports == ("torch",)


def test_a_notebook_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.ipynb"
    path.write_text('{"cells": []}')
    with pytest.raises(UsageError, match="is a notebook"):
        look(path)


def test_two_scripts_of_one_name_are_two_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b", "."):
        Path(folder).mkdir(exist_ok=True)
        script(Path(folder), PRINT)
        for _ in range(2):
            assert main(["init", f"{folder}/train.py"]) == 0
    said = capsys.readouterr().out
    cases = {path.parent.name: path.read_text() for path in Path("test_cases").rglob("model_config.yaml")}
    assert sorted(cases) == sorted(["train", "b-train", f"{tmp_path.name}-train"])
    assert "[python, b/train.py" in cases["b-train"]
    assert "harness run b-train " in said


def test_from_a_folder_below_the_next_command_is_said_to_run_in_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "a").mkdir()
    script(tmp_path / "a", PRINT)
    monkeypatch.chdir(tmp_path / "a")
    assert main(["init", "train.py"]) == 0
    assert f"  cd {tmp_path}\n  harness run train" in capsys.readouterr().out


def test_where_epochs_are_iterations_their_lines_are_read(tmp_path: Path) -> None:
    line = 'tqdm.write(f"Epoch {epoch + 1}/{args.epochs}, loss: {total:.4f}")\n'
    path = script(tmp_path, PRINT + line, '"--epochs", type=int')
    assert r"stdout: '\bEpoch\s+(?P<step>\d+)" in guess(look(path), tmp_path).text
    path = script(tmp_path, PRINT + line, '"--epochs", type=int', '"--steps", type=int')
    assert r"stdout: '\bstep\s+(?P<step>\d+)" in guess(look(path), tmp_path).text
    path = script(tmp_path, line, '"--steps", type=int')
    assert "no line is printed with a step" in "\n".join(guess(look(path), tmp_path).unseen)


@pytest.mark.parametrize("said", ['p.add_argument("data_dir")', '@click.argument("data_dir")'])
def test_what_stands_without_an_option_is_asked_for_too(tmp_path: Path, said: str) -> None:
    path = tmp_path / "train.py"
    path.write_text(f"{said}\ndef f(): pass\n")
    assert "asks for data_dir" in "\n".join(guess(look(path), tmp_path).unseen)
    path.write_text('p.add_argument("data_dir", nargs="?")\np.add_argument("-v")\n')
    assert "asks for" not in "\n".join(guess(look(path), tmp_path).unseen)
    path.write_text('p.add_argument("output")\n')  # no --output is given then
    assert "asks for output" in "\n".join(guess(look(path), tmp_path).unseen)
    assert "output," not in guess(look(path), tmp_path).text


def test_a_case_is_written_anew_until_somebody_changes_it(tmp_path: Path) -> None:
    first = "# Written\nMODEL_ARGS: {--train-iters: 4}\n"
    path = script(tmp_path, PRINT)
    _, done = case_file(tmp_path, path, first)
    written = tmp_path / done.path
    assert case_file(tmp_path, path, first.replace("4", "8"))[1].verb == "wrote"
    assert "--train-iters: 8" in written.read_text()
    assert written.read_text().startswith("# Written sha256:")
    changed = written.read_text().replace("8", "12")
    written.write_text(changed)
    _, done = case_file(tmp_path, path, first)
    assert (done.verb, written.read_text()) == ("kept", changed)
    assert "remove it" in done.said


def test_a_script_without_options_is_told_of_a_parser_and_of_a_log(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import torch\ntorch.manual_seed(1)\ntorch.save(x, 'last.pt')\n")
    unseen = guess(look(tmp_path / "train.py"), tmp_path).unseen
    assert unseen[0].startswith("train.py reads no options: begin it with import argparse")
    assert "harness.log(step, loss=loss)" in "\n".join(unseen)
