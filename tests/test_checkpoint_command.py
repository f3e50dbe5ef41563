"""``harness checkpoint``: two states as a table, one state as a list, and whether it is whole."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness.checkpoints import fingerprint
from harness.commands.cli import main
from tests.checkpoints.made import WEIGHT, dist, ranks, save, state

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    """A state, and the same with one weight and the schedule changed, in another format."""
    changed = state()
    changed[f"model.{WEIGHT}"][2, 1] += 0.5
    changed["scheduler.step"] = torch.tensor(4)
    return str(ranks(tmp_path / "a", state(), tp=2)), str(dist(tmp_path / "b", changed))


def test_equal_states_exit_0(two: tuple[str, str], capsys: Capture) -> None:
    assert main(["checkpoint", "diff", two[0], two[0]]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"equal: {len(state())} names, bit for bit")


def test_differing_states_exit_1_with_a_row_for_each_name(two: tuple[str, str], capsys: Capture) -> None:
    assert main(["checkpoint", "diff", *two]) == 1
    out = capsys.readouterr().out
    rows = {line.split()[1]: line for line in out.splitlines() if line.startswith(("weights", "lr-schedule"))}
    assert set(rows) == {f"model.{WEIGHT}", "scheduler.step"}
    assert "1 of 24" in rows[f"model.{WEIGHT}"]
    assert "[2, 1]" in rows[f"model.{WEIGHT}"]
    assert "0.5" in rows[f"model.{WEIGHT}"]
    assert rows["scheduler.step"].split()[-2:] == ["200", "4"]
    assert out.splitlines()[-1].startswith(f"2 differ of {len(state())} compared")


def test_json_of_a_diff_has_every_name(two: tuple[str, str], capsys: Capture) -> None:
    assert main(["checkpoint", "diff", *two, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["equal"] is False
    assert {entry["name"]: entry["component"] for entry in found["entries"]} == {
        f"model.{WEIGHT}": "weights", "scheduler.step": "lr-schedule",
    }  # fmt: skip


def test_long_table_is_cut_and_says_so(tmp_path: Path, capsys: Capture) -> None:
    a, b = ({f"w{i}": torch.full((2,), float(i + add)) for i in range(60)} for add in (0, 1))
    one, other = str(save(a, tmp_path / "a.pt")), str(save(b, tmp_path / "b.pt"))
    assert main(["checkpoint", "diff", one, other]) == 1
    assert "and 20 more (--all shows them)" in capsys.readouterr().out
    assert main(["checkpoint", "diff", one, other, "--all"]) == 1
    assert sum(line.startswith("weights") for line in capsys.readouterr().out.splitlines()) == 60


def test_states_without_a_common_name_are_not_called_equal(tmp_path: Path, capsys: Capture) -> None:
    one, other = save({"a": 1}, tmp_path / "a.pt"), save({"b": 1}, tmp_path / "b.pt")
    assert main(["checkpoint", "diff", str(one), str(other)]) == 1
    assert "no name in common" in capsys.readouterr().out


def test_gap_of_a_state_is_said_with_its_side(tmp_path: Path, capsys: Capture) -> None:
    lost = {name: tensor for name, tensor in state().items() if not name.startswith("scheduler")}
    one, other = ranks(tmp_path / "a", lost), ranks(tmp_path / "b", lost)
    main(["checkpoint", "diff", str(one), str(other)])
    out = capsys.readouterr().out
    assert "A: lr-schedule: the checkpoint holds no position of the learning-rate schedule" in out
    assert "B: lr-schedule:" in out


def test_show_lists_names_and_the_digest_of_each_component(two: tuple[str, str], capsys: Capture) -> None:
    assert main(["checkpoint", "show", two[0]]) == 0
    out = capsys.readouterr().out
    assert f"model.{WEIGHT}" in out
    assert f"weights: sha256 {fingerprint(Path(two[0]))['weights']}" in out
    assert main(["checkpoint", "show", two[0], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["digests"] == fingerprint(Path(two[0]))
    assert {"name": f"model.{WEIGHT}", "component": "weights", "dtype": "float32", "shape": [6, 4]} in found[
        "entries"
    ]


def test_show_says_in_one_row_that_there_are_arguments(tmp_path: Path, capsys: Capture) -> None:
    args = SimpleNamespace(**{f"weight_{i}": i for i in range(300)}, consumed_train_samples=80)
    path = str(
        save({"args": args, "model": {"w": 1}}, tmp_path / "mp_rank_00" / "model_optim_rng.pt").parents[1]
    )
    assert main(["checkpoint", "show", path]) == 0
    out = capsys.readouterr().out
    (row,) = (line.split() for line in out.splitlines() if "args.*" in line)
    assert row == ["unknown", "mp_rank_00/model_optim_rng:args.*", "arguments", "300"]
    assert "weight_1" not in out
    assert "args.consumed_train_samples" in out
    assert main(["checkpoint", "show", path, "--all"]) == 0
    assert "args.weight_299" in capsys.readouterr().out
    assert main(["checkpoint", "show", path, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["entries"]) == 302


def test_verify_exits_0_for_a_whole_one_and_2_for_a_torn_one(two: tuple[str, str], capsys: Capture) -> None:
    assert main(["checkpoint", "verify", two[1]]) == 0
    assert "whole: 2 files" in capsys.readouterr().out
    assert main(["checkpoint", "verify", two[1], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 2
    (Path(two[1]) / "__0_0.distcp").write_bytes(b"")
    assert main(["checkpoint", "verify", two[1]]) == 2
    assert "__0_0.distcp" in capsys.readouterr().err


def test_folder_with_a_tracker_is_verified_at_its_latest(tmp_path: Path, capsys: Capture) -> None:
    ranks(tmp_path / "iter_0000010", state())
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("10")
    assert main(["checkpoint", "verify", str(tmp_path)]) == 0
    assert "iter_0000010: whole" in capsys.readouterr().out
