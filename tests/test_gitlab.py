"""harness gitlab …: the child pipeline, and JUnit's format."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from harness.commands.cli import main
from tests.nights import green, not_run, red, write

ROOT = Path(__file__).parents[1]
PYPROJECT = """\
[tool.harness]
tracks = {nightly = {group = "train"}, container = {group = false}}
hardware = ["l40s"]
"""


def gitlab(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "harness", "gitlab", *words],
        cwd=folder, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "test_cases" / "mine" / "plain").mkdir(parents=True)
    (tmp_path / "test_cases" / "mine" / "plain" / "model_config.yaml").touch()
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    return tmp_path


def test_a_child_pipeline_has_the_tags_and_images_that_its_job_s_names_make(small: Path) -> None:
    words = (
        "--runner-tags",
        '["{hardware}-{track}"]',
        "--cpu-tags",
        '["any"]',
        "--image",
        "own/train:{track}",
    )
    done = gitlab(small, "child", "test_cases", "--hardware", "gpu", "--hardware", "cpu", *words)
    assert done.returncode == 0, done.stderr
    child = yaml.safe_load(done.stdout)
    assert "night" not in child
    job = child["l40s container"]
    assert (job["tags"], job["image"]) == (["l40s-container"], "own/train:container")
    assert child["cpu nightly"]["tags"] == ["any"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("child", "nowhere"), 2, "nowhere"),
        (("child", "test_cases", "--hardware", "h100"), 2, "expected l40s, cpu, gpu or all"),
        (("child", "test_cases", "--track", "dev"), 2, "expected nightly, container or all"),
        (("child", "test_cases", "--image", "x:{tag}"), 2, "--image: found 'x:{tag}'"),
        (("child", "test_cases", "--cpu-tags", "any"), 2, "--cpu-tags 'any': is not JSON"),
    ],
)
def test_a_child_pipeline_of_what_is_not_there_is_one_sentence(
    small: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    done = gitlab(small, *words)
    assert done.returncode == status
    assert said in done.stderr
    assert not done.stdout
    assert "Traceback" not in done.stderr


def test_a_red_cell_is_a_failure_and_one_in_quarantine_or_not_run_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    evil = ']]><x> & \x1b[2J \ufffe \ud800 "é"'
    write(tmp_path / "results", green("h100/dev/a"), red("h100/dev/b", evidence=(evil,), command=evil))
    write(tmp_path / "results", red("h100/dev/c"), not_run("h100/dev/d", "skipped", "no GPU"))
    entry = "- {cell: h100/dev/c, reason: flaky, owner: ann, expires: 2999-01-01, green_nights: 9}\n"
    (tmp_path / "quarantine.yaml").write_text(entry)
    assert main(["gitlab", "junit", "results"]) == 0
    (suite,) = ET.fromstring(capsys.readouterr().out)
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "1", "2")
    a, b, c, d = suite
    assert len(a) == 0
    assert (a.get("classname"), a.get("name"), a.get("time")) == ("h100.dev", "a", "1.000")
    (failure,) = b
    assert failure.tag == "failure"
    assert failure.get("message") == "resuming does not continue the same training"
    assert "since: step 52" in str(failure.text)
    assert "lost:  lr-schedule" in str(failure.text)
    assert "]]><x> & \\x1b[2J" in str(failure.text)
    assert c[0].tag == d[0].tag == "skipped"
    assert c[0].get("message") == "red, in quarantine until 2999-01-01: flaky"
    assert d[0].get("message") == "skipped: no GPU"


def test_a_cell_that_left_no_verdict_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_cases" / "any" / "lost").mkdir(parents=True)
    (tmp_path / "test_cases" / "any" / "lost" / "model_config.yaml").touch()
    words = ["--expect", "test_cases", "--hardware", "h100", "--track", "dev"]
    assert main(["gitlab", "junit", "results", *words]) == 0
    ((case,),) = ET.fromstring(capsys.readouterr().out)
    assert case[0].get("type") == "missing"
    assert 'nox -s "case(h100)(dev,lost)"' in str(case[0].text)
