"""harness/repository.py: what a repository says of itself, and what becomes of a mistake in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.commands.cli import main
from harness.errors import UsageError
from harness.matrix import HARDWARE, TRACKS
from harness.repository import HARDWARE as DEFAULT_HARDWARE
from harness.repository import TRACKS as DEFAULT_TRACKS
from harness.repository import Hardware, Track, installed_as, read, repository, root_of

ROOT = Path(__file__).parents[1]


def told(folder: Path, text: str) -> Path:
    (folder / "pyproject.toml").write_text(text)
    return folder


def test_a_repository_that_says_nothing_has_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    repository.cache_clear()  # another test may have asked first, elsewhere
    found = read(tmp_path)
    assert found.hardware == DEFAULT_HARDWARE
    assert [*found.tracks] == [*DEFAULT_TRACKS]
    assert not any(track.gpu_group for track in found.tracks.values())  # it has not got our groups
    assert dict(HARDWARE) == dict(DEFAULT_HARDWARE)  # nor do we say otherwise of ourselves
    assert dict(TRACKS) == dict(DEFAULT_TRACKS)


def test_it_names_its_own_tracks_and_hardware(tmp_path: Path) -> None:
    found = read(
        told(
            tmp_path,
            """
            [dependency-groups]
            base = ["numpy", "torch==2.9.1"]
            train = [{include-group = "base"}]
            [tool.harness]
            requirement = "resume-harness==1.2"
            [tool.harness.tracks]
            nightly = {group = "train", gpu-group = "kernels", build-group = "tools"}
            container = {group = false, torch = "2.10.0"}
            [tool.harness.hardware]
            l40s = {platform = "l40s_node", device-names = ["L40S"]}
            h100 = {}
            b300 = {}
            """,
        )
    )
    assert found.tracks == {
        "nightly": Track("2.9.1", "train", "kernels", "tools"),
        "container": Track("2.10.0", None),
    }
    assert found.hardware == {
        "l40s": Hardware("l40s_node", ("L40S",)),
        "h100": Hardware("dgx_h100", ("H100",)),
        "b300": Hardware("b300", ("B300",)),
        "cpu": Hardware("cpu"),
    }
    assert found.words() == ("resume-harness==1.2",)
    short = read(told(tmp_path, '[tool.harness]\ntracks = ["nightly"]\nhardware = ["cpu", "a100"]\n'))
    assert short.tracks == {"nightly": Track("", "nightly")}
    assert [*short.hardware] == ["a100", "cpu"]


def test_a_package_is_installed_beside_the_harness_and_this_project_is_its_own(tmp_path: Path) -> None:
    found = read(told(tmp_path, '[build-system]\nrequires = []\n[project]\nname = "mine"\n'))
    assert found.words()[0] == "--editable=."
    assert len(found.words()) == 2
    assert read(ROOT).words() == ("--editable=.",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tool.harness\n", "is not TOML"),
        ("[tool.harness]\ntrack = {}\n", "found key 'track', expected tracks or hardware or requirement"),
        ("[tool.harness]\ntracks = 3\n", "[tool.harness.tracks]: found 3, expected a table"),
        ("[tool.harness]\ntracks = {}\n", "found nothing, expected a name"),
        ("[tool.harness.tracks]\nnight_ly = {}\n", "found the name 'night_ly', expected letters"),
        ("[tool.harness.tracks]\nall = {}\n", "found the name 'all'"),
        ("[tool.harness.tracks]\nx = {group = true}\n", "x: group: found True, expected the name"),
        ("[tool.harness.tracks]\nx = {groop = 'y'}\n", "did you mean 'group'?"),
        ("[tool.harness.tracks]\nx = 'y'\n", "x: found 'y', expected a table"),
        ("[tool.harness.tracks]\ncpu = {}\n", "'cpu' is a track and hardware"),
        ("[tool.harness.hardware]\nx = {platform = 'a b'}\n", "x: platform: found 'a b', expected a word"),
        ("[tool.harness.hardware]\nx = {device-names = []}\n", "x: device-names: found [], expected a list"),
        ("[tool.harness.hardware]\nx = {device-names = ['RTX 4090']}\n", "expected a list of words"),
        ("[tool.harness.hardware]\ncpu = {platform = 'mine'}\n", "what the CPU is is known"),
        (
            "[tool.harness.hardware]\nx = {platform = 'p'}\ny = {platform = 'p'}\n",
            "x and y have the platform",
        ),
        ("[tool.harness]\nrequirement = 3\n", "requirement: found 3, expected a text"),
        ("tool = 3\n[dependency-groups]\n", "[tool]: found 3, expected a table"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(told(tmp_path, text))
    assert words in str(caught.value)
    assert str(tmp_path / "pyproject.toml") in str(caught.value)


def test_the_root_is_the_checkout_or_where_the_table_is(tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    assert root_of(inside) == inside
    (tmp_path / ".git").mkdir()
    assert root_of(inside) == tmp_path
    told(tmp_path / "a", "[project]\nname = 'x'\n")
    assert root_of(inside) == tmp_path
    told(tmp_path / "a", "[tool.harness]\n")
    assert root_of(inside) == tmp_path / "a"


@pytest.mark.parametrize(
    ("command", "status"), [(("goldens", "list"), 2), (("run", "x", "--hardware", "cpu"), 2)]
)
def test_a_command_says_it_without_a_traceback(tmp_path: Path, command: tuple[str, ...], status: int) -> None:
    told(tmp_path, "[tool.harness]\ntracks = 3\n")
    done = subprocess.run(
        [sys.executable, "-m", "harness", *command],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status
    assert "pyproject.toml: [tool.harness.tracks]: found 3, expected a table" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, "resume-harness=={version}"),
        ({"url": "file:///x/y.whl", "archive_info": {}}, "resume-harness @ file:///x/y.whl"),
        ({"url": "file:///x/a%20b", "dir_info": {"editable": True}}, "--editable=/x/a b"),
        (
            {"url": "https://host/o/n.git", "vcs_info": {"vcs": "git", "commit_id": "ab12"}},
            "resume-harness @ git+https://host/o/n.git@ab12",
        ),
    ],
)
def test_the_requirement_is_how_the_running_harness_was_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: dict[str, object] | None, expected: str
) -> None:
    info = tmp_path / "resume_harness-7.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: resume-harness\nVersion: 7.5\n")
    if origin:
        (info / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installed_as() == expected.format(version="7.5")


@pytest.mark.parametrize("words", [["run"], ["run", "train"], ["cases", "lint"]])
def test_below_the_root_it_is_said_where_the_cases_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    (tmp_path / ".git").mkdir()
    case = tmp_path / "test_cases" / "mine" / "train"
    case.mkdir(parents=True)
    (case / "model_config.yaml").write_text("MODEL_ARGS: {--train-iters: 4}\n")
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")
    assert main(words) in (2, 3)
    assert f"cd {tmp_path}: test_cases is there" in capsys.readouterr().err
