"""A few kills of each kind: what is sound goes on as if nothing had been; what takes a torn save is red."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.commands.cli import main
from harness.errors import UsageError
from harness.launch import victims
from harness.launch.launcher import Launcher
from harness.matrix import Cell
from harness.protocol.judge import NO_GOLDEN
from harness.protocol.plan import Options
from harness.protocol.run import run_cell
from harness.trainers.base import Phase
from harness.trainers.command.adapter import CommandTrainer
from tests.kills.rows import ROWS, Row
from tests.kills.running import Killed, kill, left_running, marked, orphans

if TYPE_CHECKING:
    from harness.verdict import Verdict


@pytest.fixture(autouse=True)
def _cores_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    with Launcher() as one:
        yield one


def row(name: str) -> Row:
    return next(one for one in ROWS if one.name == name)


def killed(tmp_path: Path, name: str, launcher: Launcher, moment: str = "random", seed: int = 1) -> Killed:
    with marked() as mark:
        return kill(tmp_path, row(name), seed, launcher, mark, moment)


@pytest.mark.parametrize("moment", ["random", "saving", "before-tracker", "between-steps"])
def test_a_script_that_saves_well_goes_on_as_if_nothing_had_been(
    tmp_path: Path, launcher: Launcher, moment: str
) -> None:
    one = killed(tmp_path, "plain-atomic", launcher, moment, seed=3)
    assert not one.wrong(planted=False)
    assert one.at is not None
    if moment == "before-tracker":  # data are whole, and ``latest`` does not name them: it minds that
        assert "whole" in one.said


def test_a_script_that_passes_over_what_is_torn_is_sound(tmp_path: Path, launcher: Launcher) -> None:
    one = killed(tmp_path, "plain-checked", launcher, "saving", seed=0)
    assert not one.wrong(planted=False)
    assert one.at == 15
    assert "doubtful: 20 (step_20.txt has" in one.said


def test_a_tracker_is_waited_for_only_where_there_is_one(tmp_path: Path, launcher: Launcher) -> None:
    one = killed(tmp_path, "plain-last", launcher, "before-tracker")
    assert any("no tracker, link or file is written" in why for why in one.red)


@pytest.mark.parametrize(
    ("name", "said", "component"),
    [
        ("plain-lenient", "torn", "checkpoint"),
        ("plain-lenient-last", "torn", "checkpoint"),
        ("plain-parts", "torn", "checkpoint"),
        ("plain-strict", "load iteration", "checkpoint"),
        ("plain-forgiving", "training started again", ""),
    ],
)
def test_what_is_planted_is_red_and_named(
    tmp_path: Path, launcher: Launcher, name: str, said: str, component: str
) -> None:
    # What is written within a few milliseconds may be whole when the kill comes.
    tried = (killed(tmp_path, name, launcher, "saving", seed=seed) for seed in range(6))
    one = next(one for one in tried if one.red and "nothing was resumed" not in one.red[0])
    assert not one.wrong(planted=True)
    assert any(said in why for why in one.red), one.red
    assert component in ("", one.component)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_rank_of_a_launcher_that_looks_after_nobody_is_killed_and_the_limit_holds(
    tmp_path: Path, launcher: Launcher
) -> None:
    found = [killed(tmp_path, "pair", launcher, seed=seed) for seed in (1, 2)]
    assert not [why for one in found if (why := one.wrong(planted=False))]


@pytest.mark.torch
@pytest.mark.parametrize("name", ["dense_torch", "torchrun"])
def test_so_does_training_with_torch(tmp_path: Path, launcher: Launcher, name: str) -> None:
    assert not killed(tmp_path, name, launcher, "saving", seed=2).wrong(planted=False)


# -- again and again -------------------------------------------------------------------------------


def verdict_of(tmp_path: Path, name: str, launcher: Launcher, options: Options) -> Verdict:
    return run_cell(
        Cell("cpu", "dev", name),
        case=row(name).case(tmp_path),
        cases=tmp_path / "cases",
        goldens=tmp_path / "goldens",
        results=tmp_path / "results",
        options=options,
        launcher=launcher,
    )


def test_each_of_several_kills_is_a_check_and_the_seed_is_said(tmp_path: Path, launcher: Launcher) -> None:
    options = Options(protocol="crash", crash_at="random", crash_times=3, crash_seed=4)
    verdict = verdict_of(tmp_path, "plain-atomic", launcher, options)
    assert [check.name for check in verdict.failures] == [NO_GOLDEN]
    each = [check for check in verdict.checks if check.name.startswith("crash ")]
    assert [check.name for check in each] == [
        f"crash {number} of 3: goes on as if nothing had been" for number in (1, 2, 3)
    ]
    assert all("all ranks killed" in check.message and "left: " in check.message for check in each)
    assert any("it went on from iteration" in check.message for check in each)  # one of them waits for that
    assert "--crash-at random --crash-rank all --crash-times 3 --crash-seed 4" in verdict.reproduce


def test_the_first_kill_that_fails_is_told_whole_and_what_it_has_left_is_kept(
    tmp_path: Path, launcher: Launcher
) -> None:
    options = Options(protocol="crash", crash_at="saving", crash_times=3, crash_seed=0)
    verdict = verdict_of(tmp_path, "plain-strict", launcher, options)
    failed = [check.name for check in verdict.failures if check.name != NO_GOLDEN]
    assert any(name.startswith("crash ") for name in failed)
    assert sum(name.startswith("resume: load iteration") for name in failed) == 1
    assert verdict.diagnosis is not None
    assert verdict.diagnosis.component == "checkpoint"
    left = tmp_path / "results" / "cpu" / "dev" / "plain-strict" / "checkpoints" / "interrupted"
    assert list(left.glob("step_*.txt"))


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ("--crash-times 0: expected 1 to 1000", {"crash_times": 0}),
        ("--crash-seed -1: expected a whole number", {"crash_seed": -1}),
        ("--crash-rank one: expected all, any, or the number", {"crash_rank": "one"}),
        ("--crash-at noon: expected between-steps, saving, before-tracker, random", {"crash_at": "noon"}),
    ],
)
def test_what_no_kill_can_be_is_refused(said: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        Options(protocol="crash", **options)


def test_a_rank_that_is_not_there_is_refused_before_anything_is_started(
    tmp_path: Path, launcher: Launcher
) -> None:
    with pytest.raises(UsageError, match="--crash-rank 1: the world has 1 rank") as refused:
        verdict_of(tmp_path, "plain-atomic", launcher, Options(protocol="crash", crash_rank="1"))
    assert "world_size" in refused.value.advice


def test_a_dry_run_says_who_is_killed_and_what_is_resumed_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = row("plain-atomic").case(tmp_path).directory
    words = ["--protocol", "crash", "--crash-at", "saving", "--dry-run", "--results", str(tmp_path / "r")]
    assert main(["run", str(case), "--hardware", "cpu", *words]) == 0
    said = capsys.readouterr().out
    assert "# killed with SIGKILL on the way: --crash-at saving --crash-rank all" in said
    assert "resumed-from gets all that the kill has left in" in said
    assert not (tmp_path / "r").exists()


# -- who is killed ---------------------------------------------------------------------------------

_RANKS = """
import os, subprocess, sys, time
if "RANK" not in os.environ:
    ranks = [subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, "RANK": str(rank)},
                              start_new_session=True) for rank in range(2)]
    print(*(one.pid for one in ranks), flush=True)
    sys.exit(max(one.wait() for one in ranks))
if len(sys.argv) == 1:
    subprocess.run([sys.executable, sys.argv[0], "worker"])
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ranks_are_told_from_what_they_start_themselves_and_killed_with_all_of_it(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(_RANKS)
    env = {key: value for key, value in os.environ.items() if key != "RANK"}
    with (
        marked() as mark,
        subprocess.Popen(
            [sys.executable, str(script)],
            env={**env, "HARNESS_KILLS": mark},
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ranks = [int(word) for word in process.stdout.readline().split()]
            deadline = time.monotonic() + 20
            while len(left_running(mark)) < 5:  # two ranks, a worker of each, and who has started them
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert victims.ranks_below(process.pid) == dict(enumerate(ranks))
        finally:
            victims.kill_everything(process.pid, [])
        process.wait()
        assert not orphans(mark)


# -- what is left ----------------------------------------------------------------------------------


def phases(tmp_path: Path) -> tuple[CommandTrainer, Phase, Phase]:
    trainer = CommandTrainer(row("plain-atomic").case(tmp_path), "cpu")
    made = []
    for name in ("interrupted", "continuous"):
        save = tmp_path / "checkpoints" / name
        save.mkdir(parents=True)
        made.append(Phase("interrupted", tmp_path / name, save, None, 0, 20, 20, 5))
    return trainer, made[0], made[1]


WHOLE = {"step_5.json": "{}", "step_10.json": "{}", "latest": "step_10"}
LIKE = {f"step_{i}.json": "{}" for i in (5, 10, 15, 20)} | {"latest": "step_20"}


@pytest.mark.parametrize(
    ("files", "like", "committed", "said"),
    [
        (WHOLE, LIKE, 10, "whole: 5, 10"),
        ({**WHOLE, "latest": "step_5"}, LIKE, 5, "whole: 5, 10"),
        ({**WHOLE, "latest": "step_15"}, LIKE, 10, "whole: 5, 10"),
        ({**WHOLE, "latest": ""}, LIKE, 0, "whole: 5, 10"),
        ({**WHOLE, "step_10.json": '{"a'}, LIKE, 5, "whole: 5; torn: 10 ("),
        ({**WHOLE, "step_15.json.part": "{"}, LIKE, 10, "torn: 15 (step_15.json.part is not finished"),
        ({"step_5.json.part": "{"}, LIKE, 0, "torn: 5"),
        ({}, LIKE, 0, "nothing"),
        (
            {"a/x_5.txt": "12", "a/x_10.txt": "1"},
            {f"a/x_{i}.txt": "12" for i in (5, 10, 20)},
            5,
            "doubtful: 10",
        ),
        (
            {"s_5/m": "1", "s_5/o": "1", "s_10/m": "1"},
            {f"s_{i}/{name}": "1" for i in (5, 10, 20) for name in "mo"},
            5,
            "doubtful: 10 (nothing is there as",
        ),
        ({"last.json": "{}"}, {"last.json": "{}"}, 0, "a whole checkpoint that does not tell"),
        ({"last.json": "{"}, {"last.json": "{}"}, 0, "doubtful: the only one"),
        ({"a.json": "{}"}, {"a.json": "{}", "last.json": "{}"}, 0, "files that do not tell its iteration"),
        ({"last.json.tmp": "{"}, {"last.json": "{}"}, 0, "torn: the only one"),
    ],
)
def test_what_is_left_is_told_by_names_formats_and_the_uninterrupted_run(
    tmp_path: Path, files: dict[str, str], like: dict[str, str], committed: int, said: str
) -> None:
    trainer, mine, other = phases(tmp_path)
    for phase, content in ((mine, files), (other, like)):
        for name, text in content.items():
            path = phase.save / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    left = trainer.left(mine, other)
    assert said in left.sentence()
    assert left.committed == committed


def test_the_folder_is_resumed_from_as_it_stands_and_names_itself(tmp_path: Path) -> None:
    trainer, mine, _ = phases(tmp_path)
    (mine.save / "step_5.json.part").write_text("{")
    (mine.save / "latest").write_text(str(mine.save / "step_10.json"))
    (mine.save / "link").symlink_to(mine.save / "step_10.json")
    os.mkfifo(mine.save / "pipe")
    target = tmp_path / "resumed-from"
    trainer.take_over(mine, target)
    assert sorted(path.name for path in target.iterdir()) == ["latest", "link", "step_5.json.part"]
    assert (target / "latest").read_text() == str(target / "step_10.json")
    assert os.readlink(target / "link") == str(target / "step_10.json")
