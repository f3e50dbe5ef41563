"""docs/examples/megatron/resume.yml: held to the rules of the workflows here; its steps run as written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scripts import bash, machine, script
from tests.tools import program

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "examples" / "megatron" / "resume.yml"
USES = re.compile(r"uses: ([\w./-]+@\w{40} # v[\d.]+)$", re.MULTILINE)


def load() -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(FILE.read_text())
    return found


def steps() -> dict[str, dict[str, Any]]:
    (job,) = load()["jobs"].values()
    return {step.get("name", step.get("uses", "")): step for step in job["steps"]}


def test_the_linters_find_nothing(tmp_path: Path) -> None:
    copy = tmp_path / ".github" / "workflows" / "resume.yml"
    copy.parent.mkdir(parents=True)
    shutil.copy(FILE, copy)
    zizmor = [program("zizmor"), "--offline", "--no-progress", "--persona=pedantic", "--format=plain"]
    done = subprocess.run([*zizmor, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, "No findings to report" in done.stdout) == (0, True), done.stdout + done.stderr
    for schema in ("vendor.github-workflows", "custom.github-workflows-require-timeout"):
        words = [program("check-jsonschema"), "--builtin-schema", schema, str(copy)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for step in steps().values():
        words = [program("shellcheck"), "--shell=bash", "-"]
        done = subprocess.run(
            words, input=step.get("run", ":\n"), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def test_the_house_s_rules_hold() -> None:
    workflow = load()
    (job,) = workflow["jobs"].values()
    assert workflow["permissions"] == {}
    assert job["permissions"] == {"contents": "read"}
    assert job["timeout-minutes"] <= 30
    assert job["runs-on"] == "ubuntu-24.04"  # hosted: a fork's code runs here
    assert "pull_request_target" not in workflow[True]
    assert "secrets" not in FILE.read_text()
    ours = {
        pin
        for file in (ROOT / ".github" / "workflows").glob("*.yml")
        for pin in USES.findall(file.read_text())
    }
    pins = USES.findall(FILE.read_text())
    assert len(pins) == FILE.read_text().count("uses:")
    assert set(pins) <= ours
    for step in steps().values():
        assert "${{" not in step.get("run", "")
        if "checkout@" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


def test_it_is_run_by_a_session_of_the_noxfile() -> None:
    assert re.search(r"^def megatron\(session", (ROOT / "noxfile.py").read_text(), re.MULTILINE)


class Runner:
    """A hosted machine after both checkouts; nox has made its environment: it is this one.

    Args:
        words: which of the small configurations are run; all would take half an hour.
    """

    def __init__(self, folder: Path, words: str) -> None:
        self.workspace = folder / "workspace"
        self.harness, self.megatron = self.workspace / "resume-harness", self.workspace / "megatron-lm"
        self.harness.mkdir(parents=True)
        machine(self.workspace)
        programs = folder / "bin"
        pip = '[ "$1 $2 $3" = "-m pip install" ] && { echo "pip $4"; exit 0; }'
        script(programs / "python", f'{pip}\nexec {sys.executable} "$@"')
        asked = '[ "$*" = "-s megatron" ] || exit 9'
        script(programs / "nox", f"{asked}\nexec {sys.executable} -m tests.megatron {words}")
        if checkout := os.environ.get("MEGATRON_LM_PATH"):
            self.megatron.symlink_to(Path(checkout).absolute())
        else:
            self.megatron.mkdir()
            shutil.copy(ROOT / "tests" / "stand_ins" / "pretrain_gpt.py", self.megatron)

    def run(self, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A step, as written."""
        step = steps()[name]
        own = {
            key: value.replace("${{ github.workspace }}", str(self.workspace))
            for key, value in step.get("env", {}).items()
        }
        place = self.workspace / step.get("working-directory", ".")
        programs = f"{self.workspace.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return bash(place, step["run"], **{"PATH": programs, "GITHUB_ACTIONS": "true", **own, **environment})

    def verdicts(self) -> list[Path]:
        """What the condition of the step that tells of them looks for."""
        condition = steps()["Say what was found"]["if"]
        found = re.search(r"hashFiles\('([^']+)'\)", condition)
        assert found
        return sorted(self.workspace.glob(found[1]))


@pytest.mark.torch
def test_its_steps_run_as_written_and_a_lost_state_is_told_at_the_pull_request(tmp_path: Path) -> None:
    runner = Runner(tmp_path, "tp1_torch")
    assert runner.run("Install nox").stdout.split() == ["pip", "nox[uv]"]
    done = runner.run("Save, stop, resume, compare")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as expected: passed" in done.stdout
    if os.environ.get("MEGATRON_LM_PATH"):
        return  # nothing is planted in anybody's checkout
    red = runner.run("Save, stop, resume, compare", STAND_IN_FORGETS="optimizer")
    assert red.returncode == 1, red.stdout + red.stderr
    assert runner.verdicts()
    summary = tmp_path / "summary.md"
    said = runner.run("Say what was found", GITHUB_STEP_SUMMARY=str(summary))
    assert said.returncode == 0, said.stdout + said.stderr
    errors = [line for line in said.stdout.splitlines() if line.startswith("::error ")]
    assert errors
    assert "lost: " in errors[0]
    assert "tp1_torch is red" in errors[0]
    assert "tp1_torch" in summary.read_text()
    assert runner.run("Delete the checkpoints").returncode == 0
    assert not list(runner.workspace.rglob("checkpoints"))
    assert [path.is_file() for path in runner.verdicts()] == [True] * len(runner.verdicts())
