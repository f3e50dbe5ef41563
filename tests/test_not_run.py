"""A cell that is refused or skipped leaves a verdict of its own, and nothing of the run before it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.commands.cli import main
from harness.errors import HarnessError
from harness.matrix import Cell
from harness.protocol import run as running
from harness.protocol.plan import Options
from harness.protocol.run import run_cell
from harness.verdict import Verdict
from harness.verdict.reading import read_verdict
from harness.verdict.sweep import MARKER, leave, was_skipped
from tests.nights import green

CELL = Cell("cpu", "dev", "tiny")
GOOD = {
    "MODEL_ARGS": {"--train-iters": 8, "--save-interval": 4},
    "HARNESS": {"trainer": "command", "command": {"train": ["python", "-c", "pass"]}},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A case, and what an earlier run of it has left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))
    for name in ("CI", "NOX_CURRENT_SESSION"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "test_cases" / "mine" / "tiny"
    folder.mkdir(parents=True)
    (folder / "model_config.yaml").write_text(json.dumps(GOOD))
    before(tmp_path / "results" / CELL.id)
    return tmp_path


def before(folder: Path) -> None:
    green(CELL.id).write(folder / "verdict.json")
    (folder / "continuous").mkdir()
    for name in (MARKER, "report.html", "continuous/metrics.jsonl"):
        (folder / name).touch()


def broken_golden(place: Path) -> None:
    (place / "goldens" / "tiny").mkdir(parents=True)
    (place / "goldens" / "tiny" / "golden_values_dev_cpu.json").write_text("{")


def broken_yaml(place: Path) -> None:
    (place / "test_cases" / "mine" / "tiny" / "model_config.yaml").write_text("MODEL_ARGS: [")


def nothing_to_resume(place: Path) -> None:
    args = {"--train-iters": 8, "--save-interval": 8}
    file = place / "test_cases" / "mine" / "tiny" / "model_config.yaml"
    file.write_text(json.dumps({**GOOD, "MODEL_ARGS": args}))


def gone(place: Path) -> None:
    (place / "test_cases" / "mine" / "tiny" / "model_config.yaml").unlink()


def nothing(place: Path) -> None:
    pass


def the_verdict(place: Path, cell: Cell = CELL) -> Verdict:
    """The only thing beside the marker."""
    folder = place / "results" / cell.id
    assert sorted(path.name for path in folder.iterdir()) == [MARKER, "verdict.json"]
    return read_verdict(folder / "verdict.json")


@pytest.mark.parametrize("case", ["tiny", "test_cases/mine/tiny", "test_cases/mine/tiny/model_config.yaml"])
@pytest.mark.parametrize(
    ("change", "more", "said"),
    [
        (broken_golden, (), "golden_values_dev_cpu.json"),
        (broken_yaml, (), "is not YAML"),
        (gone, (), "tiny"),
        (nothing_to_resume, (), "resume"),
        (nothing, ("--protocol", "ful"), "protocol 'ful'"),
    ],
)
def test_a_refusal_leaves_its_own_verdict(
    place: Path, capsys: pytest.CaptureFixture[str],
    case: str, change: Callable[[Path], None], more: tuple[str, ...], said: str,
) -> None:  # fmt: skip
    change(place)
    assert main(["run", case, "--hardware", "cpu", *more]) == 2
    error = capsys.readouterr().err
    verdict = the_verdict(place)
    assert (verdict.cell, verdict.status, verdict.checks) == (CELL.id, "refused", ())
    assert said in verdict.message
    assert error == f"harness: {verdict.message}\n"
    assert verdict.reproduce == " ".join(["harness run", case, "--hardware cpu --track dev", *more])
    assert verdict.run is not None
    assert verdict.run.started <= verdict.run.finished == verdict.provenance["finished"]
    assert main(["status", "results"]) == 1


def test_every_invocation_has_an_id_of_its_own_that_lies_in_the_folder_from_the_start(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def look(*_: object, **__: object) -> None:
        found.append(json.loads((place / "results" / CELL.id / MARKER).read_text()))
        assert not (place / "results" / CELL.id / "verdict.json").exists()
        raise HarnessError("not today")

    monkeypatch.setattr(running, "prepare", look)
    for _ in range(2):
        assert main(["run", "tiny", "--hardware", "cpu"]) == 2
        run = the_verdict(place).run
        assert run is not None
        assert found[-1] == {"id": run.id, "started": run.started}
    assert found[0]["id"] != found[1]["id"]


def test_a_lease_that_is_refused_is_one_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise HarnessError("the line is lost")

    monkeypatch.setattr(running, "lease", refuse)
    assert main(["run", "tiny", "--hardware", "cpu"]) == 2
    assert the_verdict(place).message == "the line is lost"


def test_a_file_that_cannot_be_read_is_one_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error", "goldens/x.json")

    monkeypatch.setattr(running, "prepare", refuse)
    assert main(["run", "tiny", "--hardware", "cpu"]) == 2
    assert the_verdict(place).message == "goldens/x.json: Input/output error"


@pytest.mark.parametrize(("ci", "status"), [(False, "skipped"), (True, "refused")])
def test_hardware_that_is_not_there_is_skipped_and_refused_in_ci(
    place: Path, monkeypatch: pytest.MonkeyPatch, ci: bool, status: str
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    if ci:
        monkeypatch.setenv("CI", "true")
    command = {"trainer": "command", "command": {"train": ["/bin/true"]}}
    case = {**GOOD, "HARNESS": command}
    (place / "test_cases" / "mine" / "tiny" / "model_config.yaml").write_text(json.dumps(case))
    assert main(["run", "tiny", "--hardware", "h100"]) == 2
    verdict = the_verdict(place, Cell("h100", "dev", "tiny"))
    assert verdict.status == status
    assert "needs 1 H100 GPU" in verdict.message


def test_what_others_have_put_there_is_left_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place / "results" / CELL.id
    (folder / MARKER).unlink()
    kept = sorted(folder.rglob("*"))
    broken_golden(place)
    assert main(["run", "tiny", "--hardware", "cpu"]) == 2
    assert "no run of the harness made it" in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == kept


@pytest.mark.parametrize("case", ["no such name", "..", "nowhere/at/all", "/etc"])
def test_what_cannot_be_a_cell_leaves_nothing(place: Path, case: str) -> None:
    kept = sorted(place.rglob("*"))
    assert main(["run", case, "--hardware", "cpu"]) == 2
    assert sorted(place.rglob("*")) == kept


def test_an_unknown_name_is_refused_as_the_cell_that_was_asked_for(place: Path) -> None:
    assert main(["run", "tinny", "--hardware", "cpu"]) == 2
    assert "did you mean tiny?" in the_verdict(place, Cell("cpu", "dev", "tinny")).message


def test_under_nox_the_command_is_nox_s(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOX_CURRENT_SESSION", "case(cpu)")
    broken_golden(place)
    options = Options(protocol="full")
    with pytest.raises(HarnessError):
        run_cell(
            CELL, cases=Path("test_cases"), goldens=Path("goldens"), results=Path("results"), options=options
        )
    assert the_verdict(place).reproduce == 'nox -s "case(cpu)(dev,tiny)" -- --protocol full'


# -- a folder that is a link -----------------------------------------------------------------------


@pytest.mark.parametrize("link", ["results/cpu/dev/tiny", "results/cpu/dev", "results/cpu", "results"])
def test_a_folder_on_another_disk_is_used_run_after_run(place: Path, link: str) -> None:
    scratch = place / "scratch"
    (place / link).rename(scratch)
    (place / link).symlink_to(scratch)
    broken_golden(place)
    for _ in range(3):
        assert main(["run", "tiny", "--hardware", "cpu"]) == 2
        assert (place / link).is_symlink()
        folder = place / "results" / CELL.id
        assert {path.name for path in folder.iterdir()} <= {MARKER, "verdict.json", ".harness-lock"}
        assert read_verdict(folder / "verdict.json").status == "refused"
        before_again = folder / "continuous"
        before_again.mkdir()
        (before_again / "loop").symlink_to(folder)


def test_a_link_to_what_is_not_ours_or_to_nothing_is_refused_and_nothing_is_removed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link, home = place / "results" / CELL.id, place / "home"
    link.rename(place / "aside")
    home.mkdir()
    (home / "thesis.tex").touch()
    link.symlink_to(home)
    assert main(["run", "tiny", "--hardware", "cpu"]) == 2
    assert "no run of the harness made it" in capsys.readouterr().err
    assert [path.name for path in home.iterdir()] == ["thesis.tex"]
    link.unlink()
    link.symlink_to(place / "unmounted")
    assert main(["run", "tiny", "--hardware", "cpu"]) == 2
    assert f"is a link to {place / 'unmounted'}, which is not there" in capsys.readouterr().err
    link.unlink()
    link.write_text("a file")
    assert main(["run", "tiny", "--hardware", "cpu"]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert link.read_text() == "a file"


def test_a_folder_that_cannot_be_renamed_is_emptied_where_it_is(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(self: Path, target: Path) -> Path:
        raise OSError(16, "Device or resource busy", str(self))

    monkeypatch.setattr(Path, "rename", busy)  # as where a disk is mounted
    broken_golden(place)
    assert main(["run", "tiny", "--hardware", "cpu"]) == 2
    assert the_verdict(place).status == "refused"


# -- what the noxfile leaves -----------------------------------------------------------------------


def test_a_session_that_is_skipped_leaves_the_same(place: Path) -> None:
    leave(CELL, "skipped", "no GPU", place / "results")
    verdict = read_verdict(place / "results" / CELL.id / "verdict.json")
    assert (verdict.status, verdict.message) == ("skipped", "no GPU")
    assert not (place / "results" / CELL.id / "report.html").exists()
    assert was_skipped(CELL, 0.0, place / "results")
    assert not was_skipped(CELL, 1e12, place / "results")
    before(place / "results" / "cpu" / "lts" / "tiny")
    assert not was_skipped(Cell("cpu", "lts", "tiny"), 0.0, place / "results")


def test_a_session_leaves_a_folder_alone_that_is_not_ours(place: Path) -> None:
    (place / "results" / CELL.id / MARKER).unlink()
    leave(CELL, "skipped", "no GPU", place / "results")
    assert read_verdict(place / "results" / CELL.id / "verdict.json").passed
