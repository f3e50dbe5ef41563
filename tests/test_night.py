"""harness/night/night.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.matrix import Cell
from harness.night.night import read_night
from harness.night.outcome import MISSING, commit
from tests.nights import COMMITS, green, red, write

CELL = "h100/dev/gpt"


@pytest.fixture(autouse=True)
def _no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_SHA", raising=False)


def test_every_verdict_below_the_folder_is_read_and_sorted_by_cell(tmp_path: Path) -> None:
    night = read_night(write(tmp_path, red("h100/dev/b"), green("cpu/lts/a"), green("h100/dev/a")))
    assert [outcome.cell.id for outcome in night.outcomes] == ["cpu/lts/a", "h100/dev/a", "h100/dev/b"]
    assert [outcome.green for outcome in night.outcomes] == [True, True, False]


def test_what_a_run_puts_aside_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, green(CELL))
    aside = tmp_path / "h100/dev/.gpt.old"
    aside.mkdir()
    (aside / "verdict.json").write_text("{")
    assert len(read_night(tmp_path).outcomes) == 1


def test_a_cell_that_was_expected_and_left_nothing_is_red(tmp_path: Path) -> None:
    night = read_night(write(tmp_path, green(CELL)), [Cell.parse(CELL), Cell.parse("h100/dev/lost")])
    lost = night.outcomes[1]
    assert (lost.green, lost.missing, lost.signature) == (False, True, MISSING)
    assert lost.headline.what.startswith("no verdict")
    assert lost.headline.command == 'nox -s "case(h100)(dev,lost)"'


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"checks": 3, "diagnosis": null}', "\xff"])
def test_a_torn_verdict_is_its_own_cell_s_red_and_hides_no_other(tmp_path: Path, text: str) -> None:
    write(tmp_path, green("h100/dev/a"), green(CELL))
    (tmp_path / CELL / "verdict.json").write_bytes(text.encode("latin-1"))
    sound, torn = read_night(tmp_path).outcomes
    assert sound.green
    assert not torn.green
    assert not torn.missing
    assert "cannot be read" in torn.headline.what


def test_a_verdict_in_the_folder_of_another_cell_is_not_taken_for_that_cell_s(tmp_path: Path) -> None:
    green("h100/dev/other").write(tmp_path / CELL / "verdict.json")
    (outcome,) = read_night(tmp_path).outcomes
    assert not outcome.green
    assert "is that of h100/dev/other" in outcome.headline.what


@pytest.mark.parametrize("folder", ["b200/dev/gpt", "h100/main/gpt"])
def test_a_folder_that_is_no_cell_is_an_error(tmp_path: Path, folder: str) -> None:
    green(CELL).write(tmp_path / folder / "verdict.json")
    with pytest.raises(UsageError, match="expected"):
        read_night(tmp_path)


def test_no_results_at_all_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="found none"):
        read_night(tmp_path)


def test_the_commit_is_the_run_s_own_before_the_workflow_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_SHA", COMMITS["f"])
    night = read_night(write(tmp_path, green("h100/dev/a", commit="b"), green("h100/dev/b", commit="")))
    assert [outcome.commit for outcome in night.outcomes] == [COMMITS["b"], COMMITS["f"]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ABCDEF1", "abcdef1"),
        (COMMITS["a"] + "+", COMMITS["a"]),
        ("main", None),
        ("abc", None),
        ("", None),
        (None, None),
        (f"{COMMITS['a']}\n](http://x)", None),
    ],
)
def test_a_commit_is_hexadecimal_or_none(text: object, found: str | None) -> None:
    assert commit(text) == found


def test_the_same_reason_has_the_same_signature_and_another_has_another(tmp_path: Path) -> None:
    def signature(verdict: object) -> str:
        (outcome,) = read_night(write(tmp_path, verdict)).outcomes  # type: ignore[arg-type]
        return outcome.signature

    first = signature(red(CELL))
    assert signature(red(CELL, step=53, commit="c")) == first
    assert signature(red(CELL, component="optimizer")) != first
    assert signature(red(CELL, metric="num-zeros")) != first


def test_the_same_results_have_the_same_digest(tmp_path: Path) -> None:
    first = read_night(write(tmp_path, red(CELL))).digest
    assert read_night(write(tmp_path, red(CELL))).digest == first
    assert read_night(write(tmp_path, green(CELL))).digest != first
