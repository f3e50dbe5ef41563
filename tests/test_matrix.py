"""Tracks, hardware, cells: names that selectors, paths and sessions are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import CaseError, UsageError
from harness.matrix import HARDWARE, NAME, TRACKS, Cell, case_names, cases_by_name, cells


def add(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "model_config.yaml").touch()


def test_a_cell_is_read_as_it_is_written() -> None:
    cell = Cell.parse("h100/lts/gpt3-7b.v1")
    assert cell == Cell("h100", "lts", "gpt3-7b.v1")
    assert Cell.parse(cell.id) == cell


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpu/dev", "expected HARDWARE/TRACK/CASE"),
        ("cpu//x", "expected HARDWARE/TRACK/CASE"),
        ("cpu/dev/a/b", "expected HARDWARE/TRACK/CASE"),
        ("no-such/dev/x", f"hardware 'no-such': expected {' or '.join(HARDWARE)}"),
        ("cpu/no-such/x", f"track 'no-such': expected {' or '.join(TRACKS)}"),
        ("cpu/dev/..", "'..' cannot be the name of a case"),
        ("cpu/dev/.hidden", "cannot be the name of a case"),
        ("cpu/dev/a b", "cannot be the name of a case"),
        ("cpu/dev/a,b", "cannot be the name of a case"),
        ("cpu/dev/" + "a" * 201, "cannot be the name of a case"),
    ],
)
def test_what_is_no_cell_is_refused_with_the_part_that_is_wrong(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Cell.parse(text)
    assert said in str(caught.value)


def test_the_goldens_of_shipped_hardware_are_called_as_megatron_calls_them() -> None:
    gpus = {name: f"dgx_{name}" for name in ("a100", "h100", "h200", "b200", "gb200", "gb300")}
    assert {name: one.platform for name, one in HARDWARE.items()} == gpus | {"mi300x": "mi300x", "cpu": "cpu"}


def test_no_two_kinds_of_hardware_share_their_goldens() -> None:
    platforms = [kind.platform for kind in HARDWARE.values()]
    assert len(platforms) == len(set(platforms))


def test_the_names_of_hardware_and_tracks_can_be_parts_of_a_session_and_a_path() -> None:
    assert [name for name in (*HARDWARE, *TRACKS) if not NAME.fullmatch(name) or "," in name] == []
    assert HARDWARE.keys().isdisjoint(TRACKS)


def test_cases_are_found_with_a_family_without_one_and_deeper(tmp_path: Path) -> None:
    add(tmp_path, "gpt/b", "gpt/a", "moe/c", "alone", "too/deep/down")
    (tmp_path / "gpt" / "no_case").mkdir()
    (tmp_path / "stray.yaml").touch()
    found = [(family, name) for family, name, _ in case_names(tmp_path)]
    assert found == [(tmp_path.name, "alone"), ("gpt", "a"), ("gpt", "b"), ("moe", "c"), ("deep", "down")]


def test_a_loop_of_links_is_not_followed(tmp_path: Path) -> None:
    add(tmp_path, "gpt/a")
    (tmp_path / "gpt" / "again").symlink_to(tmp_path)
    assert [name for _, name, _ in case_names(tmp_path)] == ["a"]


def test_a_folder_that_is_not_there_has_no_cases(tmp_path: Path) -> None:
    assert case_names(tmp_path / "missing") == []


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    add(tmp_path, "gpt/a")
    (tmp_path / "gpt" / "loop").symlink_to(tmp_path)
    assert list(cases_by_name(tmp_path)) == ["a"]


def test_two_cases_of_one_name_are_refused_with_both_paths(tmp_path: Path) -> None:
    add(tmp_path, "gpt/same", "moe/same")
    with pytest.raises(CaseError) as caught:
        cases_by_name(tmp_path)
    assert str(tmp_path / "gpt" / "same") in str(caught.value)
    assert str(tmp_path / "moe" / "same") in str(caught.value)


def test_the_cells_are_every_case_on_every_track_and_hardware_once(tmp_path: Path) -> None:
    add(tmp_path, "gpt/a", "gpt/b")
    found = list(cells(tmp_path))
    assert len(found) == len(set(found)) == 2 * len(TRACKS) * len(HARDWARE)
    assert found[0] == Cell(next(iter(HARDWARE)), next(iter(TRACKS)), "a")
