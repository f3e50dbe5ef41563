""".github/workflows: linted, held to the house's rules, and their steps run as written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
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
from tests.scripts import bash, machine, script
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
        (
            "cells.yml",
            'run: python -m pip install "$REQUIREMENT"',
            "run: pip install ${{ inputs.requirement }}",
        ),
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
    if set(triggers(workflow)) != {"workflow_call"}:  # one that is called is of its caller's group
        assert workflow["concurrency"]["group"]
    if any("steps" in job for job in workflow["jobs"].values()):
        assert workflow["defaults"]["run"]["shell"] == "bash"


@pytest.mark.parametrize("name", JOBS)
def test_a_job_has_the_least_permissions_and_a_time_limit(name: str) -> None:
    job = JOBS[name]
    writes = {key for key, value in job["permissions"].items() if value != "read"}
    watches = {f"{file}.yml:watch": {"issues"} for file in ("nightly", "cluster", "watch")}
    assert writes == {**watches, "release.yml:publish": {"id-token"}}.get(name, set())
    limit: str | int = "${{ matrix.hardware == 'cpu' && 180 || 720 }}"
    if name == "cluster.yml:cluster":
        limit = 24 * 60  # after a day GitHub's token is none any more
    assert "uses" in job or job["timeout-minutes"] == limit or 0 < job["timeout-minutes"] <= 90


@pytest.mark.parametrize("name", [name for name, step in STEPS.items() if "run" in step])
def test_no_expression_stands_in_a_script(name: str) -> None:
    assert "${{" not in STEPS[name]["run"]


def test_no_checkout_leaves_its_token_behind() -> None:
    checkouts = [step for step in STEPS.values() if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == 9
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_only_the_watch_sees_a_secret_and_only_where_it_posts() -> None:
    seen = [name for name, step in STEPS.items() if re.search(r"secrets\.|github\.token", json.dumps(step))]
    assert seen == [
        "watch.yml:watch:Fetch what was remembered last night",
        "watch.yml:watch:Sound the alarm",
    ]
    handed = [name for name, job in JOBS.items() if "secrets" in job]
    assert handed == ["cluster.yml:watch", "nightly.yml:watch"]
    for file in FILES:
        assert "secrets: inherit" not in file.read_text()


#: Who may choose where code runs: nobody's pull request, one with the label, one of the repository's own.
TRUSTED = (
    "(!github.event.pull_request.head.sha || github.event_name == 'pull_request_target' || "
    "github.event.pull_request.head.repo.full_name == github.repository)"
)


def test_our_machines_are_used_by_two_jobs_and_never_for_a_fork_s_pull_request() -> None:
    other = {
        name: job["runs-on"]
        for name, job in JOBS.items()
        if job.get("runs-on", "ubuntu-24.04") != "ubuntu-24.04"
    }
    # A fork edits the file that calls, its inputs, and the code that makes the matrix; this line it does not.
    assert other.pop("cells.yml:cells") == f"${{{{ {TRUSTED} && matrix.runs-on || 'ubuntu-24.04' }}}}"
    assert [*other] == ["cluster.yml:cluster"]  # no pull request starts it: tests/test_cluster_workflow.py
    hardware = step("cells.yml", "matrix", "List the jobs")["env"]["HARDWARE"]
    assert hardware == f"${{{{ {TRUSTED} && (inputs.hardware || 'all') || 'cpu' }}}}"


def evaluated(expression: str, **contexts: Any) -> Any:
    """An expression as GitHub evaluates it: its operators are Python's, what is not there is null."""

    def look(path: str) -> Any:
        found: Any = contexts
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return found

    text = expression.strip().removeprefix("${{").removesuffix("}}").strip()
    text = re.sub(
        r"\b(?:github|inputs|matrix|vars|needs)(?:\.[\w-]+)+", lambda path: f"look('{path[0]}')", text
    )
    text = re.sub(r"!(?!=)", " not ", text.replace("&&", " and ").replace("||", " or "))
    return eval(text, {"look": look})


def event(name: str, head: str | None = None, **more: Any) -> dict[str, Any]:
    pull = {"pull_request": {"head": {"sha": "c" * 40, "repo": {"full_name": head}}}} if head else {}
    return {"event_name": name, "repository": "own/train", "event": {**pull, **more}}


GONE: dict[str, Any] = {"pull_request": {"head": {"sha": "c" * 40, "repo": None}}}
LABEL = {"action": "labeled", "label": {"name": "gpu"}}


@pytest.mark.parametrize(
    ("github", "runs", "trusted"),
    [
        (event("schedule"), True, True),
        (event("pull_request", "own/train"), True, True),
        (event("pull_request", "fork/train"), True, False),
        (event("pull_request", "fork/train", **LABEL), True, False),
        (event("pull_request_review", "fork/train"), True, False),
        (event("pull_request", **GONE), True, False),
        (event("pull_request_target", "fork/train", **LABEL), True, True),
        (event("pull_request_target", "fork/train", action="opened"), False, True),
        (event("pull_request_target", "fork/train", **{**LABEL, "action": "unlabeled"}), False, True),
        (event("pull_request_target", "own/train", action="labeled", label={"name": "bug"}), False, True),
    ],
)
def test_who_gets_which_machine(github: dict[str, Any], runs: bool, trusted: bool) -> None:
    jobs = load("cells.yml")["jobs"]
    assert bool(evaluated(jobs["matrix"]["if"], github=github)) == runs
    hardware = step("cells.yml", "matrix", "List the jobs")["env"]["HARDWARE"]
    asked = evaluated(hardware, github=github, inputs={"hardware": "h100"})
    assert asked == ("h100" if trusted else "cpu")
    labels = ["self-hosted", "gpu", "h100"]  # also where the matrix was made by the fork's code
    got = evaluated(jobs["cells"]["runs-on"], github=github, matrix={"runs-on": labels})
    assert got == (labels if trusted else "ubuntu-24.04")


def test_code_of_a_pull_request_comes_to_our_machines_only_with_the_label() -> None:
    # With `pull_request` the file itself would be the fork's.
    assert "pull_request" not in triggers(load("gpu.yml"))
    assert triggers(load("gpu.yml"))["pull_request_target"] == {"types": ["labeled"]}
    assert load("gpu.yml")["jobs"]["cells"]["uses"] == "./.github/workflows/cells.yml"
    workflow = load("cells.yml")
    assert workflow["jobs"]["matrix"]["if"] == (
        "github.event_name != 'pull_request_target' || "
        "(github.event.action == 'labeled' && github.event.label.name == 'gpu')"
    )
    assert workflow["jobs"]["cells"]["needs"] == "matrix"
    assert workflow["env"]["COMMIT"] == "${{ github.event.pull_request.head.sha || github.sha }}"
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read"}
        assert job["steps"][0]["with"]["ref"] == "${{ env.COMMIT }}"
    assert "cache" not in (FOLDER / "cells.yml").read_text()


def test_the_matrix_comes_from_the_harness_and_may_be_empty() -> None:
    workflow = load("cells.yml")
    matrix, cells = workflow["jobs"]["matrix"], workflow["jobs"]["cells"]
    assert matrix["outputs"] == {
        name: f"${{{{ steps.matrix.outputs.{name} }}}}" for name in ("matrix", "empty")
    }
    assert cells["if"] == "needs.matrix.outputs.empty == 'false'"
    assert cells["strategy"] == {"fail-fast": False, "matrix": "${{ fromJSON(needs.matrix.outputs.matrix) }}"}


def test_what_can_be_chosen_by_hand_is_what_there_is() -> None:
    inputs = triggers(load("gpu.yml"))["workflow_dispatch"]["inputs"]
    assert inputs["hardware"]["options"] == ["gpu", *GPUS]
    assert inputs["track"]["options"] == ["all", *TRACKS]
    inputs = triggers(load("cluster.yml"))["workflow_dispatch"]["inputs"]
    assert inputs["track"]["options"] == ["all", *TRACKS]


def test_no_name_of_a_track_or_of_hardware_stands_in_a_workflow_that_others_call() -> None:
    for file in ("cells.yml", "watch.yml"):
        words = set(re.findall(r"[a-z0-9]+", (FOLDER / file).read_text().replace("/dev/null", "")))
        assert words.isdisjoint({*TRACKS, *GPUS}), file


def test_the_night_runs_all_hardware_and_all_tracks() -> None:
    workflow = load("nightly.yml")
    assert triggers(workflow)["schedule"]
    cells, watch = workflow["jobs"]["cells"], workflow["jobs"]["watch"]
    assert cells["uses"] == "./.github/workflows/cells.yml"
    assert watch["uses"] == "./.github/workflows/watch.yml"
    wanted = {"requirement": ".", "hardware": "cpu ${{ vars.HARNESS_HARDWARE || 'gpu' }}"}
    assert cells["with"] == watch["with"] == wanted
    assert watch["needs"] == "cells"
    assert watch["if"] == "always()"


@pytest.mark.parametrize("name", ["unit.yml:tests", "cells.yml:cells", "cluster.yml:cluster"])
def test_checkpoints_are_deleted_before_results_are_kept(name: str) -> None:
    names = [step.get("name", step.get("uses", "")) for step in JOBS[name]["steps"]]
    deleted = names.index("Delete the checkpoints")
    uploaded = next(number for number, one in enumerate(names) if one.startswith("actions/upload-artifact@"))
    assert deleted < uploaded
    assert JOBS[name]["steps"][deleted]["if"] == "always()"
    assert JOBS[name]["steps"][uploaded]["with"]["path"] == "results"


@pytest.mark.parametrize(
    ("job", "ran"),
    [
        ("tests", ["nox -s tests -- --cov=harness", "nox"]),
        ("minimums", ["nox -s minimums"]),
        ("frameworks", ["nox -s frameworks"]),
    ],
)
def test_a_job_of_the_unit_workflow_is_nox_and_no_more(job: str, ran: list[str]) -> None:
    steps = load("unit.yml")["jobs"][job]["steps"]
    scripts = [step["run"] for step in steps if "run" in step and "if" not in step]
    assert scripts == ['python -m pip install "nox[uv]"', *ran]


def test_unit_jobs_take_torch_without_cuda_and_cells_are_told_by_their_own_script() -> None:
    made = {}
    for name, job in JOBS.items():
        scripts = "\n".join(step.get("run", "") for step in job.get("steps", []))
        if re.search(r"^ *nox\b(?! -l)", scripts, re.MULTILINE):
            variables = load(name.partition(":")[0]).get("env", {}) | job.get("env", {})
            made[name] = variables.get("UV_TORCH_BACKEND")
    unit = {f"unit.yml:{job}": "cpu" for job in ("tests", "minimums", "frameworks")}
    assert made == unit | {"cells.yml:cells": None}


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
            match = re.match(r"\s*harness ((?:github|alarm|report)\b[^>]*)", line)
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
import os
import time
from pathlib import Path

nox.options.tags = ["default"]
CELLS = [(track, case) for track in ("lts", "dev") for case in ("small", "large-one")]
for hardware in ("cpu", "h100"):
    @nox.session(name=f"case({hardware})", venv_backend="none")
    @nox.parametrize("track,case", [nox.param(t, c, id=f"{t},{c}", tags=[t, c]) for t, c in CELLS])
    def run(session, track, case, hardware=hardware):
        name = session.name.partition("(")[2].partition(")")[0]
        folder = Path("results", name, track, case)
        Path("torch").write_text(os.environ.get("UV_TORCH_BACKEND", "as it is"))
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
    for case in ("small", "large-one"):
        (folder / "test_cases" / "any" / case).mkdir(parents=True)
        (folder / "test_cases" / "any" / case / "model_config.yaml").touch()
    made = replace(green("CELL/dev/x"), run=Run("1", "NOW", "NOW"))
    (folder / "verdict.json").write_text(made.to_json().replace("CELL/dev/x", "CELL"))
    machine(folder)
    return folder


ANY_LABELS = '["self-hosted", "gpu", "{hardware}"]'


def test_the_matrix_step_gives_each_job_its_runner_and_says_when_there_are_none(project: Path) -> None:
    text = step("cells.yml", "matrix", "List the jobs")["run"]
    output = project.parent / "output"
    asked = {"CASES": "test_cases", "LABELS": ANY_LABELS, "GITHUB_OUTPUT": str(output)}
    done = bash(project, text, HARDWARE="cpu h100", TRACKS="all", **asked)
    assert done.returncode == 0, done.stderr
    found = dict(line.split("=", 1) for line in output.read_text().splitlines())
    assert found["empty"] == "false"
    runners = {"h100": ["self-hosted", "gpu", "h100"], "cpu": ["ubuntu-24.04"]}
    assert json.loads(found["matrix"])["include"] == [
        {"hardware": hardware, "track": track, "cells": 2, "runs-on": runners[hardware]}
        for hardware in ("h100", "cpu")
        for track in ("lts", "dev")
    ]
    (project / "pyproject.toml").write_text("[tool.harness]\nhardware = ['cpu']\n")
    output.unlink()
    done = bash(project, text, HARDWARE="gpu", TRACKS="dev", **asked)
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
    environment = {"HARDWARE": "h100", "TRACK": "dev", "COMMIT": "c" * 40, "CASES": "test_cases"}
    done = bash(project, step("cells.yml", "cells", "Run the cells")["run"], **environment)
    assert done.returncode == 0, done.stderr
    ran = sorted(
        path.parent.relative_to(project / "results").as_posix()
        for path in project.glob("results/*/*/*/verdict.json")
    )
    assert ran == ["h100/dev/large-one", "h100/dev/small"]
    assert (project / "torch").read_text() == "as it is"

    summary = project.parent / "summary.md"
    text = step("cells.yml", "cells", "Say what was found")["run"]
    done = bash(project, text, GITHUB_STEP_SUMMARY=str(summary), **environment)
    assert done.returncode == 0, done.stderr
    assert summary.read_text().startswith("## ✅ 0 red, 0 red in quarantine, 2 green")

    assert list(project.glob("results/*/*/*/checkpoints"))
    done = bash(project, step("cells.yml", "cells", "Delete the checkpoints")["run"], **environment)
    assert done.returncode == 0, done.stderr
    assert not list(project.rglob("checkpoints"))
    assert len(list(project.glob("results/*/*/*/verdict.json"))) == 2


def test_a_job_whose_trainer_never_started_is_red_and_annotated(project: Path) -> None:
    (project / "fail").touch()
    environment = {"HARDWARE": "h100", "TRACK": "dev", "COMMIT": "c" * 40, "CASES": "test_cases"}
    assert bash(project, step("cells.yml", "cells", "Run the cells")["run"], **environment).returncode != 0
    done = bash(project, step("cells.yml", "cells", "Say what was found")["run"], **environment)
    assert done.returncode == 0, done.stderr
    assert "| `h100/dev/small` | ❌ no verdict |" in done.stdout
    place = "file=test_cases/any/small/model_config.yaml,line=1,"
    assert f"::error {place}title=h100/dev/small is red::no verdict" in done.stdout


def test_without_results_there_is_nothing_to_delete_and_no_error(project: Path) -> None:
    for name in ("cells.yml:cells", "unit.yml:tests", "cluster.yml:cluster"):
        text = next(
            step["run"] for step in JOBS[name]["steps"] if step.get("name") == "Delete the checkpoints"
        )
        done = bash(project, text)
        assert done.returncode == 0, done.stderr


REF = "own/train/.github/workflows/night.yaml@refs/heads/main"


def test_the_watch_fetches_its_state_judges_the_night_and_sounds_the_alarm(project: Path) -> None:
    environment = {"HARDWARE": "cpu", "TRACK": "dev", "COMMIT": "c" * 40, "CASES": "test_cases"}
    done = bash(project, step("cells.yml", "cells", "Run the cells")["run"], **environment)
    assert done.returncode == 0, done.stderr
    assert (project / "torch").read_text() == "cpu"  # GitHub's machines have no GPU
    others = [f"{part}/small" for part in ("cpu/lts", "h100/lts")]
    others += [f"{part}/large-one" for part in ("cpu/lts", "h100/lts", "h100/dev")]
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
"run list") [ "$6" = night.yaml ] && printf '12 2026-01-03\\n11 2026-01-02\\n10 2026-01-01\\n' ;;
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
    text = step("watch.yml", "watch", "Fetch what was remembered last night")["run"]
    done = bash(project, text, GH_TOKEN="t", BRANCH="main", GITHUB_RUN_ID="13", GITHUB_WORKFLOW_REF=REF)
    assert done.returncode == 0, done.stderr
    assert (project / "state/night-watch.json").exists()
    assert [night.name for night in (project / "nights").iterdir()] == ["2026-01-01"]

    done = bash(project, step("watch.yml", "watch", "Make the page")["run"])
    assert done.returncode == 0, done.stderr
    page = (project / "results/index.html").read_text()
    assert "large-one" in page
    assert "2026-01-01" in page

    asked = {"HARDWARE": "cpu h100", "TRACKS": "all", "CASES": "test_cases"}
    done = bash(project, step("watch.yml", "watch", "Say what was found")["run"], **asked)
    assert done.returncode == 0, done.stderr
    assert "❌ 1 red, 0 red in quarantine, 7 green" in done.stdout
    assert "| `h100/dev/small` | ❌ old |" in done.stdout

    text = step("watch.yml", "watch", "Sound the alarm")["run"]
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
