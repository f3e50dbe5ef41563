"""The noxfile, read and run by the real nox."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.matrix import HARDWARE, TRACKS
from harness.verdict.reading import read_verdict

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[1]
CASES = ("first", "second-7b", "a_dev_case")
#: Reads the noxfile where nothing is installed; a nox is made up of which everything is there.
BARE = """
import sys, types
from unittest import mock
if sys.version_info < (3, 11):
    sys.modules["tomli"] = mock.MagicMock()  # which nox itself brings
for name in ("nox", "nox.command", "nox.virtualenv"):
    sys.modules[name] = mock.MagicMock()
sys.modules["nox.command"].CommandFailed = Exception
path = sys.argv.pop() + "/noxfile.py"
exec(compile(open(path).read(), path, "exec"), {"__file__": path})
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The noxfile beside three cases of which only the names are looked at."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("noxfile.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "harness", folder / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    for case in CASES:
        (folder / "test_cases" / "gpt" / case).mkdir(parents=True)
        (folder / "test_cases" / "gpt" / case / "model_config.yaml").touch()
    return folder


def nox(project: Path, *words: str, path: str | None = None, ci: bool = False) -> Any:
    """What nox says and how it ends, on a machine without a GPU unless PATH has one."""
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "NOXSESSION")}
    env |= {"PATH": path or "/nowhere", "NO_COLOR": "1"} | ({"CI": "true"} if ci else {})
    return subprocess.run(
        [sys.executable, "-m", "nox", *words],
        cwd=project,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def listed(project: Path, *words: str) -> list[dict[str, Any]]:
    done = nox(project, "-l", "--json", *words)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_for_a_person_a_kind_of_gpu_that_is_not_here_is_one_line(project: Path, tmp_path: Path) -> None:
    found = nox(project, "-l", path=str(tmp_path)).stdout.splitlines()
    about = [line for line in found if "case(gb200)" in line]
    assert about == ["- case(gb200) [gb200] -> 3 cases × lts, dev: no GB200 is here; -t gb200 -l lists them."]
    assert sum(line[2:].startswith("case(cpu)(") for line in found) == 6
    chosen = nox(project, "-l", "-t", "gb200", path=str(tmp_path)).stdout
    assert sum(line.startswith("* case(gb200)(") for line in chosen.splitlines()) == 6
    assert "case(gb200)(dev,first)" in sessions(project, "-t", "gb200")


def sessions(project: Path, *words: str) -> list[str]:
    return [entry["session"] for entry in listed(project, *words)]


def test_bare_nox_is_every_case_on_cpu_dev(project: Path) -> None:
    assert sessions(project) == [f"case(cpu)(dev,{case})" for case in sorted(CASES)]


@pytest.mark.parametrize("hardware", HARDWARE)
def test_the_session_of_a_hardware_is_all_of_it(project: Path, hardware: str) -> None:
    expected = [f"case({hardware})({track},{case})" for track in TRACKS for case in sorted(CASES)]
    assert sessions(project, "-s", f"case({hardware})") == expected


@pytest.mark.parametrize("case", CASES)
def test_a_signature_is_one_cell(project: Path, case: str) -> None:
    (entry,) = listed(project, "-s", f"case(h100)(lts,{case})")
    assert entry["tags"] == ["h100", "lts", case]
    assert entry["call_spec"] == {"track": "lts", "case": case}


@pytest.mark.parametrize(
    ("tag", "count"),
    [
        ("h100", len(TRACKS) * len(CASES)),
        ("dev", len(HARDWARE) * len(CASES)),
        ("second-7b", len(HARDWARE) * len(TRACKS)),
    ],
)
def test_a_tag_selects_by_one_of_the_three(project: Path, tag: str, count: int) -> None:
    found = listed(project, "-t", tag)
    assert len(found) == count
    assert all(tag in entry["tags"] for entry in found)


def test_a_keyword_selects_by_part_of_a_name(project: Path) -> None:
    assert sessions(project, "-k", "a100 and lts and first") == ["case(a100)(lts,first)"]


def test_a_cell_that_does_not_exist_is_refused(project: Path) -> None:
    done = nox(project, "-s", "case(h100)(dev,third)")
    assert done.returncode == 3
    assert "Sessions not found: case(h100)(dev,third)" in done.stderr


def test_absent_hardware_is_skipped_with_a_sentence_a_verdict_and_no_environment(project: Path) -> None:
    done = nox(project, "-s", "case(h100)")
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("skipped (case(h100) needs 1 H100 GPU, and nvidia-smi is not on PATH)") == len(
        TRACKS
    ) * len(CASES)
    assert done.stderr.endswith("no cell was run: exit status 3, nothing to do\n")
    assert not list((project / ".nox").glob("case-h100*"))
    verdicts = [read_verdict(path) for path in (project / "results").rglob("verdict.json")]
    assert sorted(verdict.cell for verdict in verdicts) == [
        f"h100/{track}/{case}" for track in sorted(TRACKS) for case in sorted(CASES)
    ]
    assert {verdict.status for verdict in verdicts} == {"skipped"}
    shutil.rmtree(project / "results")


def test_a_login_node_makes_an_environment_for_hardware_that_it_has_not(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, session = tmp_path / "python.txt", sessions(project, "-t", "h100")[0]
    words = ("-s", session, "--no-venv", "--no-install", "--install-only")
    assert nox(project, *words).returncode == 3  # to be run there
    monkeypatch.setenv("HARNESS_PYTHON_FILE", str(told))
    assert nox(project, *words).returncode == 0
    assert told.read_text().strip()


def test_absent_hardware_is_no_success_in_processes_of_their_own_either(project: Path) -> None:
    done = nox(project, "-j", "2", "-s", "case(h100)")
    assert done.returncode == 3, done.stderr
    shutil.rmtree(project / "results")


def test_one_cell_that_ran_is_something(project: Path, tmp_path: Path) -> None:
    ran = said(project, tmp_path, "-s", "case(cpu)(dev,first)", "case(h100)(dev,first)")
    apart = "--confcutdir=test_cases -o addopts= -W default"
    assert ran == [f"pytest test_cases --cell=cpu/dev/first {apart}"]
    shutil.rmtree(project / "results")


@pytest.mark.parametrize(("status", "expected"), [("skipped", 3), ("passed", 1), ("", 1)])
def test_pytest_s_exit_3_is_a_skip_only_where_the_verdict_says_so(
    project: Path, tmp_path: Path, status: str, expected: int
) -> None:
    folder = project / "results" / "cpu" / "dev" / "first"
    folder.mkdir(parents=True)
    leave = f'echo \'{{"status": "{status}"}}\' > {folder}/verdict.json; ' if status else ""
    script(tmp_path / "pytest", f"{leave}exit 3")
    done = nox(project, "--no-venv", "--no-install", "-s", "case(cpu)(dev,first)", path=str(tmp_path))
    assert done.returncode == expected, done.stderr
    shutil.rmtree(project / "results")


def test_a_cell_that_fails_beside_skipped_ones_is_a_failure(project: Path, tmp_path: Path) -> None:
    script(tmp_path / "pytest", "exit 1")
    words = ("--no-venv", "--no-install", "-s", "case(cpu)(dev,first)", "case(h100)")
    assert nox(project, *words, path=str(tmp_path)).returncode == 1
    shutil.rmtree(project / "results")


@pytest.mark.parametrize(
    "words", [(), ("-s", "case(cpu)"), ("-s", "case(h100)"), ("-t", "dev"), ("-k", "cpu and dev")]
)
def test_a_selection_of_nothing_is_no_success(project: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    shutil.copytree(project, tmp_path / "empty", ignore=shutil.ignore_patterns(".nox"))
    shutil.rmtree(tmp_path / "empty" / "test_cases")
    assert nox(tmp_path / "empty", *words).returncode in (1, 3)
    assert sessions(tmp_path / "empty", "-s", "tests") == ["tests"]


@pytest.mark.parametrize("words", [("-t", "nothing"), ("-k", "nothing"), ("-s", "case(cpu)(dev,nothing)")])
def test_a_name_that_selects_nothing_is_no_success(project: Path, words: tuple[str, ...]) -> None:
    assert nox(project, *words).returncode == 3


def test_absent_hardware_is_a_failure_in_ci(project: Path) -> None:
    done = nox(project, "-s", "case(h100)(dev,first)", ci=True)
    assert done.returncode == 1
    assert "aborted: case(h100) needs 1 H100 GPU, and nvidia-smi is not on PATH" in done.stderr


def test_another_gpu_is_named_when_the_hardware_is_absent(project: Path, tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, GPU-1, 40960, Disabled, NVIDIA A100-PCIE-40GB'\n")
    smi.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = nox(project, "-s", "case(h200)(dev,first)", path=path, ci=True)
    assert done.returncode == 1
    assert "case(h200) needs 1 H200 GPU, and nvidia-smi found 1 × NVIDIA A100-PCIE-40GB" in done.stderr


def test_the_other_sessions_are_there_but_not_by_default(project: Path) -> None:
    names = ["tests", "minimums", "megatron", "faults", "circumstances", "slurm", "bench", "pages", "docs"]
    assert sessions(project, "-s", *names) == names
    assert sessions(project, "-s", "alarms") == ["alarms(lts)", "alarms(dev)"]


def test_the_list_says_what_each_other_session_is_for(project: Path) -> None:
    names = (
        "tests", "minimums", "faults", "alarms", "circumstances", "slurm",
        "megatron", "bench", "pages", "docs"
    )  # fmt: skip
    text = (ROOT / "noxfile.py").read_text()
    for entry in listed(project, "-s", *names):
        assert entry["description"].endswith(".")
        assert f'{entry["description"]}"' in text


def test_without_a_checkout_megatron_is_skipped_with_the_reason(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEGATRON_LM_PATH", raising=False)
    done = nox(project, "--no-venv", "-s", "megatron")
    assert "skipped: MEGATRON_LM_PATH names no checkout of NVIDIA/Megatron-LM" in done.stderr
    assert done.returncode == 0, done.stderr


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def said(project: Path, folder: Path, *words: str) -> list[str]:
    """The commands that a session runs; they do nothing."""
    for name in ("ruff", "mypy", "lint-imports", "pytest", "python", "mkdocs"):
        script(folder / name, f'echo said {name} "$@"')
    done = nox(project, "--no-venv", "--no-install", *words, path=str(folder))
    assert done.returncode == 0, done.stderr
    return [line.removeprefix("said ") for line in done.stdout.splitlines() if line.startswith("said ")]


@pytest.mark.parametrize(
    ("session", "ran"),
    [
        (
            "tests",
            [
                "ruff check",
                "ruff format --check",
                "mypy",
                "lint-imports --no-logo",
                "pytest -n auto --dist worksteal",
            ],
        ),
        ("faults", ["python -m tests.faults"]),
        ("alarms(lts)", ["python -m tests.alarms"]),
        ("circumstances", ["python -m tests.circumstances"]),
        ("slurm", ["pytest -n 3 --dist worksteal tests/slurm"]),
        (
            "cross(cpu)",
            [
                "python -m harness cross --python=dev=python --python=lts=python --hardware=cpu "
                "--by=track,layout --track=dev --cases=test_cases"
            ],
        ),
        ("megatron", ["python -m tests.megatron"]),
        ("bench", ["python -m benchmarks"]),
        ("pages", ["python -m tests.pages"]),
        ("docs", ["mkdocs build --strict"]),
    ],
)
def test_what_stands_after_the_dashes_goes_to_the_last_command(
    project: Path, tmp_path: Path, session: str, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEGATRON_LM_PATH", str(tmp_path))
    assert said(project, tmp_path, "-s", session, "--", "--more") == [*ran[:-1], f"{ran[-1]} --more"]


def test_the_lowest_versions_are_tested_on_the_lowest_python(project: Path) -> None:
    (entry,) = listed(project, "-s", "minimums")
    assert f'requires-python = ">={entry["python"]}"' in (ROOT / "pyproject.toml").read_text()


def test_without_uv_the_lowest_versions_are_refused_with_what_is_needed(project: Path) -> None:
    done = nox(project, "-s", "minimums", "--no-venv")
    assert done.returncode == 1
    assert 'minimums needs uv, for its --resolution=lowest-direct: pip install "nox[uv]"' in done.stderr


def test_the_noxfile_is_short_and_needs_nothing_but_nox() -> None:
    texts = [(ROOT / name).read_text() for name in ("noxfile.py", "harness/nox.py")]
    assert sum(len(text.splitlines()) for text in texts) < 200
    bare = [sys.executable, "-S", "-c", BARE, str(ROOT)]  # without site-packages there is nothing but ours
    done = subprocess.run(bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
