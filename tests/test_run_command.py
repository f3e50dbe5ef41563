"""harness run: several cases, a folder of them, or all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.commands.cli import main
from harness.report.github.matrix import expected_cells
from harness.verdict.reading import read_verdict
from tests.plain_case import write_case


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two cases whose script needs no torch, in two families."""
    for family, name in (("a", "one"), ("b", "two")):
        write_case(tmp_path / "test_cases" / family / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))
    monkeypatch.delenv("CI", raising=False)
    return tmp_path


def statuses(place: Path) -> dict[str, str]:
    found = (place / "results").rglob("verdict.json")
    return {path.parent.name: read_verdict(path).status for path in found}


CPU = ("--hardware", "cpu")


def test_several_are_listed_run_and_summed_up(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *CPU, "--golden-update"]) == 1
    assert capsys.readouterr().out.startswith("2 cells:\n  cpu/dev/one\n  cpu/dev/two\n")
    assert main(["run", *CPU]) == 0
    assert "2 cells: 2 passed" in capsys.readouterr().out
    assert statuses(place) == {"one": "passed", "two": "passed"}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("test_cases/a",), ["one"]),
        (("test_cases",), ["one", "two"]),
        (("./test_cases/b/two", "one"), ["two", "one"]),
        (("two", "test_cases/a", "two"), ["two", "one"]),
        ((), ["one", "two"]),
    ],
)
def test_what_is_meant_is_names_paths_folders_or_all(
    place: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], names: list[str]
) -> None:
    status = main(["run", *words, *CPU, "--dry-run"])
    said = capsys.readouterr().out
    assert status == 0
    found = [line.rpartition("/")[2] for line in said.splitlines() if line.startswith("cd ")]
    assert list(dict.fromkeys(found)) == names


def test_one_that_cannot_be_run_keeps_no_other_from_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "test_cases" / "a" / "one" / "model_config.yaml").write_text("mine: [\n")
    assert main(["run", *CPU]) == 1
    said = capsys.readouterr()
    assert "harness: cpu/dev/one: " in said.err
    assert "is not YAML" in said.err
    assert statuses(place) == {"one": "refused", "two": "failed"}


def test_the_status_is_the_one_that_all_bad_ones_share(place: Path) -> None:
    for path in (place / "test_cases").rglob("model_config.yaml"):
        path.write_text("mine: [\n")
    assert main(["run", *CPU]) == 2
    assert main(["run", "--hardware", "h100"]) == 2


def test_hardware_that_is_not_here_is_nothing_to_do(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["run", "--hardware", "h100"]) == 3
    assert "needs 1 H100 GPU" in capsys.readouterr().err
    assert statuses(place) == {"one": "skipped", "two": "skipped"}
    shutil.rmtree(place / "results")
    assert main(["run", "one", "--hardware", "h100"]) == 2
    assert capsys.readouterr().err.count("needs 1 H100 GPU") == 1
    assert statuses(place) == {"one": "skipped"}
    monkeypatch.setenv("CI", "true")
    assert main(["run", "one", "--hardware", "h100"]) == 2
    assert statuses(place) == {"one": "refused"}


def test_no_case_at_all_is_nothing_to_do_and_a_folder_without_one_is_no_case(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "empty").mkdir()
    assert main(["run", "./empty", *CPU]) == 2
    assert "expected a case" in capsys.readouterr().err
    shutil.rmtree(place / "test_cases")
    assert main(["run", *CPU]) == 3
    assert "harness init writes one" in capsys.readouterr().err


def test_two_cases_of_one_name_would_share_their_results(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "test_cases" / "a" / "one", place / "elsewhere" / "one")
    assert main(["run", "one", "elsewhere/one", *CPU]) == 2
    assert "two cases of one name" in capsys.readouterr().err


def test_what_is_expected_is_said_by_the_folder_of_cases(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = expected_cells(place / "test_cases", hardware=["cpu"], tracks=["dev"])
    assert [cell.id for cell in cells] == ["cpu/dev/one", "cpu/dev/two"]
    assert main(["run", "one", *CPU]) == 1
    words = ("--expect", "test_cases", "--hardware", "cpu", "--track", "dev")
    assert main(["status", "results", *words]) == 1
    assert "cpu/dev/two" in capsys.readouterr().out
