"""cluster.yml, and the job of docs/cluster.md for GitLab: who starts them; their scripts run as written."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.commands.cli import parser
from harness.verdict import Run
from tests.nights import green, write
from tests.scripts import bash, machine, script
from tests.test_workflows import FILES, GONE, LABEL, evaluated, event, load, step, triggers
from tests.tools import program

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[1]
RUN = step("cluster.yml", "cluster", "Run the sweep")["run"]
#: Writes its words down, each on a line, and ends with 1, as where a cell is red.
RECORDS = 'printf "%s\\n" "$@" > words; [ "$1" != sweep ]'


def checkout(root: Path, harness: str) -> Path:
    """A checkout as a runner has it after the installing step; ``harness`` is what its program does."""
    folder = root / "checkout"
    (folder / ".venv" / "bin").mkdir(parents=True)
    script(folder / ".venv" / "bin" / "harness", harness)
    machine(folder)
    return folder


def job(name: str) -> dict[str, Any]:
    found: dict[str, Any] = load("cluster.yml")["jobs"][name]
    return found


# -- who starts it -------------------------------------------------------------------------------


def test_nothing_but_the_clock_and_a_hand_starts_it_and_no_workflow_calls_it() -> None:
    assert {*triggers(load("cluster.yml"))} == {"schedule", "workflow_dispatch"}
    assert not [file.name for file in FILES if re.search(r"uses:.*cluster\.yml", file.read_text())]
    # What GitHub keeps away from the runner is whatever its group does not name.
    text = (ROOT / "docs" / "cluster.md").read_text()
    assert "only\n   `OWNER/NAME/.github/workflows/cluster.yml@refs/heads/main`" in text
    assert "github.event.pull_request" not in (ROOT / ".github/workflows/cluster.yml").read_text()


@pytest.mark.parametrize(
    ("github", "inputs", "cluster", "runs"),
    [
        (event("schedule"), {}, "h100", True),
        (event("schedule"), {}, "", False),
        (event("workflow_dispatch"), {"hardware": "cpu"}, "", True),
        (event("workflow_dispatch"), {"hardware": ""}, "h100", True),
        (event("workflow_dispatch"), {"hardware": ""}, "", False),  # the watch would wait for all there is
        # If it had the trigger after all:
        (event("pull_request", "fork/train"), {"hardware": "h100"}, "h100", False),
        (event("pull_request", "own/train"), {"hardware": "h100"}, "h100", False),
        (event("pull_request", **GONE), {}, "h100", False),
        (event("pull_request_target", "fork/train", **LABEL), {}, "h100", False),
        (event("pull_request_review", "fork/train"), {}, "h100", False),
        (event("issue_comment"), {}, "h100", False),
        (event("workflow_run"), {}, "h100", False),
        (event("push"), {}, "h100", False),
    ],
)
def test_who_gets_the_login_node(github: Any, inputs: Any, cluster: str, runs: bool) -> None:
    contexts = {"github": github, "inputs": inputs, "vars": {"HARNESS_CLUSTER": cluster}}
    assert bool(evaluated(job("cluster")["if"], **contexts)) == runs
    assert job("watch")["needs"] == "cluster"
    watched = job("watch")["if"].removeprefix("always() && ")
    assert evaluated(watched, needs={"cluster": {"result": "failure" if runs else "skipped"}}) == runs


def test_what_is_waited_for_is_what_was_asked_for() -> None:
    variables, expected = job("cluster")["env"], job("watch")["with"]
    assert expected == {
        "requirement": ".", "hardware": variables["HARDWARE"], "tracks": variables["TRACKS"],
    }  # fmt: skip
    uploaded = next(
        one["with"] for one in job("cluster")["steps"] if "upload-artifact" in one.get("uses", "")
    )
    fetched = next(
        one["with"]["pattern"] for one in load("watch.yml")["jobs"]["watch"]["steps"]
        if "download-artifact" in one.get("uses", "")
    )  # fmt: skip
    assert fetched == "results-*"
    assert uploaded["name"].startswith("results-")


# -- its steps, run as written -------------------------------------------------------------------


def test_the_sweep_gets_the_hardware_the_tracks_and_the_options_of_the_repository(tmp_path: Path) -> None:
    folder = checkout(tmp_path, f'{RECORDS}; status=$?; echo "$UV_PYTHON_INSTALL_DIR"; exit $status')
    options = "--at-most=16 --slurm-option=--partition=gpu"
    done = bash(folder, RUN, HARDWARE="h100 h200", TRACKS="dev", OPTIONS=options)
    assert done.returncode == 1, done.stderr  # the sweep's own
    assert done.stdout.strip() == str(folder / ".venv" / "pythons")
    words = (folder / "words").read_text().splitlines()
    asked = parser().parse_args(words)
    assert (asked.hardware, asked.track) == (["h100", "h200"], ["dev"])
    assert (asked.at_most, asked.slurm_option) == (16, ["--partition=gpu"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n", (tmp_path / "temp" / "since").read_text())
    bash(folder, RUN, HARDWARE="h100", TRACKS="all", OPTIONS="")
    assert (folder / "words").read_text().split() == ["sweep", "--hardware", "h100", "--track", "all"]


def test_the_signal_of_a_cancelled_run_comes_to_the_sweep(tmp_path: Path) -> None:
    # GitHub's runner tells the shell that it started, and nobody else.
    there, cancelled = tmp_path / "there", tmp_path / "cancelled"
    folder = checkout(tmp_path, f"exec {shlex.quote(sys.executable)} sweep.py")
    (folder / "sweep.py").write_text(
        "import pathlib, time\n"
        f"try:\n    pathlib.Path({str(there)!r}).touch(); time.sleep(60)\n"
        f"except KeyboardInterrupt:\n    pathlib.Path({str(cancelled)!r}).touch()\n"
    )
    (folder / "step.sh").write_text(RUN)  # with -c, bash would become its last command by itself
    env = {**os.environ, "RUNNER_TEMP": str(tmp_path), "HARDWARE": "cpu", "TRACKS": "all", "OPTIONS": ""}
    shell = subprocess.Popen(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "step.sh"],
        cwd=folder, env=env, start_new_session=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 30
        while not there.exists() and time.monotonic() < end:
            time.sleep(0.05)
        shell.send_signal(signal.SIGINT)
        shell.wait(7.5)  # then comes SIGTERM, and the end
        assert cancelled.exists()
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (3, 0), (1, 1)])
def test_jobs_that_are_left_are_cancelled_and_none_is_no_error(
    tmp_path: Path, status: int, expected: int
) -> None:
    folder = checkout(tmp_path, f"{RECORDS}; exit {status}")
    clean = step("cluster.yml", "cluster", "Cancel what it has left in the queue")
    assert bash(folder, clean["run"]).returncode == expected
    assert (folder / "words").read_text() == "clean\n"
    parser().parse_args(["clean"])
    assert clean["if"].startswith("always() && ")


def project(folder: Path) -> None:
    """Two cases on cpu, of which one has left a verdict."""
    for case in ("small", "large-one"):
        (folder / "test_cases" / "any" / case).mkdir(parents=True)
        (folder / "test_cases" / "any" / case / "model_config.yaml").touch()
    (folder / "pyproject.toml").write_text('[tool.harness]\nhardware = ["cpu"]\ntracks = {dev = {}}\n')
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write(folder / "results", replace(green("cpu/dev/small"), run=Run("1", now, now)))
    (folder / "results/cpu/dev/small/checkpoints").mkdir()


def test_it_says_what_was_found_and_what_was_not(tmp_path: Path) -> None:
    folder = checkout(tmp_path, f'exec {shlex.quote(sys.executable)} -m harness "$@"')
    project(folder)
    (tmp_path / "temp" / "since").write_text("2026-01-01T00:00:00Z\n")
    found = step("cluster.yml", "cluster", "Say what was found")["run"]
    done = bash(folder, found, HARDWARE="cpu", TRACKS="all")
    assert done.returncode == 0, done.stderr
    assert "❌ 1 red, 0 red in quarantine, 1 green" in done.stdout
    assert "title=cpu/dev/large-one is red::no verdict" in done.stdout


# -- on GitLab -----------------------------------------------------------------------------------


def gitlab() -> tuple[str, dict[str, Any]]:
    (text,) = re.findall(r"```yaml\n(cluster:.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)
    return text, yaml.safe_load(text)["cluster"]


def test_gitlab_s_job_follows_the_schema_and_is_no_merge_request_s(tmp_path: Path) -> None:
    text, found = gitlab()
    (tmp_path / "pipeline.yml").write_text(text)
    words = [program("check-jsonschema"), "--builtin-schema", "vendor.gitlab-ci"]
    done = subprocess.run(
        [*words, str(tmp_path / "pipeline.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["rules"] == [{"if": '$CI_PIPELINE_SOURCE == "schedule" && $HARNESS_CLUSTER'}]


def test_gitlab_s_script_sweeps_reports_and_sounds_the_alarm(tmp_path: Path) -> None:
    real = f'{shlex.quote(sys.executable)} -m harness "$@"'
    folder = checkout(tmp_path, f'case "$1" in sweep|clean) {RECORDS};; *) exec {real};; esac')
    project(folder)
    _, found = gitlab()
    env = {"HARNESS_CLUSTER": "cpu", "HARNESS_SWEEP_OPTIONS": "--at-most=2", "CI_PIPELINE_ID": "7",
           "CI_PIPELINE_CREATED_AT": "2026-01-01T00:00:00Z"}  # fmt: skip
    done = bash(folder, found["script"][-1], **env)
    assert done.returncode == 1, done.stderr
    assert "cpu/dev/large-one: turned red" in done.stdout
    assert (folder / "words").read_text().split() == ["sweep", "--hardware", "cpu", "--at-most=2"]
    assert 'tests="2"' in (folder / found["artifacts"]["reports"]["junit"]).read_text()
    done = bash(folder, "\n".join(found["after_script"]))
    assert done.returncode == 0, done.stderr
    assert not list(folder.glob("results/*/*/*/checkpoints"))
    assert json.dumps(found["cache"]["paths"]) == '["night-watch.json"]'
