"""Faults find their place whatever the formatting, say so where they have none, and are counted as found."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cases import load_case
from harness.diagnosis import COMPONENTS
from tests.megatron_faults import cases
from tests.megatron_faults.__main__ import main, parse
from tests.megatron_faults.bank import FAULTS, Fault
from tests.megatron_faults.matrix import line, markdown, summary
from tests.megatron_faults.planting import REACHED, AnchorError, Edit, copy_of, fault_in, planted, reached
from tests.megatron_faults.running import Outcome

SOURCE = """
class Keeper:
    def load(self, found):
        if "a" in found:
            self.a = found[
                "a"
            ]
        self.b = found["b"]  # as it was

    def save(self):
        return {"a": self.a, "b": self.b}


def load(found):
    keeper = Keeper()
    keeper.load(found)
    return keeper
"""
A = Edit("keeper.py", "Keeper.load", r"self\.a = found\['a'\]", "instead")


def run(source: str) -> object:
    names: dict[str, object] = {}
    exec(source, names)
    return names["load"]({"a": 1, "b": 2})  # type: ignore[operator]


def test_an_anchor_is_what_a_statement_says_not_how_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    keeper = run(planted(SOURCE, A, "a"))
    assert vars(keeper) == {"b": 2}
    assert capsys.readouterr().out == f"{REACHED}a\n"


@pytest.mark.parametrize(("put", "b"), [("before", 2), ("after", 7), ("instead", 7)])
def test_lines_stand_where_they_are_put(put: str, b: int) -> None:
    edit = replace(A, anchor=r"self\.b = ", put=put, lines="self.b = 7")  # type: ignore[arg-type]
    assert vars(run(planted(SOURCE, edit, "b"))) == {"a": 1, "b": b}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (replace(A, function="Keeper.lode"), "no such function"),
        (replace(A, anchor="self.c = "), "no statements begin so, expected one"),
        (replace(A, anchor=r"self\."), "2 statements begin so, expected one"),
    ],
)
def test_a_fault_without_a_place_says_which(edit: Edit, said: str) -> None:
    with pytest.raises(AnchorError, match=rf"keeper\.py: Keeper\.\w+: .*{said}"):
        planted(SOURCE, edit, "a")


def test_a_source_that_cannot_be_read_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(AnchorError, match="not read as Python"):
        planted("def (", A, "a")
    with pytest.raises(AnchorError, match="No such file"), fault_in(tmp_path, [A], "a"):
        pass


def test_a_checkout_is_never_changed_and_its_copy_is_as_before_when_a_fault_is_over(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / ".git").mkdir(parents=True)
    (checkout / "keeper.py").write_text(SOURCE)
    copy = copy_of(checkout, tmp_path / "copy")
    second = replace(A, anchor=r"self\.b = ")
    with fault_in(copy, [A, second], "a"):
        assert (copy / "keeper.py").read_text().count(REACHED) == 2
        assert (checkout / "keeper.py").read_text() == SOURCE
    assert (copy / "keeper.py").read_text() == SOURCE
    assert not (copy / ".git").exists()
    with pytest.raises(AnchorError), fault_in(copy, [A, replace(A, anchor="nothing")], "a"):
        pass
    assert (copy / "keeper.py").read_text() == SOURCE


def test_only_what_a_rank_printed_was_reached(tmp_path: Path) -> None:
    (tmp_path / "stdout.log").write_text(f"[default0]:{REACHED}scheduler\n")
    assert reached(tmp_path, "scheduler")
    assert not reached(tmp_path, "masters")


def test_there_are_twelve_faults_and_more_each_its_own() -> None:
    assert len(FAULTS) >= 12
    assert len({fault.key for fault in FAULTS}) == len({fault.lost for fault in FAULTS}) == len(FAULTS)
    assert {fault.case for fault in FAULTS} == set(cases.CASES)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.key)
def test_a_fault_has_a_known_component_a_reference_and_lines_that_are_python(fault: Fault) -> None:
    assert fault.component in COMPONENTS
    assert re.fullmatch(r"[A-Za-z-]+#\d+", fault.seen)
    for edit in fault.edits:
        ast.parse(textwrap.dedent(edit.lines).strip())


def test_each_case_resumes_half_way(tmp_path: Path) -> None:
    cases.write(tmp_path)
    for name in cases.CASES:
        assert load_case(tmp_path / "gpt" / name).resume_at("cpu") == 4


# -- what is said --------------------------------------------------------------------------------

SEEN = Outcome("scheduler", "1.2.3", "failed", True, ("state: lr-schedule",), "lr-schedule", ("because",))


def test_a_fault_that_no_rank_reached_is_not_caught_whatever_failed() -> None:
    assert SEEN.caught
    assert SEEN.named
    assert not replace(SEEN, planted=False).caught
    assert not replace(SEEN, seen=()).caught
    assert not replace(SEEN, component="rng").named


def test_the_table_has_a_column_a_version_and_shows_what_is_wrong_in_bold() -> None:
    other = replace(SEEN, version="1.3.0", component="rng")
    missed = replace(SEEN, key="masters", seen=())
    rows = markdown([SEEN, missed, other]).splitlines()
    assert rows[0].endswith("| named, 1.2.3 | named, 1.3.0 |")
    assert rows[2].endswith("| lr-schedule | lr-schedule | **rng** |")
    assert rows[3].endswith("| optimizer | **not caught** |  |")
    assert summary([SEEN, missed, other]).startswith("1.2.3: 1 of 2 caught, 1 named")
    assert "WRONG: it is lr-schedule" in line(other)
    assert "NOT CAUGHT" in line(missed)


def test_without_a_checkout_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MEGATRON_LM_PATH", raising=False)
    assert main([]) == 3
    assert "MEGATRON_LM_PATH" in capsys.readouterr().err
    assert main(["/nowhere"]) == 3
    assert "/nowhere: is no checkout" in capsys.readouterr().err


def test_a_name_that_no_fault_has_is_refused() -> None:
    with pytest.raises(SystemExit):
        parse(["--fault", "nothing"])
    assert parse(["x", "--fault", "masters"]).fault == ["masters"]
