""".github/workflows: linted, held to the house's rules, and their steps run as written."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import __version__
from harness.commands.cli import parser
from harness.matrix import HARDWARE, TRACKS
from harness.verdict import Run
from tests.nights import green, ran, write
from tests.tools import program
from tests.webserver import Tracker

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.y*ml"))
PIN = re.compile(r"uses: (?P<action>[\w.-]+/[\w./-]+)@(?P<hash>[0-9a-f]{40}) # (?P<version>v\d+\.\d+\.\d+)")
GPUS = [name for name, hardware in HARDWARE.items() if hardware.device_names]


def load(name: str) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load((FOLDER / name).read_text())
    return found


def triggers(workflow: dict[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = workflow[True]  # YAML 1.1 reads `on` as a truth
    return found


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in FILES:
        for name, job in load(file.name)["jobs"].items():
            yield f"{file.name}:{name}", job


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in jobs():
        for number, step in enumerate(job.get("steps", [])):
            yield f"{name}:{step.get('name', number)}", step


def step(file: str, job: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in load(file)["jobs"][job]["steps"] if one.get("name") == name)
    return found


JOBS = dict(jobs())
STEPS = dict(steps())


# -- linters ---------------------------------------------------------------------------------------


def zizmor(folder: Path) -> subprocess.CompletedProcess[str]:
    options = ["--offline", "--no-progress", "--persona=pedantic", "--format=plain"]
    words = [program("zizmor"), *options, str(folder)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_zizmor_finds_nothing() -> None:
    done = zizmor(ROOT / ".github")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No findings to report" in done.stdout


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("unit.yml", "permissions: {}\n\nconcurrency", "permissions: write-all\n\nconcurrency"),
        ("unit.yml", "run: nox -s tests", "run: echo ${{ github.event.pull_request.title }}"),
        ("unit.yml", "@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2", "@v6"),
        ("gpu.yml", "# zizmor: ignore[dangerous-triggers] see above", ""),
    ],
)
def test_zizmor_would_find_a_hole(tmp_path: Path, file: str, old: str, new: str) -> None:
    shutil.copytree(FOLDER, tmp_path / ".github" / "workflows")
    copy = tmp_path / ".github" / "workflows" / file
    text = copy.read_text()
    assert old in text
    copy.write_text(text.replace(old, new))
    assert zizmor(tmp_path).returncode != 0


@pytest.mark.parametrize("schema", ["vendor.github-workflows", "custom.github-workflows-require-timeout"])
def test_the_workflows_follow_the_schema(schema: str) -> None:
    done = subprocess.run(
        [program("check-jsonschema"), "--builtin-schema", schema, *map(str, FILES)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_moves_the_pins_follows_its_schema() -> None:
    file = str(ROOT / ".github" / "dependabot.yml")
    done = subprocess.run(
        [program("check-jsonschema"), "--builtin-schema", "vendor.dependabot", file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [name for name, step in STEPS.items() if "run" in step])
def test_shellcheck_finds_nothing_in_a_script(name: str) -> None:
    done = subprocess.run(
        [program("shellcheck"), "--shell=bash", "-"],
        input=STEPS[name]["run"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


# -- the house's rules -----------------------------------------------------------------------------


def test_the_workflows_are_those_that_the_documentation_names() -> None:
    named = re.findall(r"^\| `(\w+\.yml)` \|", (ROOT / "docs" / "github.md").read_text(), re.MULTILINE)
    assert sorted(named) == [file.name for file in FILES]


def test_every_action_is_pinned_by_hash_and_one_version_is_used_of_each() -> None:
    pins: dict[str, set[tuple[str, str]]] = {}
    for file in FILES:
        for line in file.read_text().splitlines():
            if "uses:" not in line or "uses: ./" in line:
                continue
            found = PIN.search(line)
            assert found, f"{file.name}: {line.strip()}"
            pins.setdefault(found["action"], set()).add((found["hash"], found["version"]))
    assert pins
    assert {action: len(versions) for action, versions in pins.items() if len(versions) > 1} == {}


@pytest.mark.parametrize("file", [file.name for file in FILES])
def test_a_workflow_has_no_permission_and_one_run_of_a_kind(file: str) -> None:
    workflow = load(file)
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["group"]
    assert workflow["defaults"]["run"]["shell"] == "bash"


@pytest.mark.parametrize("name", JOBS)
def test_a_job_has_the_least_permissions_and_a_time_limit(name: str) -> None:
    job = JOBS[name]
    writes = {key for key, value in job["permissions"].items() if value != "read"}
    assert writes == {"nightly.yml:watch": {"issues"}, "release.yml:publish": {"id-token"}}.get(name, set())
    assert "uses" in job or 0 < job["timeout-minutes"] <= 720


@pytest.mark.parametrize("name", [name for name, step in STEPS.items() if "run" in step])
def test_no_expression_stands_in_a_script(name: str) -> None:
    assert "${{" not in STEPS[name]["run"]


def test_no_checkout_leaves_its_token_behind() -> None:
    checkouts = [step for step in STEPS.values() if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == 8
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_only_the_watch_sees_a_secret_and_only_where_it_posts() -> None:
    seen = [name for name, step in STEPS.items() if re.search(r"secrets\.|github\.token", json.dumps(step))]
    assert seen == [
        "nightly.yml:watch:Fetch what was remembered last night",
        "nightly.yml:watch:Sound the alarm",
    ]
    for file in FILES:
        assert "secrets: inherit" not in file.read_text()


def test_our_machines_are_used_by_one_job_with_the_labels_of_its_hardware() -> None:
    own = {
        name: job["runs-on"] for name, job in JOBS.items() if "self-hosted" in json.dumps(job.get("runs-on"))
    }
    assert own == {"gpu.yml:cells": ["self-hosted", "gpu", "${{ matrix.hardware }}"]}


def test_code_of_a_pull_request_comes_to_our_machines_only_with_the_label() -> None:
    workflow = load("gpu.yml")
    # With `pull_request` the file itself would be the fork's, and its guard no guard.
    assert "pull_request" not in triggers(workflow)
    assert triggers(workflow)["pull_request_target"] == {"types": ["labeled"]}
    guard = "github.event_name != 'pull_request_target' || github.event.label.name == 'gpu'"
    assert workflow["jobs"]["matrix"]["if"] == guard
    assert workflow["jobs"]["cells"]["needs"] == "matrix"
    assert workflow["env"]["COMMIT"] == "${{ github.event.pull_request.head.sha || github.sha }}"
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read"}
        assert job["steps"][0]["with"]["ref"] == "${{ env.COMMIT }}"
    assert "cache" not in (FOLDER / "gpu.yml").read_text()


def test_the_gpu_matrix_comes_from_nox_and_may_be_empty() -> None:
    workflow = load("gpu.yml")
    matrix, cells = workflow["jobs"]["matrix"], workflow["jobs"]["cells"]
    assert matrix["outputs"] == {
        name: f"${{{{ steps.matrix.outputs.{name} }}}}" for name in ("matrix", "empty")
    }
    assert cells["if"] == "needs.matrix.outputs.empty == 'false'"
    assert cells["strategy"] == {"fail-fast": False, "matrix": "${{ fromJSON(needs.matrix.outputs.matrix) }}"}


def test_what_can_be_chosen_by_hand_is_what_there_is() -> None:
    inputs = triggers(load("gpu.yml"))["workflow_dispatch"]["inputs"]
    assert inputs["hardware"]["options"] == ["all", *GPUS]
    assert inputs["track"]["options"] == ["all", *TRACKS]


def test_the_night_runs_all_hardware_and_both_tracks() -> None:
    workflow = load("nightly.yml")
    assert triggers(workflow)["schedule"]
    night = workflow["jobs"]
    assert night["gpu"]["uses"] == "./.github/workflows/gpu.yml"
    assert night["gpu"]["with"] == {"hardware": "${{ vars.HARNESS_HARDWARE || 'all' }}"}
    assert night["cpu"]["strategy"] == {"fail-fast": False, "matrix": {"track": list(TRACKS)}}
    assert set(night["watch"]["needs"]) == {"gpu", "cpu"}
    assert night["watch"]["if"] == "always()"


@pytest.mark.parametrize("name", ["unit.yml:tests", "gpu.yml:cells", "nightly.yml:cpu"])
def test_checkpoints_are_deleted_before_results_are_kept(name: str) -> None:
    names = [step.get("name", step.get("uses", "")) for step in JOBS[name]["steps"]]
    deleted = names.index("Delete the checkpoints")
    uploaded = next(number for number, one in enumerate(names) if one.startswith("actions/upload-artifact@"))
    assert deleted < uploaded
    assert JOBS[name]["steps"][deleted]["if"] == "always()"
    assert JOBS[name]["steps"][uploaded]["with"]["path"] == "results"


def test_every_listing_is_of_all_tracks_not_of_what_nox_runs_by_default() -> None:
    listings = re.findall(r"nox -l[^>\n]*", "".join(file.read_text() for file in FILES))
    assert len(listings) == 4
    assert {line.strip() for line in listings} == {f"nox -l --json -t {' '.join(TRACKS)}"}


@pytest.mark.parametrize(
    ("job", "ran"), [("tests", ["nox -s tests", "nox"]), ("minimums", ["nox -s minimums"])]
)
def test_a_job_of_the_unit_workflow_is_nox_and_no_more(job: str, ran: list[str]) -> None:
    steps = load("unit.yml")["jobs"][job]["steps"]
    scripts = [step["run"] for step in steps if "run" in step and "if" not in step]
    assert scripts == ['python -m pip install "nox[uv]"', *ran]


def test_torch_has_no_cuda_on_githubs_machines_and_is_the_machine_s_own_affair_on_ours() -> None:
    made = {}
    for name, job in JOBS.items():
        scripts = "\n".join(step.get("run", "") for step in job.get("steps", []))
        if re.search(r"^ *nox\b(?! -l)", scripts, re.MULTILINE):
            variables = load(name.partition(":")[0]).get("env", {}) | job.get("env", {})
            made[name] = variables.get("UV_TORCH_BACKEND")
    hosted = dict.fromkeys(["unit.yml:tests", "unit.yml:minimums", "nightly.yml:cpu"], "cpu")
    assert made == hosted | {"gpu.yml:cells": None}


def test_only_what_was_tested_is_published_and_only_by_a_release() -> None:
    release = load("release.yml")["jobs"]
    assert release["test"]["needs"] == "build"
    assert release["publish"]["needs"] == "test"
    assert release["publish"]["if"] == "github.event_name == 'release'"
    assert release["publish"]["environment"] == "pypi"
    used = [step["uses"].partition("@")[0] for step in release["publish"]["steps"]]
    assert used == ["actions/download-artifact", "pypa/gh-action-pypi-publish"]
    assert [name for name, step in STEPS.items() if "uv build" in step.get("run", "")] == [
        "release.yml:build:Build both, the wheel from the source distribution"
    ]


def test_every_command_of_the_harness_in_a_script_is_one() -> None:
    found = []
    for name, step in STEPS.items():
        for line in step.get("run", "").splitlines():
            match = re.match(r"\s*(?:python -m )?harness ((?:github|alarm|report)\b[^>]*)", line)
            if match:
                words = [word.strip('"') for word in match[1].split()]
                arguments = [word for word in words if not word.startswith("${")]
                found.append(name)
                parser().parse_args(arguments)
    assert len(found) >= 8


# -- the steps, run as written ---------------------------------------------------------------------

NOXFILE = """
import json
import nox
import time
from pathlib import Path

nox.options.tags = ["default"]
CELLS = [("lts", "small"), ("dev", "small"), ("dev", "large-one")]
for hardware in ("cpu", "h100"):
    @nox.session(name=f"case({hardware})", venv_backend="none")
    @nox.parametrize("track,case", [nox.param(t, c, id=f"{t},{c}", tags=[t, c]) for t, c in CELLS])
    def run(session, track, case, hardware=hardware):
        name = session.name.partition("(")[2].partition(")")[0]
        folder = Path("results", name, track, case)
        (folder / "checkpoints" / "continuous").mkdir(parents=True)
        (folder / "checkpoints" / "continuous" / "weights").touch()
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = Path("verdict.json").read_text().replace("CELL", f"{name}/{track}/{case}").replace("NOW", now)
        (folder / "verdict.json").write_text(text)
        if Path("fail").exists() and case == "small":
            (folder / "verdict.json").unlink()
            session.error("the trainer could not be started")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout as a runner has it, with `nox`, `harness` and `python` on its PATH."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "noxfile.py").write_text(NOXFILE)
    made = replace(green("CELL/dev/x"), run=Run("1", "NOW", "NOW"))
    (folder / "verdict.json").write_text(made.to_json().replace("CELL/dev/x", "CELL"))
    (tmp_path / "bin").mkdir()
    for name, words in (("nox", "-m nox"), ("harness", "-m harness"), ("python", "")):
        script(tmp_path / "bin" / name, f'exec {sys.executable} {words} "$@"')
    (tmp_path / "temp").mkdir()
    return folder


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def bash(folder: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As GitHub runs a script with `shell: bash`."""
    base = {
        "PATH": f"{folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder.parent),
        "RUNNER_TEMP": str(folder.parent / "temp"),
        "GITHUB_REPOSITORY": Tracker.REPOSITORY,
    }
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
        cwd=folder, env={**base, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_matrix_step_gives_the_jobs_of_gpus_and_says_when_there_are_none(project: Path) -> None:
    text = step("gpu.yml", "matrix", "List the jobs")["run"]
    output = project.parent / "output"
    done = bash(project, text, HARDWARE="all", TRACK="all", GITHUB_OUTPUT=str(output))
    assert done.returncode == 0, done.stderr
    found = dict(line.split("=", 1) for line in output.read_text().splitlines())
    assert found["empty"] == "false"
    assert json.loads(found["matrix"])["include"] == [
        {"hardware": "h100", "track": "lts", "cells": 1},
        {"hardware": "h100", "track": "dev", "cells": 2},
    ]
    output.unlink()
    done = bash(project, text, HARDWARE="a100 h200", TRACK="dev", GITHUB_OUTPUT=str(output))
    assert done.returncode == 0, done.stderr
    assert output.read_text() == 'matrix={"include":[]}\nempty=true\n'


@pytest.mark.parametrize(("tag", "status"), [(f"v{__version__}", 0), (__version__, 1), ("v0.0.0", 1)])
def test_a_tag_that_is_not_the_version_is_not_released(project: Path, tag: str, status: int) -> None:
    text = step("release.yml", "build", "Compare the tag with the version")["run"]
    done = bash(project, text, GITHUB_REF_NAME=tag)
    assert done.returncode == status, done.stderr
    if status:
        assert f"the tag is {tag}, and the version is {__version__}" in done.stdout


def test_a_job_runs_its_own_cells_says_what_it_found_and_keeps_no_checkpoint(project: Path) -> None:
    environment = {"HARDWARE": "h100", "TRACK": "dev", "COMMIT": "c" * 40}
    done = bash(project, step("gpu.yml", "cells", "Run the cells")["run"], **environment)
    assert done.returncode == 0, done.stderr
    ran = sorted(
        path.parent.relative_to(project / "results").as_posix()
        for path in project.glob("results/*/*/*/verdict.json")
    )
    assert ran == ["h100/dev/large-one", "h100/dev/small"]

    summary = project.parent / "summary.md"
    text = step("gpu.yml", "cells", "Say what was found")["run"]
    done = bash(project, text, GITHUB_STEP_SUMMARY=str(summary), **environment)
    assert done.returncode == 0, done.stderr
    assert summary.read_text().startswith("## ✅ 0 red, 0 red in quarantine, 2 green")

    assert list(project.glob("results/*/*/*/checkpoints"))
    done = bash(project, step("gpu.yml", "cells", "Delete the checkpoints")["run"], **environment)
    assert done.returncode == 0, done.stderr
    assert not list(project.rglob("checkpoints"))
    assert len(list(project.glob("results/*/*/*/verdict.json"))) == 2


def test_a_job_whose_trainer_never_started_is_red_and_annotated(project: Path) -> None:
    (project / "fail").touch()
    environment = {"HARDWARE": "h100", "TRACK": "dev", "COMMIT": "c" * 40}
    assert bash(project, step("gpu.yml", "cells", "Run the cells")["run"], **environment).returncode != 0
    done = bash(project, step("gpu.yml", "cells", "Say what was found")["run"], **environment)
    assert done.returncode == 0, done.stderr
    assert "| `h100/dev/small` | ❌ no verdict |" in done.stdout
    assert "::error title=h100/dev/small is red::no verdict" in done.stdout


def test_without_results_there_is_nothing_to_delete_and_no_error(project: Path) -> None:
    for name in ("gpu.yml:cells", "nightly.yml:cpu", "unit.yml:tests"):
        text = next(
            step["run"] for step in JOBS[name]["steps"] if step.get("name") == "Delete the checkpoints"
        )
        done = bash(project, text)
        assert done.returncode == 0, done.stderr


def test_the_watch_fetches_its_state_judges_the_night_and_sounds_the_alarm(project: Path) -> None:
    done = bash(project, step("nightly.yml", "cpu", "Run the cells")["run"], TRACK="dev")
    assert done.returncode == 0, done.stderr
    others = ("cpu/lts/small", "h100/lts/small", "h100/dev/large-one")
    write(project / "results", *(green(cell) for cell in others))
    write(
        project / "results", replace(green("h100/dev/small"), run=ran(timedelta(hours=2)))
    )  # not of this run

    cells = {"h100/dev/small": {"good": "a" * 40, "streak": 0, "night": "1"}}
    state = json.dumps({"format": 1, "cells": cells, "spells": [], "told": "", "owed": []})
    script(
        project.parent / "bin" / "gh",
        f"""case "$1 $2" in
"run view") [ "$3" = 13 ] && echo {ran(timedelta(hours=1)).started} ;;
"run list") printf '12 2026-01-03\\n11 2026-01-02\\n10 2026-01-01\\n' ;;
"run download") case "$3 $7" in
  "11 night-watch") printf '%s' '{state}' > "$9/night-watch.json" ;;
  "12 report") mkdir -p "$9/results"; touch "$9/results/index.html" ;;
  "10 report") cp -r earlier "$9" ;;
  *) exit 1 ;;
  esac ;;
esac""",
    )
    write(project / "earlier" / "results", green("cpu/lts/small"))
    write(project / "earlier" / "nights" / "2025-12-31", green("cpu/lts/small"))
    text = step("nightly.yml", "watch", "Fetch what was remembered last night")["run"]
    done = bash(project, text, GH_TOKEN="t", BRANCH="main", GITHUB_RUN_ID="13")
    assert done.returncode == 0, done.stderr
    assert (project / "state/night-watch.json").exists()
    assert [night.name for night in (project / "nights").iterdir()] == ["2026-01-01"]

    done = bash(project, step("nightly.yml", "watch", "Make the page")["run"])
    assert done.returncode == 0, done.stderr
    page = (project / "results/index.html").read_text()
    assert "large-one" in page
    assert "2026-01-01" in page

    done = bash(project, step("nightly.yml", "watch", "Say what was found")["run"], HARDWARE="h100")
    assert done.returncode == 0, done.stderr
    assert "❌ 1 red, 0 red in quarantine, 5 green" in done.stdout
    assert "| `h100/dev/small` | ❌ old |" in done.stdout

    text = step("nightly.yml", "watch", "Sound the alarm")["run"]
    with Tracker() as tracker:
        environment = {"GITHUB_TOKEN": Tracker.TOKEN, "GITHUB_API_URL": tracker.url, "GITHUB_RUN_ID": "13",
                       "GITHUB_SHA": "b" * 40, "HARNESS_WEBHOOK_URL": ""}  # fmt: skip
        done = bash(project, text, **environment)
        assert done.returncode == 1, done.stderr
        (issue,) = tracker.issues
        assert issue["title"] == "h100/dev/small is red"
        assert f"compare/{'a' * 40}...{'b' * 40}" in issue["body"]
        assert bash(project, text, **environment).returncode == 1
        assert len(tracker.issues) == 1
    assert json.loads((project / "state/night-watch.json").read_text())["cells"]["cpu/dev/small"]["good"]
