"""``every`` and ``chain``: resumed at other iterations, again and again, down to the least that fail."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.protocol.plan import Options, stops_of
from harness.verdict import Verdict
from harness.verdict.reading import read_verdict

TESTS = Path(__file__).parent
N, EVERY = 12, 2


def write(folder: Path, *more: str, stops: bool = True, in_place: bool = False, n: int = N) -> Path:
    """A case of the stand-in that is stopped more than once."""
    words = ["python", "train.py", "--iters", "${TRAIN_ITERS}", "--every", "${SAVE_INTERVAL}", *more]
    words += ["--stop", "${EXIT_ITERS}"] if stops else []
    load = "${CHECKPOINT_LOAD_PATH}"
    save = ["--save", load if in_place else "${CHECKPOINT_SAVE_PATH}"]
    command = {
        "train": [*words, "--save", "${CHECKPOINT_SAVE_PATH}"],
        "resume": [*words, *save, "--load", load],
    }
    case = folder / "cases" / "mine" / "stopped"
    case.mkdir(parents=True, exist_ok=True)
    shutil.copy(TESTS / "stand_ins" / "stopped_script.py", case / "train.py")
    keys = {"--train-iters": n, "--save-interval": EVERY}
    text = {"MODEL_ARGS": keys, "HARNESS": {"trainer": "command", "command": command}}
    (case / "model_config.yaml").write_text(json.dumps(text))
    return case


def harness(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(TESTS.parent), "HARNESS_LEASES": str(folder / "leases")}
    case = folder / "cases/mine/stopped"
    return subprocess.run(
        [sys.executable, "-m", "harness", "run", str(case), "--hardware", "cpu", *words],
        cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def verdict(folder: Path) -> Verdict:
    return read_verdict(folder / "results/cpu/dev/stopped/verdict.json")


def resume_failures(found: Verdict) -> list[str]:
    """There is no golden; that is not of interest here."""
    assert found.status in ("failed", "error"), found.message
    return [check.name for check in found.failures if check.against != "golden"]


def least(found: Verdict) -> Any:
    return found.provenance["stops"]["least"]


def phases(folder: Path) -> set[str]:
    return {path.name for path in (folder / "results/cpu/dev/stopped").iterdir() if path.is_dir()}


# -- a script that resumes as it should -----------------------------------------------------------


def test_every_resumes_from_each_checkpoint_that_the_one_run_has_kept(tmp_path: Path) -> None:
    write(tmp_path)
    done = harness(tmp_path, "--protocol", "every")
    found = verdict(tmp_path)
    assert resume_failures(found) == [], done.stdout
    assert sorted(t["stops"] for t in found.provenance["stops"]["tried"]) == [[2], [4], [6], [8], [10]]
    assert not any(name.startswith("interrupted") for name in phases(tmp_path))
    assert found.provenance["stops"]["not_tried"] == []


@pytest.mark.parametrize("keeps", ["last", "beside"])
def test_a_script_that_overwrites_what_it_saves_is_run_to_each_stop_instead(
    tmp_path: Path, keeps: str
) -> None:
    write(tmp_path, "--keeps", keeps)
    done = harness(tmp_path, "--protocol", "every", "--stops", "3,8")
    assert resume_failures(verdict(tmp_path)) == [], done.stdout
    assert {"interrupted-3", "interrupted-8", "resumed-3", "resumed-8"} <= phases(tmp_path)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("stops", [True, False])
def test_a_chain_resumes_from_what_the_resumed_run_has_saved(
    tmp_path: Path, stops: bool, in_place: bool
) -> None:
    write(tmp_path, *([] if stops else ["--pause", "0.4"]), stops=stops, in_place=in_place)
    done = harness(tmp_path, "--protocol", "chain", "--stops", "4,8")
    found = verdict(tmp_path)
    assert resume_failures(found) == [], done.stdout
    assert {"resumed-4-to-8", "resumed-4-8"} <= phases(tmp_path)
    assert [t["stops"] for t in found.provenance["stops"]["tried"]] == [[4, 8]]


# -- one that does not -----------------------------------------------------------------------------


def test_what_only_a_second_resume_shows_is_shrunk_to_two_stops_and_reproduced(tmp_path: Path) -> None:
    write(tmp_path, "--fault", "twice")
    assert harness(tmp_path, "--protocol", "full").returncode == 1
    assert resume_failures(verdict(tmp_path)) == []
    assert harness(tmp_path, "--protocol", "chain").returncode == 1
    found = verdict(tmp_path)
    assert least(found) == [2, 4]
    assert "shortest chain of stops that fails: 2, 4" in found.message
    assert found.diagnosis is not None
    assert "resumed at 2 or at 4 alone it holds" in found.diagnosis.evidence[0]
    assert "second resumed run" in found.diagnosis.evidence[1]
    assert "--protocol chain --stops 2,4" in found.reproduce
    assert not next(check for check in found.checks if check.name == "stops: 2, 4").passed
    words = shlex.split(found.reproduce)[3:]
    assert harness(tmp_path, *words).returncode == 1
    again = verdict(tmp_path)
    assert (least(again), again.diagnosis.component) == ([2, 4], found.diagnosis.component)  # type: ignore[union-attr]
    assert len(again.provenance["stops"]["tried"]) == 1


def test_every_finds_the_smallest_k_that_fails_though_the_middle_holds(tmp_path: Path) -> None:
    write(tmp_path, "--fault", "early")
    assert harness(tmp_path, "--protocol", "every").returncode == 1
    found = verdict(tmp_path)
    failed = [t["stops"] for t in found.provenance["stops"]["tried"] if not t["held"]]
    assert sorted(failed) == [[2], [4]]
    assert least(found) == [2]
    assert found.provenance["resumed_after"] == 2
    assert "--protocol full --resume-at 2" in found.reproduce
    assert harness(tmp_path, *shlex.split(found.reproduce)[3:]).returncode == 1
    assert resume_failures(verdict(tmp_path)) != []


def test_a_second_resume_that_dies_is_shrunk_too(tmp_path: Path) -> None:
    write(tmp_path, "--fault", "crash")
    assert harness(tmp_path, "--protocol", "chain").returncode == 4
    found = verdict(tmp_path)
    assert (found.status, least(found)) == ("error", [2, 4])
    assert "--protocol chain --stops 2,4" in found.reproduce


# -- a budget, and what cannot be ----------------------------------------------------------------------


def test_what_there_was_no_time_for_is_said(tmp_path: Path) -> None:
    write(tmp_path)
    harness(tmp_path, "--protocol", "every", "--budget", "0")
    found = verdict(tmp_path)
    assert [t["stops"] for t in found.provenance["stops"]["tried"]] == [[6]]
    assert found.provenance["stops"]["not_tried"] == [[2], [4], [8], [10]]
    assert any("not tried, for want of time" in note for note in found.provenance["notes"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--stops", "4"), "expected every or chain"),
        (("--budget", "9"), "expected every or chain"),
        (("--protocol", "every", "--resume-at", "4"), "--resume-at: found --protocol every"),
        (("--protocol", "chain", "--stops", "8,4"), "each above the one before"),
        (("--protocol", "chain", "--stops", "4,four"), "expected iterations with commas"),
        (("--protocol", "chain", "--stops", "4,12"), "below 12"),
        (("--resume-at", "5"), "saves every 2 iterations, and is not told where to stop"),
        (("--protocol", "every", "--budget", "-1"), "expected seconds"),
        (("--trials", "-1"), "expected seconds, 0 for none"),
    ],
)
def test_what_cannot_be_stopped_there_is_one_sentence(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    write(tmp_path, stops=False)
    done = harness(tmp_path, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_chain_needs_two_checkpoints(tmp_path: Path) -> None:
    write(tmp_path, n=4)
    done = harness(tmp_path, "--protocol", "chain")
    assert done.returncode == 2
    assert "a chain needs two checkpoints before the end" in done.stderr


def test_a_dry_run_prints_every_run_of_the_chain(tmp_path: Path) -> None:
    write(tmp_path)
    done = harness(tmp_path, "--protocol", "chain", "--stops", "4,8", "--dry-run")
    assert done.returncode == 0
    heads = [line for line in done.stdout.splitlines() if line.startswith("# ") and "iterations" in line]
    assert [head.split(":")[0] for head in heads] == [
        "# continuous", "# interrupted-4", "# resumed-4-to-8", "# resumed-4-8",
    ]  # fmt: skip
    assert "gets the checkpoint of 8 from" in done.stdout
    assert "resumed-4-to-8 before" in done.stdout
    assert not (tmp_path / "results").exists()


def test_pytest_takes_the_same_options(tmp_path: Path) -> None:
    write(tmp_path)
    env = {**os.environ, "PYTHONPATH": str(TESTS.parent), "HARNESS_LEASES": str(tmp_path / "leases")}
    words = ["--cell=cpu/dev/stopped", "--cases", "cases", "--protocol", "chain", "--stops", "4,8"]
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert verdict(tmp_path).provenance["stops"]["tried"] == [{"stops": [4, 8], "held": True}]


@pytest.mark.parametrize("text", ["0", "4,4", "1e3", "4,", ",".join(map(str, range(1, 30)))])
def test_stops_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        stops_of(text)


def test_a_command_line_says_its_stops_again() -> None:
    options = Options(protocol="chain", stops=stops_of("4, 8"), budget=90.0)
    assert options.words == ["--protocol", "chain", "--stops", "4,8", "--budget", "90"]
    assert Options(trials=600.0).words == ["--trials", "600"]
