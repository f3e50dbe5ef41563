"""Another repository calls our workflows, and includes our pipeline; their scripts are run there as written.

Stand-ins are only where a service is missing: ``gh``, and what carries artifacts from job to job.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from harness.errors import UsageError
from harness.init.workflows import workflows
from harness.text import utc_now
from tests.plain_case import write_case
from tests.scripts import script
from tests.tools import program
from tests.webserver import Tracker
from tests.wheels import build, newcomer

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[1]
ADDRESS = f"OWNER/NAME@{'a' * 40}"
REQUIREMENT = f"resume-harness @ git+https://github.com/{ADDRESS}"
NOXFILE = """\
# /// script
# dependencies = ["nox[uv]>=2026.10.20", "resume-harness @ git+https://nowhere.invalid/nothing"]
# ///
from harness.nox import sessions
sessions()
"""
PYPROJECT = """\
[tool.harness]
tracks = {nightly = {group = "train"}, container = {group = false}}
hardware = ["l40s"]

[dependency-groups]
train = ["msgspec"]
"""


class Machine:
    """A runner with the repository checked out, git and a Python, and nothing of the tests' environment."""

    def __init__(self, folder: Path, requirement: str) -> None:
        self.folder, self.requirement = folder, requirement
        self.checkout, self.temp = folder / "checkout", folder / "temp"
        write_case(self.checkout / "test_cases" / "mine" / "plain")
        for path in (self.temp, folder / "bin"):
            path.mkdir(parents=True)
        (self.checkout / "noxfile.py").write_text(NOXFILE)
        (self.checkout / "pyproject.toml").write_text(PYPROJECT)
        subprocess.run(["git", "init", "-q"], cwd=self.checkout, check=True)
        # What actions/setup-python, or the image, brings.
        subprocess.run([sys.executable, "-m", "venv", str(folder / "python")], check=True)

    def run(self, text: str, shell: str, **more: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.folder / 'bin'}:{self.folder / 'python' / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        env = newcomer(self.folder) | {"PATH": path, "HOME": str(self.folder), "CI": "true"}
        words = {"bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"], "sh": ["sh", "-ec"]}
        return subprocess.run(
            [*words[shell], text], cwd=self.checkout, env={**env, **more}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    def record(self, *tracks: str) -> None:
        """Goldens, as a colleague has committed them."""
        for track in tracks:
            text = f"harness run plain --hardware cpu --track {track} --golden-update"
            done = self.run(text, "sh")
            assert "golden: recorded" in done.stdout, done.stdout + done.stderr
        shutil.rmtree(self.checkout / "results")

    def hand_over(self) -> None:
        """A job is over: its results go where artifacts go."""
        shutil.copytree(self.checkout / "results", self.folder / "artifacts", dirs_exist_ok=True)
        shutil.rmtree(self.checkout / "results")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))


# -- GitHub ----------------------------------------------------------------------------------------


def steps(file: str, job: str) -> dict[str, str]:
    """The scripts of a job by their names, in order."""
    found = yaml.safe_load((ROOT / ".github" / "workflows" / file).read_text())["jobs"][job]["steps"]
    return {step["name"]: step["run"] for step in found if "run" in step}


def test_our_workflows_run_in_another_repository_with_its_own_tracks_and_hardware(
    wheel: Path, tmp_path: Path
) -> None:
    machine = Machine(tmp_path, str(wheel))
    summary, output = tmp_path / "summary.md", tmp_path / "output"
    base = {
        "RUNNER_TEMP": str(machine.temp), "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": Tracker.REPOSITORY,
        "GITHUB_STEP_SUMMARY": str(summary), "GITHUB_OUTPUT": str(output), "COMMIT": "c" * 40,
        "REQUIREMENT": machine.requirement, "CASES": "test_cases", "NOX_SCRIPT_MODE": "none",
    }  # fmt: skip

    def step(text: str, status: int = 0, **more: str) -> str:
        done = machine.run(text, "bash", **{**base, **more})
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    matrix = steps("cells.yml", "matrix")
    step(matrix["Install the harness"])
    labels = '["self-hosted", "gpu", "{hardware}"]'
    step(matrix["List the jobs"], HARDWARE="all", TRACKS="all", LABELS=labels)
    said = dict(line.split("=", 1) for line in output.read_text().splitlines())
    assert said["empty"] == "false"
    runners = {"l40s": ["self-hosted", "gpu", "l40s"], "cpu": ["ubuntu-24.04"]}
    assert json.loads(said["matrix"])["include"] == [
        {"hardware": hardware, "track": track, "cells": 1, "runs-on": runners[hardware]}
        for hardware in ("l40s", "cpu")
        for track in ("nightly", "container")
    ]
    machine.record("nightly", "container")

    cells = steps("cells.yml", "cells")
    step(cells["Install nox and the harness"])
    for hardware, track, status in (("cpu", "nightly", 0), ("cpu", "container", 0), ("l40s", "nightly", 1)):
        job = {"HARDWARE": hardware, "TRACK": track}
        step(cells["Run the cells"], status, **job)
        summary.unlink(missing_ok=True)
        told = step(cells["Say what was found"], 0, **job)
        sign = (
            "❌ 1 red, 0 red in quarantine, 0 green" if status else "✅ 0 red, 0 red in quarantine, 1 green"
        )
        assert summary.read_text().startswith(f"## {sign}")
        assert ("::error " in told) == bool(status)
        step(cells["Delete the checkpoints"], 0, **job)
        assert not list(machine.checkout.glob("results/*/*/*/checkpoints"))
        machine.hand_over()
    shutil.copytree(tmp_path / "artifacts", machine.checkout / "results")
    ran = {path.parent.relative_to(machine.checkout) for path in machine.checkout.rglob("verdict.json")}
    assert ran == {Path(f"results/{pair}/plain") for pair in ("cpu/nightly", "cpu/container", "l40s/nightly")}

    script(tmp_path / "bin" / "gh", f'[ "$1 $2" = "run view" ] && echo {utc_now()[:10]}T00:00:00Z; true')
    watch = steps("watch.yml", "watch")
    del watch["Install the harness"]  # the same script as the matrix's
    assert steps("watch.yml", "watch")["Install the harness"] == matrix["Install the harness"]
    asked = {"HARDWARE": "all", "TRACKS": "nightly", "GH_TOKEN": "t", "BRANCH": "main", "GITHUB_RUN_ID": "13",
             "GITHUB_WORKFLOW_REF": "own/train/.github/workflows/resume.yml@refs/heads/main"}  # fmt: skip
    shutil.rmtree(machine.checkout / "results/cpu/container")
    with Tracker() as tracker:
        asked |= {"GITHUB_TOKEN": Tracker.TOKEN, "GITHUB_API_URL": tracker.url, "HARNESS_WEBHOOK_URL": ""}
        for name, text in watch.items():
            step(text, 1 if name == "Sound the alarm" else 0, **asked)
        assert [issue["title"] for issue in tracker.issues] == ["l40s/nightly/plain is red"]
    assert "l40s" in (machine.checkout / "results/index.html").read_text()


# -- GitLab ----------------------------------------------------------------------------------------


def valid(schema: str, *files: Path) -> None:
    words = [program("check-jsonschema"), "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def shellchecked(lines: list[str]) -> str:
    """A job's script as its runner makes it: one after the other in one shell."""
    text = "\n".join(lines)
    done = subprocess.run(
        [program("shellcheck"), "--shell=sh", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return text


def test_our_pipeline_runs_in_another_repository_with_its_own_tracks_and_hardware(
    wheel: Path, tmp_path: Path
) -> None:
    machine = Machine(tmp_path, str(wheel))
    pipeline = yaml.safe_load((ROOT / "gitlab" / "cells.yml").read_text())
    base = {
        **pipeline["variables"], "HARNESS_REQUIREMENT": machine.requirement, "HARNESS_TRACKS": "nightly",
        "CI_PROJECT_DIR": str(machine.checkout), "CI_PIPELINE_SOURCE": "schedule", "CI_PIPELINE_ID": "7",
        "CI_PIPELINE_CREATED_AT": utc_now(),
    }  # fmt: skip

    def job(lines: list[str], status: int = 0, **more: str) -> str:
        done = machine.run(shellchecked(lines), "sh", **{**base, **more})
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    told = job(pipeline["harness-matrix"]["script"][:1], 2, HARNESS_REQUIREMENT="")
    assert "set it in variables" in told
    job(pipeline["harness-matrix"]["script"])
    (made,) = pipeline["harness-matrix"]["artifacts"]["paths"]
    valid("vendor.gitlab-ci", machine.checkout / made)
    child: dict[str, Any] = yaml.safe_load((machine.checkout / made).read_text())
    assert list(child) == ["stages", "default", "l40s nightly", "cpu nightly", "night"]
    assert child["l40s nightly"]["tags"] == ["gpu", "l40s"]
    assert "tags" not in child["cpu nightly"]
    script(tmp_path / "bin" / "harness", f'exec "{machine.checkout}.harness/bin/harness" "$@"')
    machine.record("nightly")
    (tmp_path / "bin" / "harness").unlink()

    installs = child["cpu nightly"]["script"][:2]
    for name, status in (("cpu nightly", 0), ("l40s nightly", 1)):
        one = child[name]
        assert one["script"][:2] == installs
        job(one["script"][2 if status else 0 :], status, **one["variables"])
        job(one["after_script"], **one["variables"])
        (suite,) = ET.parse(machine.checkout / one["artifacts"]["reports"]["junit"]).getroot()
        assert suite.get("failures") == str(status)
        (case,) = suite
        assert (case.get("classname"), case.get("name")) == (name.replace(" ", "."), "plain")
        failure = case.find("failure")
        if status:
            assert failure is not None
            assert 'nox -s "case(l40s)(nightly,plain)"' in str(failure.text)
        else:
            assert failure is None
        machine.hand_over()
    shutil.copytree(tmp_path / "artifacts", machine.checkout / "results")
    assert not list(machine.checkout.glob("results/*/*/*/checkpoints"))
    ran = {path.parent.relative_to(machine.checkout) for path in machine.checkout.rglob("verdict.json")}
    assert ran == {Path(f"results/{hardware}/nightly/plain") for hardware in ("cpu", "l40s")}

    night = child["night"]
    assert night["script"][:2] == installs
    asked = {**night["variables"], "CI_PIPELINE_CREATED_AT": base["CI_PIPELINE_CREATED_AT"]}
    for number in range(12):
        shutil.copytree(machine.checkout / "results", machine.checkout / f"nights/2026-01-{number + 1:02d}")
    told = job(night["script"][2:], 1, **asked)
    assert "dry run: l40s/nightly/plain: turned red" in told
    assert "1 red, 0 red in quarantine, 1 green" in told
    assert "2026-01-12" in (machine.checkout / "results/index.html").read_text()
    kept = sorted(path.name for path in (machine.checkout / "nights").iterdir())
    assert kept == [*(f"2026-01-{number:02d}" for number in range(4, 13)), utc_now()[:10]]


def test_the_pipeline_follows_gitlab_s_schema_and_its_jobs_come_and_go_together() -> None:
    file = ROOT / "gitlab" / "cells.yml"
    valid("vendor.gitlab-ci", file)
    pipeline = yaml.safe_load(file.read_text())
    matrix, cells = pipeline["harness-matrix"], pipeline["harness-cells"]
    assert matrix["extends"] == cells["extends"] == ".harness-when"
    assert cells["needs"] == ["harness-matrix"]
    artifact = {"artifact": matrix["artifacts"]["paths"][0], "job": "harness-matrix"}
    assert cells["trigger"]["include"] == [artifact]
    merge = pipeline[".harness-when"]["rules"][-1]
    assert "merge_request_event" in merge["if"]
    assert merge["variables"] == {"HARNESS_HARDWARE": "cpu"}
    documented = re.findall(
        r"^\| `(HARNESS_\w+)` \|", (ROOT / "docs" / "gitlab.md").read_text(), re.MULTILINE
    )
    assert set(documented) == {*pipeline["variables"], "HARNESS_WEBHOOK_URL"}


# -- what harness init writes ----------------------------------------------------------------------


def test_the_workflow_that_is_written_calls_ours_with_inputs_that_they_have(tmp_path: Path) -> None:
    ((path, text),) = workflows(ADDRESS, "github", REQUIREMENT, ["nightly"], ["cpu", "l40s"]).items()
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    valid("vendor.github-workflows", file)
    words = [program("zizmor"), "--offline", "--no-progress", "--persona=pedantic", "--format=plain"]
    done = subprocess.run([*words, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No findings to report" in done.stdout
    calls(text)
    jobs = yaml.safe_load(text)["jobs"]
    assert jobs["watch"]["with"] == {"requirement": REQUIREMENT, "tracks": "nightly", "hardware": "cpu l40s"}
    assert jobs["cells"]["with"]["hardware"] == (
        "${{ github.event_name == 'pull_request' && 'cpu' || 'cpu l40s' }}"
    )


def calls(text: str) -> None:
    """Each job calls a workflow of ours, by inputs, secrets and permissions that it has."""
    jobs = yaml.safe_load(text)["jobs"]
    assert list(jobs) == ["cells", "watch"]
    for name, job in jobs.items():
        ours = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
        assert re.fullmatch(rf"OWNER/NAME/\.github/workflows/{name}\.yml@(REF|a+)", job["uses"])
        inputs = ours[True]["workflow_call"]["inputs"]
        assert job["with"].keys() <= inputs.keys()
        assert {key for key, one in inputs.items() if one.get("required")} <= job["with"].keys()
        assert job.get("secrets", {}).keys() == ours[True]["workflow_call"].get("secrets", {}).keys()
        needed = {key: value for one in ours["jobs"].values() for key, value in one["permissions"].items()}
        assert job["permissions"] == needed


def test_the_workflow_and_the_pipeline_of_the_documentation_are_valid_and_complete(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "github.md").read_text()
    (text,) = (one for one in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "uses:" in one)
    (tmp_path / "workflow.yml").write_text(text)
    valid("vendor.github-workflows", tmp_path / "workflow.yml")
    calls(text)
    text = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "gitlab.md").read_text(), re.DOTALL)[0]
    (tmp_path / "pipeline.yml").write_text(text)
    valid("vendor.gitlab-ci", tmp_path / "pipeline.yml")
    (written,) = workflows(ADDRESS, "gitlab", REQUIREMENT).values()
    assert (
        yaml.safe_load(text)["include"][0]["remote"].replace("REF", "a" * 40)
        == (yaml.safe_load(written)["include"][0]["remote"])
    )


def test_the_pipeline_that_is_written_sets_variables_that_ours_has(tmp_path: Path) -> None:
    ((path, text),) = workflows(ADDRESS, "gitlab", REQUIREMENT, ["2.8"]).items()
    assert path == ".gitlab-ci.yml"
    (tmp_path / path).write_text(text)
    valid("vendor.gitlab-ci", tmp_path / path)
    variables = yaml.safe_load(text)["variables"]
    assert variables == {
        "HARNESS_REQUIREMENT": REQUIREMENT, "HARNESS_HARDWARE": "all", "HARNESS_TRACKS": "2.8",
    }  # fmt: skip
    assert variables.keys() <= yaml.safe_load((ROOT / "gitlab" / "cells.yml").read_text())["variables"].keys()


@pytest.mark.parametrize(
    ("address", "requirement", "track", "said"),
    [
        ("OWNER/NAME", "x", "dev", "expected OWNER/NAME@REF"),
        ("https://x/y@z", "x", "dev", "expected OWNER/NAME@REF"),
        ("o/n@r\nrun: x", "x", "dev", "expected OWNER/NAME@REF"),
        (ADDRESS, " ", "dev", "expected what pip installs"),
        (ADDRESS, "x\ny", "dev", "expected what pip installs"),
        (ADDRESS, "${{ secrets.X }}", "dev", "expected what pip installs"),
        (ADDRESS, "x", "a' || 'b", "track \"a' || 'b\""),
    ],
)
def test_what_cannot_stand_in_a_workflow_is_refused(
    address: str, requirement: str, track: str, said: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        workflows(address, "github", requirement, [track])
