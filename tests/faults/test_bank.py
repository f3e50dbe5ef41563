"""The bank is whole, every plant reaches the trainer, and what is written of it is what was found."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from harness.cases import load_case
from harness.diagnosis import COMPONENTS
from harness.launch.launcher import Launcher
from tests.faults.__main__ import parse
from tests.faults.bank import CASES, FAULTS, FEATURES, Fault
from tests.faults.cells import WarmLauncher, judge
from tests.faults.matrix import markdown, summary, to_json, totals
from tests.faults.running import Caught, Outcome
from tests.faults.stops import CASE as STOP_CASE
from tests.faults.stops import STOP_FAULTS
from tests.regions import write_region

#: Says for each plant whether anything of the trainer is another thing after it; one import for all.
PLANT_EACH = """
import json, os, sys
from importlib import import_module
from tests.faults.planted import preload
preload()
modules = [m for n, m in sorted(sys.modules.items()) if n.startswith("harness.trainers.native.")]
from torch.distributed.checkpoint.filesystem import FileSystemWriter

def looks():
    found = {}
    for module in modules:
        for name, value in vars(module).items():
            found[module.__name__, name] = id(value)
            if isinstance(value, type):
                found.update({(module.__name__, name, k): id(v) for k, v in vars(value).items()})
    return found | {("writer", k): id(v) for k, v in vars(FileSystemWriter).items()}

for line in sys.stdin:
    module, function = line.strip().split(":")
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        plant = getattr(import_module(module), function)
        before = looks()
        plant()
        print(json.dumps([line.strip(), looks() != before]), flush=True)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, line
"""


#: Stands for a plant that has lost its place: called, it changes nothing.
NOTHING = "builtins:dict"


def named(plant: object) -> str:
    return f"{plant.__module__}:{plant.__name__}"  # type: ignore[attr-defined]


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Launcher]:
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))
    with WarmLauncher() as launcher:
        yield launcher


def test_there_are_thirty_eight_classes_each_with_its_own_reference() -> None:
    assert [fault.number for fault in FAULTS] == list(range(1, 39))
    assert len({fault.tracker for fault in FAULTS}) == len({fault.lost for fault in FAULTS}) == 38
    assert all(re.fullmatch(r"[A-Za-z-]+#\d+", fault.tracker) for fault in FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.number))
def test_a_fault_has_a_known_component_a_case_and_a_plant_that_a_rank_finds(fault: Fault) -> None:
    assert fault.component in COMPONENTS
    (folder,) = CASES.glob(f"*/{fault.case}")
    assert load_case(folder).resume_at("cpu") == 10
    for plant in fault.plants:
        module, _, function = named(plant).partition(":")
        assert getattr(import_module(module), function) is plant


def test_no_case_stands_there_without_a_fault() -> None:
    there = {path.name for path in CASES.glob("*/*")}
    assert there == {fault.case for fault in FAULTS} | {STOP_CASE}
    assert FEATURES.keys() <= there


def test_every_plant_puts_something_of_its_own_into_the_trainer() -> None:
    plants = sorted({named(plant) for fault in FAULTS for plant in fault.plants})
    plants += [named(fault.plant) for fault in STOP_FAULTS if named(fault.plant) not in plants]
    done = subprocess.run(
        [sys.executable, "-c", PLANT_EACH], input="\n".join([*plants, NOTHING]), text=True,
        capture_output=True, check=True, timeout=300, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    found = dict(json.loads(line) for line in done.stdout.splitlines())
    assert found.pop(NOTHING) is False  # what plants nothing is seen to plant nothing
    assert found == dict.fromkeys(plants, True)


def test_clean_twin_passes_where_faults_are_caught_and_named(tmp_path: Path, warm: Launcher) -> None:
    goldens = tmp_path / "goldens"
    clean = judge("dense_torch_dist_async", goldens=goldens, results=tmp_path / "clean", launcher=warm)
    assert [check.name for check in clean.failures] == ["golden: is there"]
    assert clean.diagnosis is None
    for number, entry in ((3, "rng.common."), (21, "optimizer.step.*"), (36, "")):
        fault = FAULTS[number - 1]
        verdict = judge(
            fault.case,
            goldens=goldens,
            results=tmp_path / str(number),
            plants=fault.plants,
            disk=fault.disk,
            launcher=warm,
        )
        assert any(not c.passed and c.against != "golden" for c in verdict.checks)
        assert verdict.diagnosis is not None
        assert verdict.diagnosis.component == fault.component, verdict.diagnosis.evidence
        assert verdict.diagnosis.entry.startswith(entry), verdict.diagnosis
        assert bool(verdict.diagnosis.entry) == bool(entry)
        assert verdict.diagnosis.recipes == ()  # those are for scripts of one's own


# -- what is written ---------------------------------------------------------------------------

SEEN = Outcome(
    15, "failed", None, Caught(9, 11, "learning-rate"), Caught(3, 20, "lr-schedule"), legacy="lm loss, 12",
    component="lr-schedule", evidence=("because",),
)  # fmt: skip
MISSED = Outcome(7, "passed")
WRONG = replace(SEEN, number=16, component="rng", legacy="")


def test_what_is_caught_and_what_is_named_are_counted_apart() -> None:
    found = totals([SEEN, MISSED, WRONG])
    assert (found["faults"], found["caught"], found["named"]) == (3, 2, 1)
    assert (found["by golden"], found["by continuous"], found["by state"]) == (0, 2, 2)
    assert found["by Megatron-LM's gate"] == 1
    assert summary([SEEN, MISSED, WRONG]).startswith("2 of 3 (67%) caught, 1 of 3 (33%) named rightly")


def test_time_alone_catches_nothing() -> None:
    assert not Outcome(15, "failed", component="performance").caught
    assert Outcome(15, "error").caught


def test_matrix_shows_what_is_wrong_in_bold() -> None:
    rows = markdown([WRONG, SEEN]).splitlines()
    assert "| learning-rate, 11 | lr-schedule, 20 | lr-schedule | lr-schedule | lm loss, 12 |" in rows[2]
    assert "| lr-schedule | **rng** | passes |" in rows[3]


def test_json_holds_the_evidence() -> None:
    found = json.loads(to_json([SEEN]))
    assert found["faults"][0]["evidence"] == ["because"]
    assert found["faults"][0]["true"] == "lr-schedule"


def test_a_region_is_made_replaced_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    path = tmp_path / "docs" / "detection.md"
    write_region(path, "faults", "one")
    assert "one" in path.read_text()
    path.write_text(path.read_text() + "\nby hand\n")
    write_region(path, "alarms", "three")
    write_region(path, "faults", "two")
    text = path.read_text()
    assert "one" not in text
    assert [word for word in ("two", "by hand", "three") if word in text] == ["two", "by hand", "three"]
    assert text.count("faults: begin") == 1


@pytest.mark.parametrize("number", ["0", "39", "x"])
def test_a_number_that_no_fault_has_is_refused(number: str) -> None:
    with pytest.raises(SystemExit) as refused:
        parse([number])
    assert refused.value.code == 2


def test_without_numbers_all_are_meant() -> None:
    assert parse([]).numbers == []
    assert parse(["3", "15"]).numbers == [3, 15]
