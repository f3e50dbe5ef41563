"""What is no file, and is called like one that says where all else lies: named, and not waited for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.checkpoints import diff

NAMES = (".metadata", "model.safetensors.index.json", "zarr.json", ".zarray", "manifest.ocdbt")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_pipe_or_a_broken_link_stops_nothing(tmp_path: Path, name: str, kind: str) -> None:
    for side in ("a", "b"):
        inner = tmp_path / side / "inner"
        inner.mkdir(parents=True)
        (tmp_path / side / "step.json").write_text("1")
        if kind == "pipe":
            os.mkfifo(inner / name)
        else:
            (inner / name).symlink_to(f"{tmp_path}/nowhere-{side}")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "harness",
        "checkpoint",
        "diff",
        tmp_path / "a",
        tmp_path / "b",
    ]
    said = subprocess.run(command, timeout=60, check=False, capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (1, "")
    found = diff(tmp_path / "a", tmp_path / "b")
    assert not found.equal
    assert found.compared >= 1
    assert found.unread if kind == "pipe" else found.entries
