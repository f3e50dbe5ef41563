"""A script that cannot stop is ended when its checkpoint is whole; what stood there then is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.trainers.command import preemption, processes, snapshot
from harness.trainers.command.names import Saves

ROOT = Path(__file__).parents[1]

#: Saves four times; K is the second. What a save does, and what happens when it is told to end, is put in.
SCRIPT = """
import json, os, pathlib, shutil, signal, sys, time
save = pathlib.Path(sys.argv[1]) / "save"
out = open(pathlib.Path(sys.argv[1]) / "metrics.jsonl", "w")
save.mkdir()
PAUSE = 0.6
{begin}
for step in range(1, 9):
    time.sleep(PAUSE / 2)
    state = json.dumps({{"step": step}})
    out.write(json.dumps({{"step": step, "loss": 1 / step}}) + "\\n")
    if step % 2 == 0:
{body}
"""


def ended(tmp_path: Path, body: str, begin: str = "", **patience: float) -> subprocess.CompletedProcess[str]:
    """Run the script as the trainer ``command`` does, until its checkpoint of 4 is whole."""
    body = "\n".join(f"        {line}" for line in body.strip("\n").split("\n"))
    (tmp_path / "script.py").write_text(SCRIPT.format(body=body, begin=begin))
    sets = "".join(f"s.{name} = {value}; " for name, value in patience.items())
    program = "import sys; import harness.trainers.command.preemption as p; "
    program += f"import harness.trainers.command.snapshot as s; {sets}sys.exit(p.main())"
    told = [str(tmp_path / "save"), "4", "8", "2", str(tmp_path)]
    words = [
        sys.executable,
        "-c",
        program,
        *told,
        "--",
        sys.executable,
        str(tmp_path / "script.py"),
        str(tmp_path),
    ]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)


def left(tmp_path: Path) -> dict[str, str]:
    """What is left, by name."""
    save = tmp_path / "save"
    return {
        str(path.relative_to(save)): path.read_text() for path in sorted(save.rglob("*")) if path.is_file()
    }


def test_what_names_the_last_one_names_that_of_k(tmp_path: Path) -> None:
    done = ended(
        tmp_path,
        """
d = save / f"global_step{step}"
d.mkdir(); (d / "state.json").write_text(state); (save / "latest").write_text(d.name)
(save / "tracker.txt").write_text(str(step)); (save / "last_checkpoint").write_text(str(d.absolute()))
for link, to in (("link", d.name), ("absolute", d.absolute())):
    (save / link).unlink(missing_ok=True); (save / link).symlink_to(to)
""",
    )
    assert done.returncode == 0, done.stderr
    save = tmp_path / "save"
    assert "is ended" in done.stdout
    found = left(tmp_path)
    assert (found["latest"], found["tracker.txt"]) == ("global_step4", "4")
    assert found["last_checkpoint"] == str(save / "global_step4")
    assert (save / "link").resolve() == (save / "absolute").resolve() == save / "global_step4"
    assert not (save / "global_step6").exists()


@pytest.mark.parametrize("saved", ["last.json", "step_4.json", "step_5.json"])
def test_what_is_saved_when_it_is_told_to_end_is_nobodys(saved: str, tmp_path: Path) -> None:
    begin = (
        f"signal.signal(signal.SIGTERM, lambda *_: ((save / {saved!r}).write_text('late'), "
        "(save / 'told').touch(), sys.exit(0)))"
    )
    body = 'for name in (f"step_{step}.json", "last.json"): (save / name).write_text(state)'
    assert ended(tmp_path, body, begin).returncode == 0
    assert left(tmp_path) == {
        "last.json": '{"step": 4}', "step_2.json": '{"step": 2}', "step_4.json": '{"step": 4}'
    }  # fmt: skip


def test_one_that_is_kept_no_longer_is_kept_here(tmp_path: Path) -> None:
    body = """
(save / f"step_{step}.json").write_text(state)
(save / f"step_{step - 2}.json").unlink(missing_ok=True)
"""
    assert ended(tmp_path, body).returncode == 0
    assert left(tmp_path) == {"step_4.json": '{"step": 4}'}


@pytest.mark.parametrize(
    ("body", "whole"),
    [
        (
            't = save / f"tmp-checkpoint-{step}"; t.mkdir(); (t / "a.json").write_text(state)\n'
            'time.sleep(1.5); t.rename(save / f"checkpoint-{step}")',
            {"checkpoint-4/a.json"},
        ),
        (
            't = save / f"{step}.orbax-checkpoint-tmp-17"; t.mkdir(); (t / "a").write_text(state)\n'
            'time.sleep(1.5); t.rename(save / str(step))',
            {"4/a"},
        ),
        (
            'm = save / f"step_{step}-unfinished"; m.touch(); d = save / f"step_{step}"; d.mkdir()\n'
            '(d / "a.json").write_text(state); time.sleep(1.5); (d / "b.json").write_text(state); m.unlink()',
            {"step_4/a.json", "step_4/b.json"},
        ),
        (
            'd = save / f"step_{step}"; d.mkdir(); (d / "__0_0.distcp").write_text(state); time.sleep(1.5)\n'
            '(d / ".metadata").write_text(state)',
            {"step_4/__0_0.distcp", "step_4/.metadata"},
        ),
        (
            'd = save / f"step_{step}"; d.mkdir(); (d / "a").write_text(state); time.sleep(1.5)\n'
            '(d / "COMMITTED").touch()',
            {"step_4/a", "step_4/COMMITTED"},
        ),
        (
            'f = open(save / f"step_{step}.bin", "w"); f.write("x"); f.flush(); time.sleep(1.5)\n'
            'f.write("y"); f.close()',
            {"step_4.bin"},
        ),
        (
            '(save / f"step_{step}.json").write_text("{"); time.sleep(1.5)\n'
            '(save / f"step_{step}.json").write_text(state)',
            {"step_4.json"},
        ),
        (
            '(save / f"step_{step}.json").write_text(state); time.sleep(1.5)\n'
            '(save / "latest").write_text(f"step_{step}.json")',
            {"step_4.json", "latest"},
        ),
    ],
    ids=["renamed", "orbax", "marker", "metadata", "commit file", "open", "cut off", "pointer"],
)  # fmt: skip
def test_it_is_ended_when_the_checkpoint_is_whole(body: str, whole: set[str], tmp_path: Path) -> None:
    done = ended(tmp_path, body, "PAUSE = 0.02")
    assert done.returncode == 0, done.stderr
    found = left(tmp_path)
    assert whole <= found.keys()
    if "latest" in whole:
        assert found["latest"] == "step_4.json"
    for name in whole - {"latest", "step_4/COMMITTED", "step_4.bin"}:
        assert found[name] == '{"step": 4}'
    assert found.get("step_4.bin", "xy") == "xy"
    assert not [name for name in found if "tmp" in name or "6" in name]


def test_a_copy_that_was_made_before_its_pointer_came_is_not_taken_for_whole(tmp_path: Path) -> None:
    save = tmp_path / "save"
    save.mkdir()

    def step(number: int) -> None:
        (save / f"step_{number}.json").write_text(json.dumps({"step": number}))

    step(2)
    (save / "latest").write_text("step_2.json")
    step(4)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as writer:
        watch = snapshot.Watch(save, 4, Saves(2, 8), writer.pid, tmp_path / "nothing", 8)
        assert not any(watch.look(10 + number / 10) for number in range(5))
        writer.kill()
    assert watch.taken
    assert not watch.whole
    step(6)  # nobody has looked since, on a busy machine, and the script has come to its end
    step(8)
    (save / "latest").write_text("step_8.json")
    assert preemption._ended_by_itself(save, 4, Saves(2, 8), watch) == 0
    assert left(tmp_path) == {
        "latest": "step_4.json", "step_2.json": '{"step": 2}', "step_4.json": '{"step": 4}'
    }  # fmt: skip


def test_the_first_checkpoint_of_all_is_given_time_for_what_nobody_has_seen_yet(tmp_path: Path) -> None:
    body = """
def commit(d): time.sleep(1.2); (d / "COMMITTED").touch()
if step % 4 == 0:
    d = save / f"step_{step}"; d.mkdir(); (d / "a.json").write_text(state)
    (save / "last.json").write_text(state); threading.Thread(target=commit, args=(d,)).start()
"""
    assert ended(tmp_path, body, "import threading; PAUSE = 0.4").returncode == 0
    assert left(tmp_path) == {
        "last.json": '{"step": 4}', "step_4/COMMITTED": "", "step_4/a.json": '{"step": 4}'
    }  # fmt: skip


def test_what_looks_unfinished_for_good_is_taken_as_it_is(tmp_path: Path) -> None:
    body = """
(save / f"step_{step}.json").write_text("{no json")
if step == 4: time.sleep(600)
"""
    assert ended(tmp_path, body, _PATIENCE=2.0).returncode == 0
    assert sorted(left(tmp_path)) == ["step_2.json", "step_4.json"]


def test_what_is_in_its_buffers_is_written_when_it_is_ended(tmp_path: Path) -> None:
    assert ended(tmp_path, '(save / f"step_{step}.json").write_text(state)').returncode == 0
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) >= 4
    assert '"step": 4' in lines[3]


def test_one_that_ends_before_it_can_be_stopped_leaves_what_it_had_at_k(tmp_path: Path) -> None:
    body = """
(save / f"step_{step}.json").write_text(state); (save / "last.json").write_text(state)
(save / "latest").write_text(f"step_{step}.json"); (save / "iteration.txt").write_text(str(step))
"""
    done = ended(tmp_path, body, "PAUSE = 0")
    assert done.returncode == 0, done.stderr
    assert left(tmp_path) == {
        "iteration.txt": "4", "last.json": '{"step": 4}', "latest": "step_4.json",
        "step_2.json": '{"step": 2}', "step_4.json": '{"step": 4}',
    }  # fmt: skip


def test_a_torn_distributed_checkpoint_is_never_whole(tmp_path: Path) -> None:
    body = 'd = save / f"step_{step}"; d.mkdir(); (d / "__0_0.distcp").write_text(state)'
    done = ended(tmp_path, body, "PAUSE = 0.3", _PATIENCE=0.1, _SETTLED=0.1)
    assert "is ended" not in done.stdout


def test_one_that_is_held_still_is_told_to_end_all_the_same(tmp_path: Path) -> None:
    script = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); "
    script += "print(flush=True); time.sleep(600)"
    words = [sys.executable, "-c", script]
    with subprocess.Popen(words, start_new_session=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        processes.end(process.pid, 10)
        assert process.wait(10) == 7


def test_a_pipe_beside_the_checkpoints_is_none_of_their_files(tmp_path: Path) -> None:
    body = '(save / f"step_{step}.json").write_text(state)'
    done = ended(tmp_path, body, 'import os; os.mkfifo(save / "pipe"); PAUSE = 0.02')
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "save").iterdir()} == {"step_2.json", "step_4.json"}


def test_where_nothing_can_be_copied_nobody_is_left_and_a_sentence_says_why(tmp_path: Path) -> None:
    (tmp_path / ".save.at-4").write_text("in the way")
    begin = """
import subprocess
quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
worker = subprocess.Popen(["sleep", "60"], start_new_session=True, **quiet)
(save.parent / "worker").write_text(str(worker.pid))
"""
    done = ended(tmp_path, '(save / f"step_{step}.json").write_text(state)', begin)
    assert done.returncode != 0
    assert "harness: the checkpoint of iteration 4 cannot be kept: " in done.stderr
    assert "snapshot.py" not in done.stderr
    stat = Path("/proc", (tmp_path / "worker").read_text(), "stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "ZX"
