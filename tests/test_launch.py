"""Real processes, really killed: who is blamed, how soon, and what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.errors import CheckpointError, TrainerFailed
from harness.launch.launcher import Launcher
from harness.trainers.base import Launch
from tests.launching import run_phase

TESTS = Path(__file__).parent
WORLD = 4


def ranks(*words: str, mark: str = "", world: int = WORLD, bare: bool = False) -> Launch:
    module = "ranks_bare" if bare else "ranks"
    env = {"TEST_MARK": mark} if mark else {}
    return Launch(kind="fork", world_size=world, target=f"{module}:run", argv=words, env=env)


def marked(mark: str) -> list[psutil.Process]:
    """Every process that was started below a launch with this mark, wherever it is now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TEST_MARK") == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def wait_until_gone(mark: str, seconds: float) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.02)
    return marked(mark)


@pytest.fixture(autouse=True)
def _tests_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TESTS))


@pytest.fixture(scope="module")
def warm() -> Iterator[Launcher]:
    """One warm parent for the tests that need torch."""
    with Launcher() as launcher:
        yield launcher


@pytest.fixture
def mark() -> Iterator[str]:
    """A mark for this test's processes; one that is still there afterwards is a failure."""
    name = uuid.uuid4().hex
    yield name
    left = marked(name)
    for process in left:
        process.kill()
    assert not left


def failing(launcher: Launcher, folder: Path, *words: str, timeout: float = 60) -> TrainerFailed:
    with pytest.raises(TrainerFailed) as caught:
        launcher.run(ranks(*words), phase="continuous", folder=folder, timeout=timeout)
    return caught.value


@pytest.mark.torch
def test_ranks_meet_over_a_file_and_report_their_progress(warm: Launcher, tmp_path: Path) -> None:
    seen: list[int] = []
    outcome = warm.run(
        ranks("gloo", "beat", "sleep=0.2", "step=3"),
        phase="continuous",
        folder=tmp_path,
        on_progress=seen.append,
    )
    assert seen == sorted(seen)
    assert seen[0] == 1
    assert seen[-1] == 4
    assert 0 < outcome.startup_seconds <= outcome.seconds


@pytest.mark.torch
def test_each_rank_has_its_own_log_with_both_streams(warm: Launcher, tmp_path: Path) -> None:
    words = [f"say=this is {rank}@{rank}" for rank in range(WORLD)]
    for _ in range(2):  # the second run replaces the logs of the first
        warm.run(ranks(*words), phase="continuous", folder=tmp_path)
    for rank in range(WORLD):
        text = (tmp_path / "logs" / f"rank_{rank}.log").read_text()
        assert text == f"this is {rank}\nerr this is {rank}\n"


@pytest.mark.torch
def test_the_import_is_paid_once_for_all_phases(warm: Launcher, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        warm.run(ranks("note"), phase="continuous", folder=tmp_path / name)
    first, second = (
        (tmp_path / name / f"note_{rank}").read_text().split()[:2]
        for name, rank in (("first", 0), ("second", 3))
    )
    assert first == second
    assert first[1] == "1"


def test_another_environment_gets_another_parent(tmp_path: Path, mark: str) -> None:
    with Launcher() as launcher:
        parents = set()
        for env in ({"TEST_MARK": mark, "X": "1"}, {"TEST_MARK": mark, "X": "2"}):
            launch = Launch(kind="fork", world_size=1, target="ranks_bare:run", argv=("note",), env=env)
            launcher.run(launch, phase="continuous", folder=tmp_path)
            parents.add((tmp_path / "note_0").read_text().split()[0])
            assert len(marked(mark)) == 1
        assert len(parents) == 2


def test_ranks_start_in_the_folder_asked_for(tmp_path: Path) -> None:
    launch = Launch(kind="fork", world_size=1, target="ranks_bare:run", argv=("note",), cwd=tmp_path)
    run_phase(launch, phase="continuous", folder=tmp_path)
    assert (tmp_path / "note_0").read_text().split()[2] == str(tmp_path)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGTERM"])
def test_a_killed_rank_is_blamed_and_not_the_peers_that_notice_it(
    warm: Launcher, tmp_path: Path, name: str
) -> None:
    for victim in range(WORLD):
        words = ("gloo", "step=3", f"kill={name}@{victim}", "step=1000")
        error = failing(warm, tmp_path, *words)
        assert error.rank == victim
        assert error.reason == f"was killed by {name} after iteration 3"


@pytest.mark.torch
def test_an_exception_is_blamed_on_the_rank_that_raised_first(warm: Launcher, tmp_path: Path) -> None:
    error = failing(warm, tmp_path, "gloo", "step=2", "raise=boom@3", "step=1000")
    assert (error.rank, error.reason) == (3, "failed after iteration 2: ValueError: boom")
    assert "ValueError: boom" in error.log_tail
    assert error.log == str(tmp_path / "logs" / "rank_3.log")


@pytest.mark.torch
@pytest.mark.parametrize(("word", "status"), [("exit=3", 3), ("exit=0", 0)])
def test_a_rank_that_exits_before_its_work_is_done_has_failed(
    warm: Launcher, tmp_path: Path, word: str, status: int
) -> None:
    error = failing(warm, tmp_path, "gloo", "step=1", f"{word}@1", "step=1000")
    assert error.rank == 1
    assert error.reason.startswith(f"exited with status {status} after iteration 1")


@pytest.mark.torch
def test_sys_exit_with_0_in_the_middle_is_no_success(warm: Launcher, tmp_path: Path) -> None:
    error = failing(warm, tmp_path, "gloo", "step=1", "sysexit=0@1", "step=1000")
    assert (error.rank, error.reason) == (1, "failed after iteration 1: SystemExit: 0")


@pytest.mark.torch
def test_a_harness_error_in_a_rank_keeps_its_class_and_its_advice(warm: Launcher, tmp_path: Path) -> None:
    error = failing(warm, tmp_path, "gloo", "checkpoint=iter_0000005@2", "step=9")
    assert error.rank == 2
    assert isinstance(error.__cause__, CheckpointError)
    assert str(error.__cause__) == "iter_0000005: is torn — save it again"


@pytest.mark.torch
@pytest.mark.parametrize("word", ["sleep=600", "kill=SIGSTOP"])
def test_a_rank_that_hangs_is_blamed_and_not_those_that_wait_for_it(
    warm: Launcher, tmp_path: Path, word: str
) -> None:
    error = failing(warm, tmp_path, "gloo", "step=4", f"{word}@2", "step=1000", timeout=1)
    assert error.rank == 2
    assert error.reason == "gave no sign of life for 1 s (last iteration 4)"


@pytest.mark.torch
def test_the_log_of_a_hung_rank_ends_with_where_it_hangs(warm: Launcher, tmp_path: Path) -> None:
    error = failing(warm, tmp_path, "gloo", "beat", "sleep=600@1", "step=9", timeout=1)
    assert "in _do" in error.log_tail
    assert "most recent call first" in error.log_tail


def test_a_slow_start_is_no_hang(tmp_path: Path) -> None:
    with Launcher() as launcher:
        launch = ranks("beat@0", "sleep=1", "beat", bare=True)
        launcher.run(launch, phase="continuous", folder=tmp_path, timeout=0.3, startup_timeout=30)
        with pytest.raises(TrainerFailed, match="it never came to an iteration"):
            launcher.run(
                ranks("beat@0", "sleep=600", bare=True),
                phase="continuous",
                folder=tmp_path,
                timeout=0.3,
                startup_timeout=0.5,
            )


def test_a_parent_that_was_stopped_blames_no_rank(tmp_path: Path, mark: str) -> None:
    launch = ranks("beat", "sleep=0.1", "note", "beat", "sleep=4", "beat", bare=True, mark=mark)

    def stop_everything() -> None:
        while not (tmp_path / "note_3").exists():
            time.sleep(0.01)
        everyone = marked(mark)
        for process in everyone:
            process.suspend()
        time.sleep(10)
        for process in everyone:
            process.resume()

    thread = threading.Thread(target=stop_everything)
    thread.start()
    # Longer than the rank sleeps, for a busy machine may stop it late; shorter than it is stopped.
    run_phase(launch, phase="continuous", folder=tmp_path, timeout=9)
    thread.join()


@pytest.mark.torch
def test_a_failed_phase_leaves_the_parent_ready_for_the_next(warm: Launcher, tmp_path: Path) -> None:
    failing(warm, tmp_path, "gloo", "kill=SIGKILL@0", "step=9")
    warm.run(ranks("gloo", "step=2"), phase="continuous", folder=tmp_path)


def test_nothing_is_left_after_a_failed_phase_nor_a_good_one(tmp_path: Path, mark: str) -> None:
    with Launcher() as launcher:
        launcher.run(ranks("daemon", bare=True, mark=mark), phase="continuous", folder=tmp_path)
        assert len(marked(mark)) == 1  # the warm parent
        with pytest.raises(TrainerFailed):
            launch = ranks("daemon", "exit=1@0", "sleep=600", bare=True, mark=mark)
            launcher.run(launch, phase="continuous", folder=tmp_path)
        assert len(marked(mark)) == 1
    assert not marked(mark)


def test_a_killed_warm_parent_takes_its_ranks_along(tmp_path: Path, mark: str) -> None:
    def kill_parent() -> None:
        while not (tmp_path / "note_3").exists():
            time.sleep(0.01)
        os.kill(int((tmp_path / "note_3").read_text().split()[0]), signal.SIGKILL)

    thread = threading.Thread(target=kill_parent)
    thread.start()
    with Launcher() as launcher:
        with pytest.raises(TrainerFailed, match="parent process, killed by SIGKILL"):
            launch = ranks("daemon", "note", "sleep=600", bare=True, mark=mark)
            launcher.run(launch, phase="continuous", folder=tmp_path)
        assert not marked(mark)
        launcher.run(ranks("beat", bare=True), phase="continuous", folder=tmp_path)
    thread.join()


HARNESS = """
import sys
from pathlib import Path
from harness.launch.launcher import Launcher
from harness.trainers.base import Launch
mark, folder, target, *words = sys.argv[1:]
launch = Launch(kind="fork", world_size=4, target=target, argv=tuple(words), env={"TEST_MARK": mark})
try:
    with Launcher() as launcher:
        launcher.run(launch, phase="continuous", folder=Path(folder))
except KeyboardInterrupt:
    sys.exit(130)
"""


def start_harness(folder: Path, mark: str, *words: str, target: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, "-c", HARNESS, mark, str(folder), target, *words]
    return subprocess.Popen(command, env=env)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_harness_that_is_killed_or_interrupted_leaves_nothing_running(
    tmp_path: Path, mark: str, number: signal.Signals, status: int
) -> None:
    words = ("daemon", "note", "sleep=600")
    harness = start_harness(tmp_path, mark, *words, target="ranks_bare:run")
    while len(list(tmp_path.glob("note_*"))) < WORLD:
        time.sleep(0.01)
    assert len(marked(mark)) == 1 + 4 + 4
    harness.send_signal(number)
    assert harness.wait(10) == status
    assert not wait_until_gone(mark, 5)


def test_a_harness_killed_while_the_parent_still_imports_leaves_nothing(tmp_path: Path, mark: str) -> None:
    harness = start_harness(tmp_path, mark, "note", target="ranks_slow:run")
    while not marked(mark):
        time.sleep(0.01)
    harness.kill()
    harness.wait(10)
    assert not wait_until_gone(mark, 1)


def test_a_trainer_that_cannot_be_imported_says_why(tmp_path: Path) -> None:
    launch = Launch(kind="fork", world_size=2, target="no_such_module:run", argv=())
    with pytest.raises(TrainerFailed) as caught:
        run_phase(launch, phase="continuous", folder=tmp_path)
    assert "No module named 'no_such_module'" in caught.value.reason


@pytest.mark.torch
def test_ranks_listen_on_this_machine_only(warm: Launcher, tmp_path: Path) -> None:
    listening: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            ours = {child.pid for child in psutil.Process().children(recursive=True)}
            for connection in psutil.net_connections("inet"):
                if connection.pid in ours and connection.status == psutil.CONN_LISTEN:
                    listening.add(getattr(connection.laddr, "ip", ""))
            time.sleep(0.02)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        warm.run(ranks("gloo", "step=3", "sleep=0.5"), phase="continuous", folder=tmp_path)
    finally:
        done.set()
        thread.join()
    assert listening == {"127.0.0.1"}


@pytest.mark.torch
def test_two_launches_side_by_side_do_not_meet(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def one(name: str) -> None:
        try:
            (tmp_path / name).mkdir()
            launch = ranks("gloo", "step=20", world=2)
            run_phase(launch, phase="continuous", folder=tmp_path / name)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


# -- executed commands ---------------------------------------------------------------------------


def command(code: str, mark: str) -> Launch:
    argv = (sys.executable, "-c", code)
    return Launch(kind="exec", world_size=2, argv=argv, env={"TEST_MARK": mark})


def test_a_command_runs_in_a_group_of_its_own_with_one_log(tmp_path: Path, mark: str) -> None:
    code = "import os, sys; print(os.getpgid(0) == os.getpid()); print('bad', file=sys.stderr)"
    run_phase(command(code, mark), phase="continuous", folder=tmp_path)
    lines = (tmp_path / "logs" / "trainer.log").read_text().splitlines()
    assert sorted(lines) == ["True", "bad"]


def test_a_command_that_fails_is_reported_with_the_end_of_its_log(tmp_path: Path, mark: str) -> None:
    code = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True); 1 / 0"
    with pytest.raises(TrainerFailed) as caught:
        run_phase(command(code, mark), phase="resumed", folder=tmp_path)
    assert str(caught.value).startswith(
        "resumed: the trainer failed: ZeroDivisionError: division by zero — its log: "
    )
    assert caught.value.log_tail.endswith("ZeroDivisionError: division by zero")
    assert not marked(mark)


def test_a_silent_command_is_ended_and_a_writing_one_is_not(tmp_path: Path, mark: str) -> None:
    writes = "import time\nfor i in range(15): print(i, flush=True); time.sleep(0.1)"
    run_phase(command(writes, mark), phase="continuous", folder=tmp_path, timeout=1)
    with pytest.raises(TrainerFailed, match="the trainer gave no sign of life for 1 s"):
        silent = command("import time; time.sleep(600)", mark)
        run_phase(silent, phase="continuous", folder=tmp_path, timeout=1)


def test_a_command_that_does_not_exist_is_a_failure_with_its_name(tmp_path: Path) -> None:
    launch = Launch(kind="exec", world_size=1, argv=("no-such-command",))
    with pytest.raises(TrainerFailed) as caught:
        run_phase(launch, phase="continuous", folder=tmp_path)
    assert "no-such-command" in caught.value.log_tail


@pytest.mark.torch
def test_the_parent_is_single_threaded_when_it_forks(warm: Launcher, tmp_path: Path) -> None:
    warm.run(ranks("note"), phase="continuous", folder=tmp_path)
    parent = int((tmp_path / "note_0").read_text().split()[0])
    assert psutil.Process(parent).num_threads() == 1


@pytest.mark.torch
def test_the_file_that_ranks_meet_over_is_removed(warm: Launcher, tmp_path: Path) -> None:
    warm.run(ranks("gloo", "step=1", "where"), phase="continuous", folder=tmp_path)
    store = Path((tmp_path / "where_0").read_text())
    assert store.parent.name.startswith("harness-rendezvous-")
    assert not store.parent.exists()
