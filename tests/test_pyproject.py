"""The project's own file: what installs, and that it can be."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.matrix import GPU_PYTHON, TRACKS
from tests.tools import program

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[1]
#: Where the GPU groups are installed: resolved for there, and not installed.
GPU = ("--python-version", GPU_PYTHON, "--python-platform", "x86_64-manylinux_2_39")
MEGATRON_CORE = {"lts-gpu": "0.16.1", "dev-gpu": "0.19.2"}
GROUPS = ("dev", "lts", "dev-gpu", "lts-gpu", "minimums", "tests", "bench", "pages", "docs")


def content() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("track", TRACKS)
def test_a_track_pins_the_torch_that_its_goldens_are_recorded_with(track: str) -> None:
    assert f"torch=={TRACKS[track].torch}" in content()["dependency-groups"][track]


@pytest.mark.parametrize("track", TRACKS)
def test_a_track_has_the_same_pins_on_a_gpu(track: str) -> None:
    assert {"include-group": track} in content()["dependency-groups"][f"{track}-gpu"]


def test_everything_that_bits_depend_on_is_pinned() -> None:
    for track in TRACKS:
        assert all("==" in pin for pin in content()["dependency-groups"][track])


def test_every_ignored_rule_has_its_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    rules = [line for line in lines if re.match(r'\s+"[A-Z]+\d*"', line)]
    assert len(rules) > 10
    assert [line for line in rules if "#" not in line] == []


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_resolves_together_with_the_project(group: str, tmp_path: Path) -> None:
    env = dict(os.environ)
    if "PIP_FIND_LINKS" in env:
        env.setdefault("UV_FIND_LINKS", ",".join(env["PIP_FIND_LINKS"].split()))
    done = subprocess.run(
        [program("uv"), "pip", "compile", "--quiet", "--no-header", "--no-annotate",
         *(GPU if group.endswith("gpu") else ("--python-version", "3.11")),
         "--group", group, "--output-file", str(tmp_path / "pins.txt"),
         "pyproject.toml"],
        cwd=ROOT, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode and re.search(r"Failed to fetch|error sending request|dns error", done.stderr):
        pytest.skip("the package index cannot be reached, so nothing was resolved")
    assert done.returncode == 0, done.stderr
    pins = (tmp_path / "pins.txt").read_text()
    for track, kind in TRACKS.items():
        if group.startswith(track):
            assert re.search(rf"^torch=={re.escape(kind.torch)}(\+\w+)?$", pins, re.MULTILINE)
    if group.endswith("gpu"):
        assert f"megatron-core=={MEGATRON_CORE[group]}" in pins.splitlines()
