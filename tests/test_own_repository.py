"""A repository of one's own: an empty checkout, the wheel, and ten commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.verdict.reading import read_verdict
from tests.tools import program
from tests.transcript import alike, on_page, transcript
from tests.wheels import build, install, newcomer

pytestmark = [pytest.mark.tools, pytest.mark.torch]

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs" / "examples" / "plain" / "tiny_lm" / "train.py"
PLANTED = '        optimizer.load_state_dict(saved["optimizer"])\n'
OWN = """
[dependency-groups]
dev = ["torch==2.13.0"]
kernels = ["torch==2.13.0", "einops"]

[tool.harness]
tracks = {dev = {}, nightly = {group = "kernels"}}
hardware = {l40s = {device-names = ["L40S"]}}
"""


def test_ten_commands_lead_from_an_empty_repository_to_a_matrix_for_ci(tmp_path: Path) -> None:
    wheel = build(tmp_path / "dist")
    place = tmp_path / "mine"
    place.mkdir()
    env = newcomer(tmp_path)
    count = 0

    def run(*words: str, status: int = 0) -> str:
        nonlocal count
        count += 1
        path = shutil.which(words[0], path=env["PATH"])
        assert path, f"{words[0]} is not on PATH"
        done = subprocess.run(
            [path, *words[1:]], cwd=place, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    run("git", "init", "--quiet")
    shutil.copy(SCRIPT, place)
    install(tmp_path / "venv", wheel, "nox[uv]")
    count += 1
    said = run("harness", "init", "train.py")
    assert "not seen" not in said
    (name,) = re.findall(r"test_cases/mine/(\w+)/model_config.yaml", said)
    assert len((place / "noxfile.py").read_text().splitlines()) == 5

    cell = place / "results" / "cpu" / "dev" / name / "verdict.json"
    said = run("nox", "-s", "case(cpu)", "--", "--golden-update", status=1)
    assert "golden recorded, resuming is sound" in said
    said = run("nox", "-s", "case(cpu)")
    assert "compared bit for bit" in said
    assert read_verdict(cell).status == "passed"

    text = (place / "train.py").read_text()
    assert PLANTED in text
    (place / "train.py").write_text(text.replace(PLANTED, ""))
    run("nox", "-s", "case(cpu)", status=1)
    lost = read_verdict(cell).diagnosis
    assert lost is not None
    assert lost.component == "optimizer"

    (place / "pyproject.toml").write_text(OWN)
    rows = json.loads(run("harness", "github", "matrix", "test_cases").partition("\n")[0])
    assert {(row["hardware"], row["track"]) for row in rows["include"]} == {
        (hardware, track) for hardware in ("l40s", "cpu") for track in ("dev", "nightly")
    }
    said = run("nox", "-s", f"case(l40s)(nightly,{name})", status=3)
    assert "case(l40s) needs 1 L40S GPU" in said
    assert count <= 10


def test_a_script_as_people_write_them_becomes_green_by_doing_what_is_said(tmp_path: Path) -> None:
    assert alike(transcript(tmp_path / "mine")) == alike(on_page()), "run: python -m tests.transcript"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[tool.harness.tracks]\nnightly = {group = "train"}\n', "train"),
        ("[tool.harness]\ntracks = 3\n", "found 3, expected a table"),
    ],
)
def test_what_a_repository_leaves_undefined_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    case = tmp_path / "test_cases" / "mine" / "one"
    case.mkdir(parents=True)
    (case / "model_config.yaml").touch()
    (tmp_path / "pyproject.toml").write_text(text)
    (tmp_path / "noxfile.py").write_text("from harness.nox import sessions\nsessions()\n")
    done = nox(tmp_path, "-s", "case(cpu)")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert words in done.stderr
    assert "[tool.harness.tracks]" in done.stderr


def test_a_track_without_a_group_runs_in_the_python_that_is_here(tmp_path: Path) -> None:
    case = tmp_path / "test_cases" / "mine" / "one"
    case.mkdir(parents=True)
    (case / "model_config.yaml").write_text("mine: [\n")
    (tmp_path / "pyproject.toml").write_text("[tool.harness.tracks]\ncontainer = {group = false}\n")
    (tmp_path / "noxfile.py").write_text("from harness.nox import sessions\nsessions()\n")
    done = nox(tmp_path, "-s", "case(cpu)")
    assert done.returncode == 1
    assert not list((tmp_path / ".nox").glob("case*"))
    assert (
        read_verdict(tmp_path / "results" / "cpu" / "container" / "one" / "verdict.json").status == "refused"
    )
    done = nox(tmp_path, "-s", "case(cpu)", path="/usr/bin:/bin")
    assert "no Python on PATH has the harness: pip install" in done.stderr


@pytest.mark.parametrize("chosen", ["sessions = ['mine']", "tags = ['own']", "keywords = 'mine'"])
def test_what_a_noxfile_runs_by_default_stays(tmp_path: Path, chosen: str) -> None:
    case = tmp_path / "test_cases" / "mine" / "one"
    case.mkdir(parents=True)
    (case / "model_config.yaml").touch()
    own = f"import nox\nnox.options.{chosen}\n@nox.session(tags=['own'])\ndef mine(session): pass\n"
    (tmp_path / "noxfile.py").write_text(f"{own}from harness.nox import sessions\nsessions()\n")
    listed = nox(tmp_path, "-l").stdout.splitlines()
    assert [line.split()[1] for line in listed if line.startswith("* ")] == ["mine"]
    assert any(line.startswith("- case(cpu)(dev,one)") for line in listed)


def nox(place: Path, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
    here = str(Path(sys.executable).parent)
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "NOXSESSION")}
    # nox leaves the folder of its own Python out: that is not where a container has its trainer.
    link = place / "bin"
    link.mkdir(exist_ok=True)
    if not (link / "python").exists():
        (link / "python").write_text(f'#!/bin/sh\nexec {here}/python "$@"\n')
        (link / "python").chmod(0o755)
    env |= {"PATH": path or f"{link}:{env['PATH']}", "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [program("nox"), *words]
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)
