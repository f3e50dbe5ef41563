"""Slots are shared between real processes, which wait, leave, and are killed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import HardwareMissing, HarnessError, UsageError
from harness.machine import leases
from harness.machine.hardware import cores
from harness.machine.leases import OVERTAKEN, Ticket, lease, serve, settle

_CELL = """
import sys
from harness.machine.leases import lease
hardware, count = sys.argv[1:]
with lease(hardware, int(count), lambda text: print(text, flush=True)) as env:
    print("got", env["CUDA_VISIBLE_DEVICES"], flush=True)
    sys.stdin.read()
"""


class Process:
    """One cell in a process of its own: holds what it got until it is told to leave."""

    def __init__(self, hardware: str, count: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CELL, hardware, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(leases.__file__).parents[2])},
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def got(self) -> set[str]:
        while not (line := self.line()).startswith("got"):
            assert line.startswith("waiting"), line
        return set(line.split()[1].split(",")) if " " in line else set()

    def leave(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


Starts = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starts]:
    """Start a cell on a machine of four H100 and one A100."""
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(
        "#!/bin/sh\n"
        'for i in 0 1 2 3; do echo "$i, GPU-$i, 81559, Disabled, NVIDIA H100 80GB HBM3"; done\n'
        'echo "4, GPU-4, 40960, Disabled, NVIDIA A100-PCIE-40GB"\n'
    )
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    started: list[Process] = []

    def starts(hardware: str, count: int) -> Process:
        started.append(Process(hardware, count))
        return started[-1]

    yield starts
    for cell in started:
        cell.process.kill()
        cell.process.communicate()


def test_two_cells_side_by_side_never_see_the_same_device(start: Starts) -> None:
    first, second = start("h100", 2), start("h100", 2)
    assert first.got() | second.got() == {"GPU-0", "GPU-1", "GPU-2", "GPU-3"}


def test_a_cell_that_does_not_fit_waits_until_another_leaves(start: Starts) -> None:
    first = start("h100", 3)
    held = first.got()
    second = start("h100", 2)
    assert second.line() == "waiting for 2 H100 GPUs: next in line"
    first.leave()
    assert second.got() <= held | {"GPU-3"}


def test_a_killed_holder_gives_its_devices_back(start: Starts) -> None:
    first = start("h100", 4)
    first.got()
    second = start("h100", 4)
    assert second.line().startswith("waiting")
    first.kill()
    assert len(second.got()) == 4


def test_a_killed_waiter_keeps_nobody_behind_it_waiting(start: Starts) -> None:
    first = start("h100", 4)
    first.got()
    second = start("h100", 4)
    assert second.line() == "waiting for 4 H100 GPUs: next in line"
    third = start("h100", 4)
    assert third.line() == "waiting for 4 H100 GPUs: 1 cell before this one"
    second.kill()
    assert third.line() == "waiting for 4 H100 GPUs: next in line"
    first.leave()
    assert len(third.got()) == 4


def test_those_who_want_everything_get_it_in_the_order_they_came(start: Starts) -> None:
    cells = [start("h100", 4)]
    cells[0].got()
    for ahead in ("next in line", "1 cell before this one", "2 cells before this one"):
        cells.append(start("h100", 4))
        assert cells[-1].line() == f"waiting for 4 H100 GPUs: {ahead}"
    for cell, following in itertools.pairwise(cells):
        cell.leave()
        assert len(following.got()) == 4


def test_different_kinds_of_device_do_not_wait_for_each_other(start: Starts) -> None:
    start("h100", 4).got()
    assert start("a100", 1).got() == {"GPU-4"}


def test_only_visible_devices_are_leased(start: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    start("h100", 1).got()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2,GPU-3")
    assert start("h100", 2).got() == {"GPU-2", "GPU-3"}


def test_more_than_the_machine_has_is_refused_at_once(start: Starts) -> None:
    with pytest.raises(HardwareMissing, match="needs 5 H100 GPUs"), lease("h100", 5):
        pass


@pytest.mark.usefixtures("start")
def test_eight_ranks_on_the_cpu_take_every_core_and_see_no_gpu(tmp_path: Path) -> None:
    with lease("cpu", 8) as env:
        assert dict(env) == {"CUDA_VISIBLE_DEVICES": ""}
        line = (tmp_path / "leases" / "line.json").read_text()
        assert line.count('"core ') == 2 * cores()
    assert (tmp_path / "leases" / "line.json").read_text() == "[]"


def test_an_error_in_the_block_gives_the_slots_back(start: Starts) -> None:
    with pytest.raises(ZeroDivisionError), lease("h100", 4):
        _ = 1 / 0
    assert len(start("h100", 4).got()) == 4


def test_nothing_is_left_in_the_folder_but_the_line(start: Starts, tmp_path: Path) -> None:
    first = start("h100", 4)
    first.got()
    second = start("h100", 1)
    assert second.line().startswith("waiting")
    first.kill()
    second.got()
    second.leave()
    assert sorted(path.name for path in (tmp_path / "leases").iterdir()) == ["line.json", "line.lock"]


@pytest.mark.usefixtures("start")
def test_a_broken_line_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "line.json").write_text('[{"number": 1')
    with pytest.raises(HarnessError, match=r"line\.json: is no line of tickets"), lease("cpu", 1):
        pass


def test_a_folder_that_is_somebody_elses_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HARNESS_LEASES", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: f"test-{os.getpid()}")
    folder = Path(f"/tmp/harness-leases-test-{os.getpid()}")
    folder.symlink_to(tmp_path)
    try:
        with pytest.raises(UsageError, match="is no folder of this user's"):
            leases.folder()
    finally:
        folder.unlink()


# -- who is next, without processes --------------------------------------------------------------

FOUR = ("a", "b", "c", "d")


def served(tickets: list[Ticket], number: int) -> Ticket | None:
    line = serve(tickets, number)
    return None if line is None else next(ticket for ticket in line if ticket.number == number)


def test_the_first_slots_that_are_free_are_taken() -> None:
    line = [Ticket(1, FOUR, 1, held=("b",)), Ticket(2, FOUR, 2)]
    found = served(line, 2)
    assert found is not None
    assert found.held == ("a", "c")


def test_nobody_overtakes_one_that_fits() -> None:
    line = [Ticket(1, FOUR, 2), Ticket(2, FOUR, 1)]
    assert served(line, 2) is None
    assert served(line, 1) is not None


def test_one_that_does_not_fit_is_overtaken_and_remembers() -> None:
    line = [Ticket(1, FOUR, 2, held=("a", "b")), Ticket(2, FOUR, 4), Ticket(3, FOUR, 1)]
    after = serve(line, 3)
    assert after is not None
    assert [ticket.overtaken for ticket in after] == [0, 1, 0]


def test_one_that_was_overtaken_often_enough_is_waited_for() -> None:
    big = Ticket(2, FOUR, 4, overtaken=OVERTAKEN)
    line = [Ticket(1, FOUR, 2, held=("a", "b")), big, Ticket(3, FOUR, 1)]
    assert served(line, 3) is None
    assert served([line[0], replace(big, overtaken=OVERTAKEN - 1), line[2]], 3) is not None


def test_one_that_wants_other_slots_is_no_rival() -> None:
    line = [Ticket(1, ("a", "b"), 2), Ticket(2, ("c", "d"), 1)]
    found = served(line, 2)
    assert found is not None
    assert found.held == ("c",)


def test_a_slot_that_is_given_back_goes_to_whoever_is_next_and_fits() -> None:
    line = [
        Ticket(1, FOUR, 3, held=("a", "b", "c")),
        Ticket(2, FOUR, 4),
        Ticket(3, FOUR, 1),
        Ticket(4, FOUR, 1),
    ]
    assert [ticket.held for ticket in settle(line)] == [("a", "b", "c"), (), ("d",), ()]
    assert [ticket.held for ticket in settle(line[1:])] == [FOUR, (), ()]
