"""Saved by one side, resumed by another: real processes, small cases, faults that such a pair shows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import trainers
from harness.cases import Case, load_case
from harness.commands.cli import main
from harness.commands.cross import status_of
from harness.errors import (
    EXIT_CRASHED,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_PASSED,
    EXIT_USAGE,
    NothingToDo,
    UsageError,
)
from harness.night.night import read_nights
from harness.protocol.cross import Pair
from harness.protocol.cross_run import Matrix, run_cross
from harness.protocol.observer import Silent
from harness.protocol.sides import Asked, python_of
from harness.report.cross_page import render
from harness.trainers.base import Launch
from tests.faults import trainer
from tests.faults.plants import optimizer
from tests.markup_of import Page
from tests.plain_case import write_case

pytestmark = pytest.mark.torch

CASES = Path(__file__).parent / "faults" / "cases"
LAYOUTS = ("tp1dp1", "tp2dp1")


def cross(results: Path, name: str = "fewer_replicas", plants: tuple[Callable[[], None], ...] = ()) -> Matrix:
    """A small case in two layouts, trained with what is planted."""
    trainer.planted = partial(trainer.PlantedTrainer, plants=plants, disk=None)  # type: ignore[attr-defined]
    trainers.TRAINERS["planted"] = f"{trainer.__name__}:planted"
    (folder,) = CASES.glob(f"*/{name}")
    case = load_case(folder)
    case = replace(case, harness=replace(case.harness, trainer={"default": "planted"}))
    return run_cross(case, "cpu", Asked(by=("layout",), layouts=LAYOUTS), results, Silent())


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Matrix]:
    results = tmp_path_factory.mktemp("clean")
    return results, cross(results)


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    before = psutil.Process().children(recursive=True)  # what other tests share until the end
    yield
    after = psutil.Process().children(recursive=True)
    _, alive = psutil.wait_procs([process for process in after if process not in before], timeout=5)
    assert not [process for process in alive if "harness.launch" in " ".join(process.cmdline())]


# -- layouts -----------------------------------------------------------------------------------


def test_another_layout_rounds_otherwise_and_loses_nothing(clean: tuple[Path, Matrix]) -> None:
    _, matrix = clean
    assert [(pair.saved_by, pair.resumed_by) for pair in matrix.pairs] == [
        ("tp1pp1", "tp2pp1"), ("tp2pp1", "tp1pp1"),
    ]  # fmt: skip
    for pair in matrix.pairs:
        assert (pair.result, pair.component, pair.loaded) == ("within", "numerics", True), pair
        assert "every bit is the same" in pair.state
        (loss,) = [one for one in pair.curves if one.check.metric == "lm loss"]
        assert (
            loss.exact or 0 < (loss.off or 0) <= (loss.allowed or 0) < 1e-5
        )  # measured, and no wide tolerance
    assert status_of(matrix.pairs) == EXIT_PASSED


def test_what_is_found_is_written_down_and_nothing_else_is_kept(clean: tuple[Path, Matrix]) -> None:
    results, matrix = clean
    (file,) = results.rglob("cross.json")
    assert file.parent == results / "cross" / "fewer_replicas" / "on-cpu" / "matrix"
    content = json.loads(file.read_text())
    assert [pair["result"] for pair in content["pairs"]] == ["within", "within"]
    assert content["sides"]["layout"]["tp2pp1"]["ranks"] == 2
    assert content["sides"]["layout"]["tp2pp1"]["numerics"]
    assert not list(results.rglob("checkpoints"))
    assert Page(render([matrix])).said().count("≈ within") >= 4


def test_a_matrix_is_taken_for_no_cell(clean: tuple[Path, Matrix]) -> None:
    results, _ = clean
    with pytest.raises(NothingToDo):
        read_nights([results])
    (results / "cpu").mkdir()
    with pytest.raises(NothingToDo):
        read_nights([results])


@pytest.mark.parametrize(
    ("plant", "component"),
    [
        (optimizer.step_count_dropped, "optimizer"),  # the state as it is loaded tells
        (optimizer.first_microbatch_flag, ""),  # and of what is in no state, the curves
    ],
)
def test_what_is_lost_on_the_way_is_a_failure_with_its_component(
    tmp_path: Path, plant: Callable[[], None], component: str
) -> None:
    matrix = cross(tmp_path, plants=(plant,))
    for pair in matrix.pairs:
        assert pair.result == "cannot", pair
        assert pair.lost
        assert component in pair.component
    assert status_of(matrix.pairs) == EXIT_FAILED
    assert "lost something" in Page(render([matrix])).said()


def test_a_format_that_is_of_one_layout_is_refused_with_a_sentence_which_is_no_failure(
    tmp_path: Path,
) -> None:
    words = ["cross", "fewer_replicas", "--cases", str(CASES), "--results", str(tmp_path)]
    words += ["--hardware", "cpu", "--layout", ",".join(LAYOUTS), "--argument", "ckpt-format=torch"]
    assert main(words) == EXIT_PASSED
    (file,) = tmp_path.rglob("cross.json")
    for pair in json.loads(file.read_text())["pairs"]:
        assert (pair["result"], pair["component"], pair["loaded"]) == ("cannot", "checkpoint", False)
        assert "only torch_dist checkpoints load in another layout" in pair["why"]
    assert "⊘ cannot" in Page((tmp_path / "cross" / "cross.html").read_text()).said()


def test_a_side_that_does_not_train_is_an_error_and_the_others_are_told() -> None:
    pairs = [Pair("layout", "a", "b", "exact"), Pair("layout", "b", "a", "error", why="b does not train")]
    assert status_of(pairs) == EXIT_CRASHED


# -- what cannot be crossed --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--layout", "tp3"],
            "--layout tp3: fewer_replicas: --num-attention-heads 4 is not a multiple of TP 3",
        ),
        (["--layout", "tp1"], "--by layout: there is one side (tp1pp1dp2)"),
        (["--layout", "two"], "--layout 'two': expected own, or sizes"),
        (["--by", "time"], "--by time: expected track, layout, or track,layout"),
        (["--by", "track", "--layout", "tp2"], "--layout names what is crossed --by layout"),
        (["--by", "track"], "--python lts=PATH names that of its environment"),
        (["--by", "track", "--python", "lts"], "--python lts: expected TRACK=PATH"),
        (["--by", "track", "--python", "new=/bin/true"], "track 'new': expected one of lts, dev"),
        (
            ["--by", "track", "--python", "lts=/no/python"],
            "--python lts=/no/python: there is no such program",
        ),
        (["--by", "track", "--python", "lts=/bin/false"], "has no harness that could run there"),
        (["--by", "track", "--python", f"lts={sys.executable}"], "and track lts is torch 2.8.0"),
        (["--argument", "hidden-dropout"], "--argument hidden-dropout: expected NAME=VALUE"),
        (["--argument", "no-such=1"], "argument --no-such: no such argument"),
    ],
)
def test_what_cannot_be_crossed_is_one_error_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    options = ["--cases", str(CASES), "--results", str(tmp_path / "results"), "--hardware", "cpu"]
    assert main(["cross", "fewer_replicas", *options, *words]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "results").exists()


# -- tracks ------------------------------------------------------------------------------------


def a_repository(folder: Path, case: Callable[[Path], None]) -> Path:
    """Of two tracks, which are both this environment: one by itself, and one as another's Python."""
    (folder / "pyproject.toml").write_text(
        "[tool.harness.tracks]\none = {group = false}\ntwo = {group = false}\n"
    )
    case(folder / "test_cases" / "own" / "case")
    return folder


def crossed(folder: Path, python: str = sys.executable) -> dict[str, Any]:
    root = str(Path(__file__).parents[1])
    words = [sys.executable, "-m", "harness", "cross", "case", "--by", "track", "--hardware", "cpu",
             "--python", f"two={python}"]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_PASSED, done.stdout + done.stderr
    (file,) = (folder / "results").rglob("cross.json")
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def results_of(content: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(pair["saved_by"], pair["resumed_by"], pair["result"]) for pair in content["pairs"]]


def native(folder: Path) -> None:
    folder.mkdir(parents=True)
    (source,) = CASES.glob("*/dense_torch")
    shutil.copy(source / "model_config.yaml", folder)


def test_two_tracks_that_round_otherwise_are_as_far_apart_as_was_measured(tmp_path: Path) -> None:
    """Another environment stands for another torch: its operations are asked to take other kernels."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nATEN_CPU_CAPABILITY=default exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    content = crossed(a_repository(tmp_path, native), str(python))
    one, two = (content["sides"]["track"][name]["numerics"] for name in ("one", "two"))
    result = "exact" if one == two else "within"  # some machines have these kernels alone
    assert results_of(content) == [("one", "two", result), ("two", "one", result)]
    for pair in content["pairs"] if one != two else ():
        assert pair["component"] == "numerics"
        assert "gives other bits" in pair["why"]
        assert "every bit is the same" in pair["state"]
        (loss,) = [curve for curve in pair["curves"] if curve["check"]["metric"] == "lm loss"]
        assert loss["exact"] or loss["off"] <= loss["allowed"] < 1e-4


def test_two_tracks_of_the_same_bits_are_exact_both_ways(tmp_path: Path) -> None:
    content = crossed(a_repository(tmp_path, native))
    assert results_of(content) == [("one", "two", "exact"), ("two", "one", "exact")]


def test_a_script_is_crossed_by_track_too(tmp_path: Path) -> None:
    content = crossed(a_repository(tmp_path, write_case))
    assert results_of(content) == [("one", "two", "exact"), ("two", "one", "exact")]
    assert "every bit is the same" in content["pairs"][0]["state"]


def test_a_command_is_started_by_the_other_environment_and_finds_its_programs_first() -> None:
    launch = Launch(kind="exec", world_size=1, argv=(sys.executable, "-m", "x"), env={"PATH": "/usr/bin"})
    other = launch.under("/other/bin/python")
    assert other.argv == ("/other/bin/python", "-m", "x")
    assert (other.python, other.env["PATH"]) == ("/other/bin/python", f"/other/bin{os.pathsep}/usr/bin")


def test_an_interrupt_leaves_nothing_running_in_either_environment(tmp_path: Path) -> None:
    folder = a_repository(tmp_path, native)
    words = [sys.executable, "-m", "harness", "cross", "case", "--by", "track", "--hardware", "cpu",
             "--python", f"one={sys.executable}", "--python", f"two={sys.executable}"]  # fmt: skip
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "HARNESS_LEASES": str(tmp_path / "leases"),
    }
    process = subprocess.Popen(words, cwd=folder, env=env, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not list(folder.rglob("rank_0.log")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        below = psutil.Process(process.pid).children(recursive=True)
        assert below
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == EXIT_INTERRUPTED
        assert "nothing is left running" in said
        _, alive = psutil.wait_procs(below, timeout=5)
        assert not alive
    finally:
        process.kill()
        process.wait()


def test_the_python_of_another_track_is_asked_what_it_has() -> None:
    assert python_of("dev", {"dev": sys.executable}) == os.path.abspath(sys.executable)
    assert python_of("dev", {}) == ""
    with pytest.raises(UsageError, match=r"has torch .*, and track lts is torch"):
        python_of("lts", {"lts": sys.executable})


def test_a_case_that_is_not_deterministic_is_not_crossed(tmp_path: Path) -> None:
    (folder,) = CASES.glob("*/fewer_replicas")
    case: Case = load_case(folder)
    case = replace(case, harness=replace(case.harness, deterministic=False))
    with pytest.raises(UsageError, match="is not deterministic"):
        run_cross(case, "cpu", Asked(by=("layout",), layouts=LAYOUTS), tmp_path, Silent())
