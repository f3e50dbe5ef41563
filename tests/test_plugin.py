"""harness/plugin.py: how a session of pytest ends that should have run cells."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.verdict.reading import read_verdict

ROOT = Path(__file__).parents[1]
XDIST = ("-p", "xdist.plugin", "-n", "1")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A case, and a test that has nothing to do with cells."""
    (tmp_path / "test_cases" / "mine" / "tiny").mkdir(parents=True)
    (tmp_path / "test_cases" / "mine" / "tiny" / "model_config.yaml").write_text(
        json.dumps(
            {
                "MODEL_ARGS": {"--train-iters": 8, "--save-interval": 4},
                "HARNESS": {"trainer": "command", "command": {"train": [sys.executable, "-c", "pass"]}},
            }
        )
    )
    (tmp_path / "test_other.py").write_text("def test_it(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def pytest_(place: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "GITHUB_ACTIONS")}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "PATH": "/nowhere",
        "HARNESS_LEASES": str(place / "leases"),
        **more,
    }
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # installed or not, the plugin is named once
    command = [sys.executable, "-m", "pytest", "-p", "harness.plugin", "-p", "no:cacheprovider", "-q"]
    return subprocess.run(
        [*command, *words], cwd=place, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("workers", [(), XDIST])
@pytest.mark.parametrize(
    "words",
    [
        ("test_cases",),
        ("test_cases", "--cell=h100/dev/tiny"),
        ("test_cases", "--cell=h100/dev/tiny", "--cell=h200/lts/tiny"),
        ("test_cases", "--cell=cpu/dev/tiny", "-k", "nothing"),
        ("--cell=h100/dev/tiny",),
        ("test_other.py", "--cell=h100/dev/tiny"),
    ],
)
def test_a_session_that_ran_no_cell_ends_with_3(
    place: Path, words: tuple[str, ...], workers: tuple[str, ...]
) -> None:
    done = pytest_(place, *words, *workers)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "no cell was run: exit status 3, nothing to do" in done.stdout


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("test_other.py",), 0),
        ((".",), 0),  # no cell was asked for
        (("test_cases", "--cell=h100/dev/tiny", "--collect-only"), 0),
        (("test_cases", "--cell=h100/dev/tiny", "--cell=cpu/dev/tinny"), 1),
        (("test_other.py", "-k", "nothing"), 5),
    ],
)
def test_other_sessions_end_as_they_did(place: Path, words: tuple[str, ...], status: int) -> None:
    done = pytest_(place, *words)
    assert done.returncode == status, done.stdout + done.stderr


@pytest.mark.parametrize(
    "words",
    [(), ("test_cases",), ("test_cases/mine",), ("test_cases/mine/tiny",), ("--cases=test_cases",), (".",)],
)
def test_a_cell_is_all_that_is_run_wherever_pytest_is_told_to_look(
    place: Path, words: tuple[str, ...]
) -> None:
    (place / "test_broken.py").write_text("import nothing_that_is_installed\n" if "." not in words else "")
    done = pytest_(place, "--cell=cpu/dev/tiny", "--junit-xml=junit.xml", *words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert read_verdict(place / "results" / "cpu" / "dev" / "tiny" / "verdict.json").status == "failed"
    names = re.findall(r'testcase classname="([^"]*)" name="([^"]*)', (place / "junit.xml").read_text())
    file = "test_cases.mine.tiny.model_config.yaml"
    assert names[0] == (file, "cpu/dev/tiny")
    assert {where for where, _ in names[1:]} == {f"{file}.cpu/dev/tiny"}  # its checks


def test_a_test_of_ones_own_gets_the_cells_in_its_own_way(place: Path) -> None:
    (place / "test_mine.py").write_text(
        "def test_mine(harness_cell, harness_run):\n    assert harness_run(harness_cell).status == 'failed'\n"
    )
    done = pytest_(place, "test_mine.py", "test_other.py", "--cell=cpu/dev/tiny", "--cases=test_cases")
    assert "1 failed, 1 passed, 1 deselected" in done.stdout  # the check that failed is told beside the test
    assert "test_mine.py::cpu/dev/tiny::metrics: can be read" in done.stdout


def test_without_a_folder_of_cases_it_says_which_is_missing(place: Path) -> None:
    done = pytest_(place, "--cell=cpu/dev/tiny", "--cases=nowhere")
    assert done.returncode == 4
    assert "nowhere: no such folder; --cases says where the cases are" in done.stdout + done.stderr


@pytest.mark.parametrize(("ci", "status", "code"), [("", "skipped", 3), ("true", "refused", 1)])
def test_missing_hardware_leaves_its_verdict(place: Path, ci: str, status: str, code: int) -> None:
    done = pytest_(place, "test_cases", "--cell=h100/dev/tiny", CI=ci)
    assert done.returncode == code, done.stdout + done.stderr
    verdict = read_verdict(place / "results" / "h100" / "dev" / "tiny" / "verdict.json")
    assert verdict.status == status
    assert "needs 1 H100 GPU" in verdict.message


def test_a_refusal_is_no_command_to_github(place: Path) -> None:
    config = place / "test_cases" / "mine" / "tiny" / "model_config.yaml"
    config.write_text('"::error::forged": 1\n')
    done = pytest_(place, "test_cases", "--cell=cpu/dev/tiny", GITHUB_ACTIONS="true")
    assert done.returncode == 1
    assert not [line for line in done.stdout.splitlines() if line.strip().startswith("::")]
